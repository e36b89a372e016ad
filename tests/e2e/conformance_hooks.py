"""Owns what schemathesis is told about the service under test: names of its models, and requests that they answer.

Without it most generated requests would end at an unknown model or at the first look at a body. Most of those to a
model get its name, most of those that run one a body that it takes, changed in one place at most. Loaded by
schemathesis, through SCHEMATHESIS_HOOKS.
"""

import copy

import schemathesis
from hypothesis import strategies as st

MODELS = ("iris", "pairs", "spare", "broken")
STAYS = ("iris", "pairs", "digits")  # whoever unloads these has nothing left to ask
NAMES = ("name", "model_name")
OF_SPARE = {"version": "1", "model_version": "1", "label": "stable"}
ROW = [5.1, 3.5, 1.4, 0.2]
INK = [[0.0] * 8] * 8
INPUTS = {
    "iris": {"measurements": ROW},
    "spare": {"measurements": ROW},
    "broken": {"x": [1.0]},
    "pairs": {"left": INK, "right": INK},
}
OUTPUTS = ("species", "sum", "same", "base", "code:1", "scale:0", "measurements", "*", "-1", "no such layer")
MOSTLY = st.sampled_from([True, True, True, False])
LEAVES = st.sampled_from([None, 0, -1, 10**20, 1.5, True, "", "x", [], [[]], {}])


def tensor(name, values):
    shape, inner = [1], values
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0]
    return {"name": name, "datatype": "FP32", "shape": shape, "data": [values]}


@st.composite
def good_bodies(draw, path, model):
    """A body that the model takes on this route."""
    row = INPUTS[model]
    if path.endswith("/infer"):
        body = {"inputs": [tensor(name, values) for name, values in row.items()]}
        if draw(st.booleans()):
            asked = draw(st.lists(st.sampled_from(OUTPUTS), min_size=1, max_size=2, unique=True))
            body["outputs"] = [{"name": name} for name in asked]
            body["outputs"][0]["parameters"] = draw(
                st.sampled_from([{}, {"binary_data": True}, {"classification": 2}, {"classification": 10**9}])
            )
        if draw(st.booleans()):
            body["parameters"] = draw(
                st.dictionaries(st.sampled_from(["timeout", "priority", "note"]), st.integers(0, 9))
            )
        return body
    if path.endswith((":classify", ":regress")):
        return {"examples": [row]}
    body = draw(
        st.sampled_from([{"instances": [row, row]}, {"inputs": {key: [value] for key, value in row.items()}}])
    )
    if path.endswith(":predict") and draw(st.booleans()):
        body = {
            **body,
            "signature_name": draw(st.sampled_from(["serving_default", "layer:-1", "layer:*", "layer:no"])),
        }
    return body


@st.composite
def changed(draw, body):
    """The body, one value in it exchanged."""
    body = holder = copy.deepcopy(body)
    while True:
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[key], list | dict) or not holder[key] or draw(st.booleans()):
            holder[key] = draw(LEAVES)
            return body
        holder = holder[key]


@schemathesis.hook
def flatmap_case(context, case):
    """The case, or one that gets further."""
    del context

    @st.composite
    def further(draw):
        parameters = case.path_parameters if isinstance(case.path_parameters, dict) else {}
        name = next((name for name in NAMES if name in parameters), None)
        model = draw(st.sampled_from(MODELS))
        if name is not None and draw(MOSTLY):
            if "label" in parameters:
                model = "spare"
            version = {key: value for key, value in OF_SPARE.items() if key in parameters and draw(MOSTLY)}
            case.path_parameters = {**parameters, name: model, **version}
        path = case.operation.path
        inference = path.endswith(("/infer", ":predict", ":classify", ":regress", "/predict", "/features"))
        if inference and draw(MOSTLY):
            case.media_type = "application/json"
            case.headers = {
                key: value for key, value in (case.headers or {}).items() if "Content-Length" not in key
            }
            good = draw(good_bodies(path, model))
            case.body = good if draw(MOSTLY) else draw(changed(good))
            if name is None:
                case.query = {"model": model}
        return case

    return further()


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what would end the others' chances."""
    del context
    parameters = case.path_parameters if isinstance(case.path_parameters, dict) else {}
    return not (case.operation.path.endswith("/unload") and parameters.get("name") in STAYS)
