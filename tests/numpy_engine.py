"""Owns small real models in numpy, and a runtime that serves them, for tests that need no TensorFlow.

A row's bits depend on the row alone, not on its batch and not on the machine: sums are made in float64 and
rounded once. So replies can be compared byte for byte.

iris    x (None, 4) -> hidden (None, 5) -> probs (None, 3), softmax; `hidden` is the bottleneck
pairs   left (None, 3) and right (None, 2) -> joined (None, 5)
          -> total (None, 7), softmax, and positive (None, 1), sigmoid; no bottleneck
shapes  image (None, 8, 8, 1) -> conv (None, 4, 4, 2) -> pool (None, 2) -> probs (None, 3), softmax
words   ids (None, 3) int64 -> vectors (None, 3, 2) -> score (None, 1), linear; ids from 0 to 9, others are
          rejected by the model
broken  fails to load

Besides these, by name only:

signed    x (None, 2) int64 -> y (None, 2), the same numbers
unsigned  the same of uint64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.engines import Function
from service.errors import InputRejected, LoadError
from service.model_config import ModelConfig, PreprocessConfig
from service.repository import ModelEntry, ModelVersion
from service.scheduling.scheduler import Scheduler
from service.serving.runtime import Runtime, RuntimeOptions
from service.serving.served import OpenedModel
from service.tensors import Array, LayerSpec, ModelSpec, OutputSpec, TensorSpec

ALL = ("iris", "pairs", "shapes", "words", "line", "broken")

Step = Callable[..., Array]


def ignore() -> None:
    """Does nothing before a batch."""


def ignore_one(_: str) -> None:
    """Is told something, and does nothing."""


def accept(_: tuple[str, ...]) -> None:
    """Does nothing before a compilation."""


@dataclass(frozen=True)
class Graph:
    """A model as functions.

    Args:
        inputs: what it takes.
        steps: path -> (its function, the paths that the function takes), in order of computation.
        outputs: name, path and activation of each output.
        bottleneck: as in ModelSpec.
    """

    inputs: tuple[TensorSpec, ...]
    steps: Mapping[str, tuple[Step, tuple[str, ...]]]
    outputs: tuple[tuple[str, str, str | None], ...]
    bottleneck: str | None

    def evaluate(self, batch: Mapping[str, Array], wanted: tuple[str, ...]) -> dict[str, Array]:
        """The wanted tensors; only what leads to them is computed."""
        values = dict(batch)

        def value(path: str) -> Array:
            if path not in values:
                function, sources = self.steps[path]
                values[path] = function(*(value(source) for source in sources))
            return values[path]

        with np.errstate(all="ignore"):  # as TensorFlow, which lets numbers overflow
            return {path: value(path) for path in wanted}

    def spec(self) -> ModelSpec:
        """Shapes and dtypes, found by running one row of zeros."""
        zeros = {i.name: np.zeros((1, *(size or 1 for size in i.row_shape)), i.dtype) for i in self.inputs}
        values = self.evaluate(zeros, (*zeros, *self.steps))
        layers = tuple(
            LayerSpec(
                path=path,
                class_name="InputLayer" if path in zeros else "Step",
                shape=(None, *array.shape[1:]),
                dtype=str(array.dtype),
                parameters=0,
                compute_share=place / (len(values) - 1),
            )
            for place, (path, array) in enumerate(values.items())
        )
        outputs = tuple(
            OutputSpec(name, (None, *values[path].shape[1:]), str(values[path].dtype), path, activation)
            for name, path, activation in self.outputs
        )
        return ModelSpec(self.inputs, outputs, layers, bottleneck=self.bottleneck)


class NumpyEngine:
    """A `service.engines.Engine` over a graph.

    Args:
        graph: the model.
        before_run: called on the engine thread before every batch; a test can hold it up there.
        before_compile: called with the outputs before a function is made; a test can hold it up there, too.
    """

    name = "numpy"
    activations = None

    def __init__(
        self,
        graph: Graph,
        before_run: Callable[[], object] = ignore,
        before_compile: Callable[[tuple[str, ...]], object] = accept,
    ) -> None:
        self.spec = graph.spec()
        self._graph = graph
        self._before_run = before_run
        self._before_compile = before_compile

    def compile(self, outputs: tuple[str, ...]) -> Function:
        self._before_compile(outputs)
        return _Function(self._graph, outputs, self._before_run)


@dataclass(frozen=True)
class _Function:
    graph: Graph
    outputs: tuple[str, ...]
    before_run: Callable[[], object]

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        self.before_run()
        return self.graph.evaluate(batch, self.outputs)


def build_runtime(
    *names: str,
    default_model: str | None = None,
    max_batch_size: int = 32,
    max_queue_rows: int = 1024,
    request_timeout_s: float = 30.0,
    load_timeout_s: float = 600.0,
    max_waiting_compilations: int = 16,
    refused: Callable[[str], object] = ignore_one,
    before_run: Callable[[], object] = ignore,
    before_compile: Callable[[tuple[str, ...]], object] = accept,
    scan: Callable[[], Sequence[ModelEntry]] | None = None,
    load: bool = True,
) -> Runtime:
    """A runtime over models of this module, its engine thread started; `stop` it when done.

    Args:
        names: which models; none means all of them.
        default_model: as the setting.
        max_batch_size: as the setting.
        max_queue_rows: as the setting.
        request_timeout_s: the setting request_timeout_ms, in seconds.
        load_timeout_s: as the setting.
        max_waiting_compilations: as the setting.
        refused: told the model when a compilation of it is refused.
        before_run: called on the engine thread before every batch.
        before_compile: called with the outputs before a function is made.
        scan: what lies in the models folder, instead of one version of each of `names`.
        load: `False` leaves every model in the state "loading".
    """
    scheduler = Scheduler(max_queue_rows=max_queue_rows)
    runtime = Runtime(
        scan or (lambda: [_entry(name) for name in names or ALL]),
        lambda entry, version: _open(entry, version, before_run, before_compile),
        scheduler,
        RuntimeOptions(
            default_model, max_batch_size, 8, request_timeout_s, load_timeout_s, max_waiting_compilations
        ),
        refused=refused,
    )
    scheduler.start()
    if load:
        runtime.load()
    return runtime


def graph_of(name: str) -> Graph:
    """The model of that name, for tests that compute what a reply must hold."""
    return {
        "iris": _iris,
        "pairs": _pairs,
        "shapes": _shapes,
        "words": _words,
        "line": _line,
        "signed": lambda: _same("int64"),
        "unsigned": lambda: _same("uint64"),
    }[name]()


def _entry(name: str) -> ModelEntry:
    configs = {
        "shapes": ModelConfig(preprocess=PreprocessConfig(color_mode="grayscale", rescale=1 / 255)),
    }
    classes = {"iris": ("setosa", "versicolor", "virginica"), "shapes": ("dot", "line", "box")}
    folder = Path("models") / name
    return ModelEntry(
        name,
        folder,
        versions=(ModelVersion(1, folder / "1" / "model.h5"),),
        config=configs.get(name, ModelConfig()),
        classes=classes.get(name, ()),
    )


def _open(
    entry: ModelEntry,
    version: ModelVersion,
    before_run: Callable[[], object],
    before_compile: Callable[[tuple[str, ...]], object],
) -> OpenedModel:
    if entry.name == "broken":
        raise LoadError("Expected an HDF5 file. Received: something else.", mend="Save the model again.")
    facts = {"file": version.path.name, "file_bytes": 1024, "repairs": []}
    return OpenedModel(NumpyEngine(graph_of(entry.name), before_run, before_compile), facts)


def _weights(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _times(values: Array, weights: Array) -> Array:
    """(..., K) times (K, C): BLAS would add in an order that depends on the batch and the processor."""
    products = values.astype(np.float64)[..., np.newaxis] * weights
    return products.sum(axis=-2).astype(np.float32)


def _softmax(values: Array) -> Array:
    powers = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def _sigmoid(values: Array) -> Array:
    return (0.5 * (1 + np.tanh(0.5 * values.astype(np.float64)))).astype(np.float32)


def _iris() -> Graph:
    first, second = _weights(1, 4, 5), _weights(2, 5, 3)
    return Graph(
        inputs=(TensorSpec("x", (None, 4), "float32"),),
        steps={
            "hidden": (lambda x: np.maximum(_times(x, first), 0), ("x",)),
            "probs": (lambda hidden: _softmax(_times(hidden, second)), ("hidden",)),
        },
        outputs=(("probs", "probs", "softmax"),),
        bottleneck="hidden",
    )


def _pairs() -> Graph:
    total, positive = _weights(3, 5, 7), _weights(4, 5, 1)
    return Graph(
        inputs=(TensorSpec("left", (None, 3), "float32"), TensorSpec("right", (None, 2), "float32")),
        steps={
            "joined": (lambda left, right: np.concatenate([left, right], axis=1), ("left", "right")),
            "total": (lambda joined: _softmax(_times(joined, total)), ("joined",)),
            "positive": (lambda joined: _sigmoid(_times(joined, positive)), ("joined",)),
        },
        outputs=(("total", "total", "softmax"), ("positive", "positive", "sigmoid")),
        bottleneck="joined",
    )


def _shapes() -> Graph:
    kernel, head = _weights(5, 4, 2), _weights(6, 2, 3)

    def conv(image: Array) -> Array:
        """Kernels of 2x2 pixels side by side: (N, 8, 8, 1) -> (N, 4, 4, 2)."""
        tiles = image.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4, 4)
        return np.maximum(_times(tiles, kernel), 0)

    return Graph(
        inputs=(TensorSpec("image", (None, 8, 8, 1), "float32"),),
        steps={
            "conv": (conv, ("image",)),
            "pool": (lambda values: values.mean(axis=(1, 2), dtype=np.float64).astype(np.float32), ("conv",)),
            "probs": (lambda pool: _softmax(_times(pool, head)), ("pool",)),
        },
        outputs=(("probs", "probs", "softmax"),),
        bottleneck="pool",
    )


def _words() -> Graph:
    table, head = _weights(7, 10, 2), _weights(8, 6, 1)

    def look_up(ids: Array) -> Array:
        if ids.min() < 0 or ids.max() >= len(table):
            raise InputRejected(
                f"Expected ids from 0 to {len(table) - 1}. Received: {ids.min()} to {ids.max()}."
            )
        return table[ids]

    return Graph(
        inputs=(TensorSpec("ids", (None, 3), "int64"),),
        steps={
            "vectors": (look_up, ("ids",)),
            "score": (lambda vectors: _times(vectors.reshape(len(vectors), -1), head), ("vectors",)),
        },
        outputs=(("score", "score", "linear"),),
        bottleneck="vectors",
    )


def _same(dtype: str) -> Graph:
    return Graph(
        inputs=(TensorSpec("x", (None, 2), dtype),),
        steps={"y": (np.copy, ("x",))},
        outputs=(("y", "y", None),),
        bottleneck=None,
    )


def _line() -> Graph:
    slope = _weights(9, 2, 1)
    return Graph(
        inputs=(TensorSpec("x", (None, 2), "float32"),),
        steps={"y": (lambda x: _times(x, slope), ("x",))},
        outputs=(("y", "y", "linear"),),
        bottleneck=None,
    )
