"""Owns what a signature means for a model: which tensors to compute, and under which names to print them.

`serving_default` is the model's own outputs; `layer:pool` is a hidden layer, `layer:pool,conv` two of them, in every
spelling that `/features` takes. Models have these signatures by themselves. What a path and a signature mean is
worked out once and remembered for all requests alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.api.endpoint import Limits
from service.api.intake import Intake
from service.api.json_inputs import JsonInputs
from service.api.remembered import LONGEST, Remembered
from service.api.tfserving.requests import lift_numbers, unflatten
from service.api.tfserving.routes import CLASSIFY, PREDICT, REGRESS, inference, malformed
from service.errors import InvalidRequest, LayerNotFound
from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.tensors import TensorSpec

DEFAULT = "serving_default"
LAYER_PREFIX = "layer:"
METHOD_NAMES = {verb: f"tensorflow/serving/{verb}" for verb in (PREDICT, CLASSIFY, REGRESS)}
_BYTES_PER_NUMBER = 14  # of float32 in its shortest form, comma and blank included; typical, not the most
_BYTES_PER_CLASS = 22  # a number, its label's quotes and the brackets of the pair
_BYTES_PER_LEVEL = 4  # of indentation
_MAX_TOLD = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """How requests of one path and one signature are answered.

    Args:
        served: the model that answers.
        shown: name in the reply -> the tensor's path.
        outputs: what the engine computes, in the model's own order, so that equal wishes share batches.
        layers: the hidden layers among them that were asked for by name.
        row_bytes: the reply's size for each row, as far as it is known before the model runs.
        column_bytes: the same where it is printed as columns.
        values: reads the model's inputs.
    """

    served: ServedModel
    shown: dict[str, str]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    row_bytes: int
    column_bytes: int
    values: JsonInputs


class Planner:
    """Makes plans and remembers them while the same models are served.

    Args:
        limits: sizes.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._plans: Remembered[tuple[str, str], Plan] = Remembered()

    def plan(self, path: str, signature: str, runtime: Runtime) -> Plan:
        """The plan for a path of inference and a signature's name.

        Raises:
            InvalidRequest, NotFound, NotReady: as they say.
        """
        key, generation = (path, signature), runtime.generation
        plan = self._plans.find(key, generation)
        if plan is None:
            plan = self._make(path, signature, runtime)
            if len(path) + len(signature) <= LONGEST:
                self._plans.keep(key, generation, plan)
        return plan

    def _make(self, path: str, signature: str, runtime: Runtime) -> Plan:
        found = inference(path)
        if found is None:
            raise malformed("POST", path)
        verb, target = found
        served = target.served(runtime)
        intake = Intake.of(served, self._limits)
        values = JsonInputs(intake, finite=False, reshape=lift_numbers if verb == PREDICT else unflatten)
        shown, layers = _tensors(served, signature, verb)
        row_bytes, column_bytes = _reply_bytes(served, layers, verb)
        outputs = served.layers.ordered(shown.values())
        return Plan(served, shown, outputs, layers, row_bytes, column_bytes, values)


def can_classify(served: ServedModel) -> bool:
    """Whether the model has one output, of scores for classes: a single unit is two classes if it is a sigmoid."""
    outputs = served.spec.outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].dtype in ("string", "bool"):
        return False
    return outputs[0].shape[-1] != 1 or outputs[0].activation == "sigmoid"


def can_regress(served: ServedModel) -> bool:
    """Whether the model has one output, of one number a row."""
    outputs = served.spec.outputs
    return len(outputs) == 1 and outputs[0].row_values == 1 and outputs[0].dtype not in ("string", "bool")


def _tensors(served: ServedModel, signature: str, verb: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name in the reply -> path, and which of them are layers asked for by name."""
    if verb != PREDICT or not signature.startswith(LAYER_PREFIX):
        _check_signature(served, signature, verb)
        return {output.name: output.path for output in served.spec.outputs}, ()
    names = [name.strip() for name in signature[len(LAYER_PREFIX) :].split(",")]
    try:
        layers = served.layers.resolve(names)
    except LayerNotFound as error:
        raise InvalidRequest(f"{_not_found(signature)}. {error.message}") from error
    return {path: path for path in layers}, layers


def _check_signature(served: ServedModel, signature: str, verb: str) -> None:
    """Raises InvalidRequest unless the model can answer this verb by a signature of this name."""
    if signature not in {"", DEFAULT, METHOD_NAMES[verb]}:
        raise InvalidRequest(_not_found(signature))
    if verb == CLASSIFY and not can_classify(served):
        raise _other_method(served, "classification", verb, "scores for classes, as (rows, classes)")
    if verb == REGRESS and not can_regress(served):
        raise _other_method(served, "regression", verb, "numbers, as (rows, 1)")


def _not_found(signature: str) -> str:
    return f'Serving signature name: "{signature[:_MAX_TOLD]}" not found in signature def'


def _other_method(served: ServedModel, kind: str, verb: str, needed: str) -> InvalidRequest:
    shapes = {output.name: list(output.shape) for output in served.spec.outputs}
    return InvalidRequest(
        f"Expected {kind} signature method_name to be {METHOD_NAMES[verb]}. Was: {METHOD_NAMES[PREDICT]}. "
        f"{verb} needs a model with one output of {needed}; '{served.name}' has {shapes}."
    )


def _reply_bytes(served: ServedModel, layers: tuple[str, ...], verb: str) -> tuple[int, int]:
    """What a row adds to a reply printed as rows, and to one printed as columns."""
    if verb == CLASSIFY:
        choices = max(2, served.spec.outputs[0].shape[-1] or 0)
        names = served.entry.classes
        size = choices * _BYTES_PER_CLASS + (sum(map(len, names)) if len(names) == choices else 0)
        return size, size
    specs: Iterable[TensorSpec] = (
        [served.layers[path].tensor for path in layers] if layers else served.spec.outputs
    )
    rows = columns = 0
    for spec in specs:
        values = spec.row_values or 0
        rows += values * _BYTES_PER_NUMBER
        columns += values * (_BYTES_PER_NUMBER + (len(spec.shape) + 1) * _BYTES_PER_LEVEL)
    return rows, columns
