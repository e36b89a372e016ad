"""Owns running a converted model in OpenVINO on the CPU: compiled once, called without copies, every size prepared.

OpenVINO prepares itself for a batch size when it first sees it, which takes as long as a few batches. So a
function has sizes that were run when it was made, and a batch of any other size is run in parts of these: for a
large model that costs nothing, since its time is proportional to the rows; of a small one every size is prepared.

What OpenVINO is known to answer otherwise than TensorFlow never reaches it, or is noticed afterwards. Batches with
NaN, infinity or numbers beyond 2**30 go to the reserve: its relu, exp, clip and max make numbers of NaN, and it
computes 64-bit integers in 32 bits. Larger numbers it may have where the graph holds neither integers nor anything
that could overflow (`service.engines.magnitudes`). Batches with outputs that are not finite go to the reserve, too, and
so do whole numbers beyond 2**23: it compares and turns round 32 bits as float32. Indices that a table does not have are
rejected before that.

The module knows no TensorFlow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.engines import Function
from service.engines.converted import Converted
from service.engines.magnitudes import largest_input
from service.engines.openvino_library import core, library
from service.engines.part_sizes import PartSizes
from service.errors import InputRejected, LoadError
from service.tensors import Array, TensorSpec

LIMIT = 2**30
"""Larger numbers are left to TensorFlow; the sum of two that are not fits 32 bits."""

WHOLE_LIMIT = 2**23
"""Larger whole numbers are left to TensorFlow; the sum of two that are not is exact in float32."""

_ALWAYS_SMALL = frozenset(["bool", "int8", "int16", "int32", "uint8", "uint16"])
_WIDE = frozenset(["int32", "uint32", "int64", "uint64"])
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_SHORT_S = 0.002  # below it, calls themselves cost what more rows in each of them would save
_GAIN = 0.97  # of the seconds a row, that twice the rows must at least save to be worth their memory
_SMALL_BYTES = 64 * 1024  # copied sooner than lent
_FILLING_S = 0.25  # for the sizes between the powers of two

Approve = Callable[[int, Mapping[str, Array]], None]


@dataclass(frozen=True, slots=True)
class OpenVINOOptions:
    """How graphs are compiled.

    Args:
        threads: cores that one batch may use.
        precision: `float32`, or `bfloat16` for what takes long.
    """

    threads: int
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class _Port:
    """One output of the compiled graph."""

    place: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class OpenVINOFunction:
    """One compiled graph and its one request; `run` belongs to one thread at a time. `open_function` makes it.

    Args:
        converted: what it computes.
        request: an `openvino.InferRequest` of the compiled graph.
        reserve: gives the TensorFlow function of the same tensors, for the batches that go there; called on the
            engine thread, may raise `Deferred` and any of our errors.
    """

    def __init__(self, converted: Converted, request: Any, reserve: Callable[[], Function]) -> None:
        compiled = request.get_compiled_model()
        inputs, outputs = _places(compiled.inputs), _places(compiled.outputs)
        named = ((spec.name, f"input_{number}") for number, spec in enumerate(converted.inputs))
        self._inputs = [(name, inputs[port]) for name, port in named if port in inputs]
        self._limited = [spec.name for spec in converted.inputs if spec.dtype not in _ALWAYS_SMALL]
        self._wide = [spec.name for spec in converted.inputs if spec.dtype in _WIDE]
        self._paths = converted.paths
        self._tensors = list(converted.tensors)
        self._checks = converted.checks
        specs = [*converted.tensors.values(), *(check.indices for check in converted.checks)]
        # Tensors that are one and the same (a layer, and the Dropout after it) come out of one port.
        ports = {outputs[spec.name]: spec for spec in specs}
        self._ports = [_Port(place, _known(spec), np.dtype(spec.dtype)) for place, spec in ports.items()]
        order = {place: number for number, place in enumerate(ports)}
        self._sources = [order[outputs[spec.name]] for spec in specs]
        self._echoes = converted.echoes
        self._request = request
        self._tensor = library().Tensor
        self._reserve = reserve
        self._parts = PartSizes([1])
        self._graph = converted.graph
        self._limit: float | None = None

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """One forward pass; see `service.engines.Function`."""
        if not all(_is_small(batch[name], LIMIT) for name in self._limited) and not self._takes_large(batch):
            return self._reserve().run(batch)
        exact = all(_is_small(batch[name], WHOLE_LIMIT) for name in self._wide)
        if not exact and not self._checks:
            return self._reserve().run(batch)
        rows = len(next(iter(batch.values())))
        results = self._compute(batch, rows, self._parts.cut(rows))
        for check, indices in zip(self._checks, results[len(self._tensors) :], strict=True):
            _refuse_foreign(indices, check.size)
        outputs = dict(zip(self._tensors, results, strict=False))
        if not exact or not all(_is_finite(array) for array in outputs.values()):
            return self._reserve().run(batch)
        return self._with_echoes(outputs, batch) if self._echoes else outputs

    def _takes_large(self, batch: Mapping[str, Array]) -> bool:
        """Whether nothing in the graph can overflow, though numbers beyond LIMIT come in; judged when some first do."""
        if self._limit is None:
            self._limit = largest_input(self._graph)
        limit = self._limit
        return limit > LIMIT and all(_is_small(batch[name], limit) for name in self._limited)

    def prepare(self, rows: Mapping[str, Array], max_batch_size: int, approve: Approve) -> None:
        """Finds the largest size that pays and runs the function once at each that is used from now on.

        Args:
            rows: input name -> rows that the model takes; repeated and cut to the sizes.
            max_batch_size: no size is larger.
            approve: gets a size and what came out of the rows at that size; raises what it has against it.

        Raises:
            LoadError: OpenVINO failed at a size.
        """
        size, seconds = 1, self._try(rows, 1, approve)
        sizes = [size]
        while size < max_batch_size:
            larger = min(2 * size, max_batch_size)
            longer = self._try(rows, larger, approve)
            if seconds > _SHORT_S and longer / larger > _GAIN * seconds / size:
                break
            size, seconds = larger, longer
            sizes.append(size)
        deadline = time.perf_counter() + _FILLING_S
        for between in sorted(set(range(1, size)) - set(sizes)):
            if time.perf_counter() > deadline:
                break
            self._try(rows, between, approve)
            sizes.append(between)
        self.use_sizes(sizes)

    def repeat(self, rows: Mapping[str, Array], sizes: Iterable[int], approve: Approve) -> None:
        """Runs the function once at each of these sizes, which `prepare` found before, and uses them.

        Args:
            rows: as `prepare`.
            sizes: 1 is one of them in any case.
            approve: as `prepare`.

        Raises:
            LoadError: OpenVINO failed at a size.
        """
        self.use_sizes(sizes)
        for size in self.sizes:
            self._try(rows, size, approve, times=1)

    def use_sizes(self, sizes: Iterable[int]) -> None:
        """From now on batches are run in parts of these sizes, and of 1; they should have been run once."""
        self._parts = PartSizes(sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes in use, ascending."""
        return self._parts.sizes

    def _try(self, rows: Mapping[str, Array], size: int, approve: Approve, times: int = 3) -> float:
        """Runs one size a few times; the seconds that the quickest took."""
        count = len(next(iter(rows.values())))
        batch = {name: array[np.arange(size) % count] for name, array in rows.items()}
        seconds = []
        try:
            for _ in range(times):
                begun = time.perf_counter()
                results = self._compute(batch, size, (size,))
                seconds.append(time.perf_counter() - begun)
        except RuntimeError as error:
            raise LoadError(f"OpenVINO failed on {size} rows: {first_line(error)}.") from error
        approve(size, self._with_echoes(dict(zip(self._tensors, results, strict=False)), batch))
        return min(seconds)

    def _with_echoes(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        echoes = {path: batch[name] for path, name in self._echoes.items()}
        return {path: outputs[path] if path in outputs else echoes[path] for path in self._paths}

    def _compute(self, batch: Mapping[str, Array], rows: int, parts: Sequence[int]) -> list[Array]:
        request, tensor = self._request, self._tensor
        # OpenVINO writes into these arrays itself; they are new ones for every batch, so that results outlive it.
        results = [np.empty((rows, *port.shape), port.dtype) for port in self._ports]
        arrays = [(place, _as_memory(batch[name])) for name, place in self._inputs]
        start = 0
        for size in parts:
            stop = start + size
            for place, array in arrays:
                request.set_input_tensor(place, tensor(array[start:stop], shared_memory=True))
            for port, result in zip(self._ports, results, strict=True):
                request.set_output_tensor(port.place, tensor(result[start:stop], shared_memory=True))
            request.infer(share_outputs=True)
            start = stop
        return [results[source] for source in self._sources]


def open_function(
    converted: Converted, options: OpenVINOOptions, reserve: Callable[[], Function]
) -> OpenVINOFunction:
    """Compiles a converted model; nothing has run in it yet, so call `prepare` or `use_sizes` next.

    Raises:
        LoadError: OpenVINO cannot compile it, or would compute in another precision than asked for.
    """
    ov = library()
    hint = _HINTS[options.precision]
    properties = {
        "INFERENCE_PRECISION_HINT": hint,  # unset, a processor with bfloat16 instructions uses them
        "NUM_STREAMS": 1,  # one batch at a time: see benchmarks/limits.py for what more streams give
        "INFERENCE_NUM_THREADS": options.threads,
        "ENABLE_CPU_PINNING": False,  # workers on one machine would pin themselves to the same cores
    }
    try:
        compiled = core().compile_model(converted.graph, "CPU", properties)
        in_force = compiled.get_property("INFERENCE_PRECISION_HINT")
        request = compiled.create_infer_request()
    except RuntimeError as error:
        raise LoadError(f"OpenVINO cannot compile it: {first_line(error)}.") from error
    if in_force != getattr(ov.Type, hint):
        raise LoadError(f"Expected OpenVINO to compute in {options.precision}. Received: {in_force}.")
    return OpenVINOFunction(converted, request, reserve)


def first_line(error: Exception) -> str:
    """What OpenVINO says is wrong, without the places in its sources that it begins and ends with."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [
        line for line in lines if line and not line.startswith(("Exception from", "Check '", "FrontEnd"))
    ]
    return (telling or [type(error).__name__])[0].rstrip(".:")[:300]


def _places(ports: Sequence[Any]) -> dict[str, int]:
    return {name: place for place, port in enumerate(ports) for name in port.get_names()}


def _known(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.row_shape if size is not None)


def _is_small(array: Array, limit: float) -> bool:
    """Whether every number is one, and none is as large as the limit; comparisons with NaN are false."""
    return float(array.min()) > -limit and float(array.max()) < limit


def _is_finite(array: Array) -> bool:
    if array.dtype.kind != "f" or not array.size:
        return True
    return math.isfinite(array.min()) and math.isfinite(array.max())


def _as_memory(array: Array) -> Array:
    """The array itself, or one of the same numbers that OpenVINO takes: in C order, of memory that may be written to."""
    if not array.flags.c_contiguous or (not array.flags.writeable and array.nbytes < _SMALL_BYTES):
        return np.array(array, order="C")
    return array if array.flags.writeable else np.asarray(_Lent(array))


class _Lent:
    """Read-only memory, a request's body, lent as if it might be written to.

    The binding asks for that; the plugin behind it does not write: where an operation works in its input's place, it
    does so in a copy. Source: SyncInferRequest::change_default_ptr of OpenVINO's
    src/plugins/intel_cpu/src/infer_request.cpp, "checks that the user's memory will not be modified".
    """

    def __init__(self, array: Array) -> None:
        described = array.__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}
        self._owner = array  # the memory lives as long as the view, which keeps this object


def _refuse_foreign(indices: Array, size: int) -> None:
    if indices.min() >= 0 and indices.max() < size:
        return
    place = tuple(int(axis[0]) for axis in np.nonzero((indices < 0) | (indices >= size)))
    where = ",".join(map(str, place))
    raise InputRejected(
        f"The model rejected these values: indices[{where}] = {indices[place]} is not in [0, {size})."
    )
