from itertools import product

import pytest
from numpy_engine import build_runtime

from service.api.endpoint import Limits
from service.api.plans import Planner as NativePlanner
from service.api.tfserving.signatures import Planner, can_classify, can_regress
from service.errors import InvalidRequest, ModelNotFound

LIMITS = Limits(10**6, 10**6, 10**6)
VERBS = ("predict", "classify", "regress")


@pytest.fixture(scope="module")
def runtime():
    runtime = build_runtime("iris", "pairs", "shapes", "words", "line")
    yield runtime
    runtime.stop()


def plan(runtime, model, signature="", verb="predict"):
    return Planner(LIMITS).plan(f"/v1/models/{model}:{verb}", signature, runtime)


@pytest.mark.parametrize(
    ("model", "signature", "shown", "layers"),
    [
        ("iris", "", ["probs"], ()),
        ("iris", "serving_default", ["probs"], ()),
        ("iris", "tensorflow/serving/predict", ["probs"], ()),
        ("pairs", "", ["total", "positive"], ()),
        ("iris", "layer:hidden", ["hidden"], ("hidden",)),
        ("iris", "layer:probs,hidden", ["probs", "hidden"], ("probs", "hidden")),
        ("iris", "layer: -1 , hidden,probs", ["probs", "hidden"], ("probs", "hidden")),
        ("shapes", "layer:po*,conv", ["pool", "conv"], ("pool", "conv")),
    ],
)
def test_a_signature_names_tensors_in_the_order_asked_for(runtime, model, signature, shown, layers):
    made = plan(runtime, model, signature)
    assert (list(made.shown), made.layers) == (shown, layers)


def test_what_is_computed_is_what_the_native_api_computes(runtime):
    native = NativePlanner(LIMITS, features=True)
    both = plan(runtime, "iris", "layer:probs,hidden").outputs
    assert both == native.plan(b"model=iris&layer=hidden&include=predictions", "", runtime).outputs
    assert plan(runtime, "pairs").outputs == plan(runtime, "pairs", "layer:positive,total").outputs


@pytest.mark.parametrize(
    "signature", ["x", "layer:", "layer:hiden", "layer:hidden,", "Layer:hidden", "s" * 5000]
)
def test_an_unknown_signature_is_told_in_the_words_that_clients_look_for(runtime, signature):
    with pytest.raises(InvalidRequest) as caught:
        plan(runtime, "iris", signature)
    assert caught.value.message.startswith(
        f'Serving signature name: "{signature[:200]}" not found in signature def'
    )
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("model", "verb"), list(product(("iris", "pairs", "shapes", "words", "line"), VERBS[1:]))
)
def test_classes_and_numbers_come_from_models_that_have_them(runtime, model, verb):
    able = {"classify": {"iris", "shapes"}, "regress": {"words", "line"}}[verb]
    served = runtime.resolve(model)
    assert (can_classify if verb == "classify" else can_regress)(served) == (model in able)
    if model in able:
        assert plan(runtime, model, f"tensorflow/serving/{verb}", verb).shown == plan(runtime, model).shown
    else:
        with pytest.raises(InvalidRequest, match=rf"method_name to be tensorflow/serving/{verb}\. Was: "):
            plan(runtime, model, "", verb)


def test_layers_are_for_predict_only(runtime):
    for verb in VERBS[1:]:
        with pytest.raises(InvalidRequest, match="not found in signature def"):
            plan(runtime, "iris", "layer:hidden", verb)


def test_plans_are_remembered_but_for_those_of_endless_names(runtime):
    planner = Planner(LIMITS)
    path = "/v1/models/iris:predict"
    assert planner.plan(path, "", runtime) is planner.plan(path, "", runtime)
    assert planner.plan(path, "serving_default", runtime) is not planner.plan(path, "", runtime)
    long = "layer:hidden" + " " * 2000
    assert planner.plan(path, long, runtime) is not planner.plan(path, long, runtime)
    for count in range(1500):
        planner.plan(path, f"layer:{' ' * (count % 900)}hidden{',hidden' * (count // 900)}", runtime)
    assert len(planner._plans) <= 1024


def test_an_unknown_model_is_asked_for_each_time(runtime):
    planner = Planner(LIMITS)
    for _ in range(2):
        with pytest.raises(ModelNotFound):
            planner.plan("/v1/models/half:predict", "", runtime)
    assert len(planner._plans) == 0


def test_columns_need_more_room_than_rows_and_classes_room_for_their_names(runtime):
    predict, classify = plan(runtime, "iris"), plan(runtime, "iris", verb="classify")
    assert 0 < predict.row_bytes < predict.column_bytes
    assert classify.row_bytes > predict.row_bytes + len("setosaversicolorvirginica")
