"""Owns the inference route of the protocol: `/v2/models/<m>[/versions/<v>]/infer`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.api import compression
from service.api.bodies import IMAGE_MAGIC
from service.api.endpoint import Foresight, Limits
from service.api.http import HttpRequest, Reply
from service.api.intake import Intake
from service.api.openinference.faults import fault
from service.api.openinference.heads import HeadKey, KnownHeads, key_of
from service.api.openinference.inputs import read_inputs
from service.api.openinference.outputs import OutputPlan, plan_outputs, render_outputs
from service.api.openinference.paths import model_path
from service.api.openinference.raw import read_raw
from service.api.openinference.requests import Head, OutputWish, read_head, split_body
from service.api.remembered import LONGEST, Remembered
from service.api.weight import check_reply, is_heavy_result
from service.errors import LayertapError
from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.tensors import Array, InferRequest, InferResult

_HEAVY_JSON_BYTES = 32 * 1024
_HEAVY_BINARY_BYTES = 1024 * 1024
_TIMEOUT = re.compile(rb'"timeout"\s*:\s*([0-9]{1,18})(?=\s*[,}])')  # microseconds, as Triton has it
_NEAR_AN_END = 2048  # bytes
_MEND = "Ask for fewer rows or outputs, or for binary data."


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed request: how it is answered, and what the runtime runs for it."""

    plan: OutputPlan
    request: InferRequest
    id: str | None
    accept_encoding: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The hidden layers that were asked for."""
        return self.plan.layers


class InferEndpoint:
    """The inference route.

    Args:
        limits: sizes.
    """

    name = "v2_infer"

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._heads = KnownHeads()
        self._plans: Remembered[tuple[str, int, tuple[OutputWish, ...], bool], OutputPlan] = Remembered()

    def named(self, path: str, query: bytes) -> str | None:  # noqa: ARG002 the path says it
        """The model in the path."""
        try:
            return model_path(path)[0]
        except LayertapError:
            return None

    def is_heavy(self, request: HttpRequest) -> bool:
        """Whether parsing would hold up an event loop: pictures, long JSON and packed bodies do."""
        body, headers = request.body, request.headers
        length = headers.get(b"inference-header-content-length", b"")
        size = int(length) if length.isdigit() and len(length) < 10 else len(body)
        return (
            b"content-encoding" in headers
            or size > _HEAVY_JSON_BYTES
            or len(body) > _HEAVY_BINARY_BYTES
            or (size == 0 and body.startswith(IMAGE_MAGIC))
            or body.find(b'"BYTES"', 0, size) >= 0
        )

    def foresee(self, request: HttpRequest, runtime: Runtime) -> Foresight:
        """What the path says, and the limit where it stands at one of the ends of the JSON, as clients write it.

        Raises:
            RequestError: the path is wrong.
            NotReady: the model cannot answer now.
        """
        served = runtime.resolve(*model_path(request.path))
        outputs = served.layers.ordered(output.path for output in served.spec.outputs)
        return Foresight(served, outputs, _foreseen_timeout_s(request))

    def parse(self, request: HttpRequest, runtime: Runtime) -> Call:
        """The call that a request means, its arrays decoded and checked.

        Raises:
            RequestError: the request is wrong; the message says what was expected and what came.
            NotReady: the model cannot answer now.
        """
        body = request.body
        if b"content-encoding" in request.headers:
            body = compression.unpack(body, request.header(b"content-encoding"), self._limits.max_input_bytes)
        text, binary = split_body(body, request.header(b"inference-header-content-length"))
        accept_encoding = request.header(b"accept-encoding")
        generation = runtime.generation
        key: HeadKey | None = None
        if binary.nbytes:
            key, given_id = key_of(request.path, text)
            known = self._heads.find(key, generation) if key is not None else None
            if known is not None:
                return self._call(known.plan, known.read(binary), known.head, given_id, accept_encoding)
        served = runtime.resolve(*model_path(request.path))
        intake = Intake.of(served, self._limits)
        if not len(text) and len(body):
            plan = self._plan(served, (), generation, binary=True)
            return self._call(plan, read_raw(body, intake), _RAW, None, accept_encoding)
        head = read_head(text)
        plan = self._plan(served, head.outputs, generation, binary=head.binary)
        arrays = read_inputs(head.inputs, binary, intake)
        if key is not None:
            dtypes = {spec.name: spec.dtype for spec in intake.inputs}
            self._heads.remember(key, generation, head, dtypes, plan)
        return self._call(plan, arrays, head, head.id, accept_encoding)

    def is_heavy_reply(self, result: InferResult) -> bool:
        """Whether rendering would hold up an event loop."""
        return is_heavy_result(result)

    def render(self, call: Call, result: InferResult) -> Reply:
        """The reply, packed where the client takes that and it is worth it.

        Raises:
            ReplyTooLarge: it exceeds `max_reply_bytes`, which could not be known before the model ran.
        """
        reply = render_outputs(call.plan, result, call.id)
        check_reply(len(reply.body), call.request.rows, self._limits, _MEND)
        return compression.packed(reply, call.accept_encoding) if call.accept_encoding else reply

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return fault(error)

    def _call(
        self,
        plan: OutputPlan,
        arrays: dict[str, Array],
        head: Head,
        given_id: str | None,
        accept_encoding: str,
    ) -> Call:
        served = plan.served
        rows = len(next(iter(arrays.values())))
        check_reply(plan.row_bytes * rows, rows, self._limits, _MEND)
        request = InferRequest(
            served.name, served.version, plan.paths, arrays, rows, head.timeout_s, head.priority, served
        )
        return Call(plan, request, given_id, accept_encoding)

    def _plan(
        self, served: ServedModel, wishes: tuple[OutputWish, ...], generation: int, *, binary: bool
    ) -> OutputPlan:
        key = (served.name, served.version, wishes, binary)
        plan = self._plans.find(key, generation)
        if plan is None:
            plan = plan_outputs(served, wishes, binary=binary)
            if sum([len(wish.name) for wish in wishes]) <= LONGEST:
                self._plans.keep(key, generation, plan)
        return plan


def _foreseen_timeout_s(request: HttpRequest) -> float | None:
    """The timeout parameter where it stands near one of the ends of the JSON; `None` where it does not, or is odd.

    What is overlooked here is found when the body is read.
    """
    body = request.body
    length = request.headers.get(b"inference-header-content-length", b"")
    end = int(length) if length.isdigit() and len(length) < 10 else len(body)
    found = _TIMEOUT.search(body, 0, min(_NEAR_AN_END, end)) or _TIMEOUT.search(
        body, max(0, end - _NEAR_AN_END), end
    )
    return int(found[1]) / 1e6 or None if found else None


_RAW = Head(id=None, inputs=(), outputs=(), binary=True, timeout_s=None, priority=0)
