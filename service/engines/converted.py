"""Owns a converted model: an OpenVINO graph, and what must be known to serve it without TensorFlow.

Plain values beside the graph, so that it can be turned into bytes and back. `select` leaves of a graph only
what some of its tensors need; a graph that yields every layer can so be served layer by layer.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.engines.openvino_library import core, library
from service.tensors import TensorSpec

_GRAPH, _WEIGHTS, _FACTS = "graph.xml", "graph.bin", "converted.json"


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """A look-up in a table, such as an Embedding's: TensorFlow rejects indices outside of 0 .. size - 1.

    OpenVINO gives zeros for them instead, so the indices are computed as one more output and looked at.

    Args:
        indices: the graph's output that holds them; `shape` has the batch axis first.
        size: rows of the table.
        paths: the tensors that depend on the look-up.
    """

    indices: TensorSpec
    size: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Converted:
    """A model, or a part of it, as OpenVINO runs it.

    Args:
        graph: an `openvino.Model`; its inputs are named `input_0`, `input_1`, ... in the order of `inputs`, those
            that no tensor depends on may be missing.
        inputs: what the model takes, every axis but the batch's of a known size.
        paths: every tensor that it yields, in the order asked for.
        tensors: path -> the graph's output that holds it, every axis but the batch's of a known size.
        echoes: path -> the name of the input that it is.
        checks: look-ups whose indices must be in range.
    """

    graph: Any
    inputs: tuple[TensorSpec, ...]
    paths: tuple[str, ...]
    tensors: Mapping[str, TensorSpec]
    echoes: Mapping[str, str]
    checks: tuple[IndexCheck, ...]

    @property
    def weights_bytes(self) -> int:
        """Bytes of the constants in the graph: what compiling it copies."""
        constants = (node for node in self.graph.get_ops() if node.get_type_name() == "Constant")
        return sum(node.get_output_tensor(0).size for node in constants)

    def select(self, paths: tuple[str, ...]) -> Converted:
        """The part that computes these of its tensors and nothing else; weights are shared with the whole.

        Raises:
            KeyError: it has no such tensor.
        """
        tensors = {path: self.tensors[path] for path in paths if path not in self.echoes}
        checks = tuple(check for check in self.checks if set(check.paths) & set(paths))
        wanted = {spec.name for spec in (*tensors.values(), *(check.indices for check in checks))}
        results = [result for result in self.graph.get_results() if wanted & _names(result.output(0))]
        return Converted(
            library().Model(results, self.graph.get_parameters()),
            self.inputs,
            paths,
            tensors,
            {path: self.echoes[path] for path in paths if path in self.echoes},
            checks,
        )

    def pack(self) -> dict[str, bytes]:
        """It as named bytes, weights in full precision; `unpack` reads them.

        Raises:
            OSError: there is no place for temporary files, which OpenVINO writes.
        """
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del facts["graph"]
        with tempfile.TemporaryDirectory(prefix="layertap-") as folder:
            graph = Path(folder) / _GRAPH
            library().save_model(self.graph, graph, compress_to_fp16=False)
            return {
                _FACTS: json.dumps(facts, default=dataclasses.asdict).encode(),
                _GRAPH: graph.read_bytes(),
                _WEIGHTS: graph.with_suffix(".bin").read_bytes(),
            }


def unpack(parts: Mapping[str, bytes | memoryview]) -> Converted:
    """What `pack` wrote. Whoever calls it vouches for the bytes: nothing here notices a change in them.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: they are something else.
    """
    facts = json.loads(bytes(parts[_FACTS]))
    return Converted(
        core().read_model(bytes(parts[_GRAPH]), bytes(parts[_WEIGHTS])),
        tuple(_spec(item) for item in facts["inputs"]),
        tuple(facts["paths"]),
        {path: _spec(item) for path, item in facts["tensors"].items()},
        facts["echoes"],
        tuple(
            IndexCheck(_spec(item["indices"]), item["size"], tuple(item["paths"])) for item in facts["checks"]
        ),
    )


def _spec(item: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(item["name"], tuple(item["shape"]), item["dtype"])


def _names(port: Any) -> set[str]:
    names: set[str] = port.get_names()
    return names
