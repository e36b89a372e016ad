"""Owns TensorFlow Serving's REST API and KServe V1 under `/v1`, from a request to a call and from a result to a reply.

Sources: tensorflow_serving/model_servers/http_rest_api_handler.cc and http_server.cc; KServe's
python/kserve/kserve/protocol/rest/v1_endpoints.py. Content types are not looked at, as there: curl's default passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.api import views
from service.api.compression import unpack
from service.api.endpoint import Foresight, Limits
from service.api.http import HttpRequest, Reply, options_reply
from service.api.tfserving import documents, printing
from service.api.tfserving.requests import read_document, read_examples, read_predict
from service.api.tfserving.routes import (
    CLASSIFY,
    EXPLAIN,
    PREDICT,
    REGRESS,
    about,
    inference,
    is_status,
    malformed,
)
from service.api.tfserving.signatures import Plan, Planner
from service.api.weight import check_reply, is_heavy_json, is_heavy_result
from service.errors import InvalidRequest, LayertapError, NotSupported, QueueFull
from service.serving.runtime import Runtime
from service.tensors import Array, InferRequest, InferResult

_MEND = "Ask for fewer rows or for a smaller layer."
# TensorFlow Serving's codes have no HTTP status of their own for these: all are INVALID_ARGUMENT.
_INVALID_ARGUMENT = frozenset({405, 406, 415, 422})


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed request: how it is answered, and what the runtime runs for it.

    Args:
        plan: how.
        request: what.
        columns: it is answered by columns, as it came.
        bare: rows of one number are printed without their lists, as they came.
    """

    plan: Plan
    request: InferRequest
    columns: bool = False
    bare: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The hidden layers that were asked for."""
        return self.plan.layers


class TensorFlowEndpoint:
    """One verb: predict, classify or regress.

    Args:
        verb: which.
        planner: shared by all verbs.
        limits: sizes.
    """

    def __init__(self, verb: str, planner: Planner, limits: Limits) -> None:
        self.name = f"v1_{verb}"
        self._verb = verb
        self._planner = planner
        self._limits = limits

    def named(self, path: str, query: bytes) -> str | None:  # noqa: ARG002 the path says it
        """The model in the path."""
        try:
            found = inference(path)
        except LayertapError:
            return None
        return None if found is None else found[1].model

    def is_heavy(self, request: HttpRequest) -> bool:
        """Whether parsing would hold up an event loop: pictures, large bodies and packed ones do."""
        return b"content-encoding" in request.headers or is_heavy_json(request.body)

    def foresee(self, request: HttpRequest, runtime: Runtime) -> Foresight:
        """What the path says; of the signature, which stands in the body, the usual one is taken.

        Raises:
            RequestError: the path is wrong.
            NotReady: the model cannot answer now.
        """
        plan = self._planner.plan(request.path, "", runtime)
        return Foresight(plan.served, plan.outputs)

    def parse(self, request: HttpRequest, runtime: Runtime) -> Call:
        """The call that a request means, its arrays decoded and checked.

        Raises:
            RequestError: the request is wrong.
            NotReady: the model cannot answer now.
        """
        body = request.body
        if b"content-encoding" in request.headers:
            body = unpack(body, request.header(b"content-encoding"), self._limits.max_input_bytes)
        document = read_document(body)
        plan = self._planner.plan(request.path, document.signature, runtime)
        columns = bare = False
        if self._verb == PREDICT:
            sent = read_predict(document, plan.values)
            inputs, columns, bare = sent.inputs, sent.columns, sent.bare
        else:
            inputs = read_examples(document, plan.values, self._verb)
        plan.values.intake.check_size(inputs, "the body")
        rows = len(next(iter(inputs.values())))
        check_reply((plan.column_bytes if columns else plan.row_bytes) * rows, rows, self._limits, _MEND)
        served = plan.served
        return Call(
            plan,
            InferRequest(served.name, served.version, plan.outputs, inputs, rows, served=served),
            columns,
            bare,
        )

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        return is_heavy_result(result)

    def render(self, call: Call, result: InferResult) -> Reply:
        """The reply.

        Raises:
            ReplyTooLarge: it exceeds `max_reply_bytes`, which could not be known before the model ran.
        """
        arrays = {name: result.outputs[path] for name, path in call.plan.shown.items()}
        if self._verb == CLASSIFY:
            body = _print_classes(call.plan, next(iter(arrays.values())))
        elif self._verb == REGRESS:
            body = printing.print_values(next(iter(arrays.values())).reshape(-1))
        else:
            if call.bare:
                arrays = {name: _bare(array) for name, array in arrays.items()}
            body = printing.print_outputs(arrays) if call.columns else printing.print_predictions(arrays)
        check_reply(len(body), call.request.rows, self._limits, _MEND)
        return Reply(200, body)

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return problem(error)


class TensorFlowServing:
    """Every route under `/v1`.

    Args:
        limits: sizes.
        prefix: `/v1`, or `/V1`: TensorFlow Serving takes letters of either case in its paths.
    """

    name = "tfserving"

    def __init__(self, limits: Limits, prefix: str = "/v1") -> None:
        self.prefix = prefix
        planner = Planner(limits)
        self._endpoints = {
            verb: TensorFlowEndpoint(verb, planner, limits) for verb in (PREDICT, CLASSIFY, REGRESS)
        }

    def endpoint(self, path: str) -> TensorFlowEndpoint | None:
        """What answers a POST to a path that ends with a verb; the rest of it is judged when the request is parsed."""
        return self._endpoints.get(path.rpartition(":")[2].lower())

    def is_health(self, path: str) -> bool:
        """Whether a GET to this path asks for the state of a model."""
        return is_status(path)

    def answer(self, request: HttpRequest, runtime: Runtime) -> Reply:
        """Status, metadata, KServe's list of models, and what is refused.

        Raises:
            LayertapError: `problem` renders it.
        """
        if request.method == "GET":
            if request.path.lower() == "/v1/models":
                return documents.models(runtime)
            asked = about(request.path)
            if asked is not None:
                wants_metadata, target = asked
                return (documents.metadata if wants_metadata else documents.status)(target, runtime)
        found = inference(request.path)
        if request.method == "OPTIONS":
            return _options(request.path, runs=found is not None)
        if request.method == "POST" and found is not None and found[0] == EXPLAIN:
            found[1].served(runtime)
            raise NotSupported("Expected :predict, :classify or :regress. Received: :explain.")
        raise malformed(request.method, request.path)

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return problem(error)


def _options(path: str, *, runs: bool) -> Reply:
    if runs or about(path) is not None:
        return options_reply("POST" if runs else "GET")
    if path.lower() in ("/v1", "/v1/"):
        return options_reply(None)
    raise malformed("OPTIONS", path)


def problem(error: LayertapError) -> Reply:
    """An error with TensorFlow Serving's HTTP status for its kind, as `{"error": message}`."""
    status = 400 if error.status in _INVALID_ARGUMENT else error.status
    headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, QueueFull) else {}
    message = " ".join(filter(None, (error.message, error.details.get("mend"))))
    return Reply(status, printing.print_error(message), headers=headers)


def _print_classes(plan: Plan, values: Array) -> bytes:
    found = views.label(values, plan.served.spec.outputs[0])
    if found is None:
        raise InvalidRequest(f"Expected scores of several classes. Received: shape {list(values.shape)}.")
    names = plan.served.entry.classes
    choices = found.values.shape[-1]
    return printing.print_classes(found.values, names if len(names) == choices else [""] * choices)


def _bare(array: Array) -> Array:
    """(N, 1) -> (N,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
