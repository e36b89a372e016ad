"""Owns how the statistics of models are told: Triton's `model_stats`.

Source: triton-inference-server/server/docs/protocol/extension_statistics.md. There is no cache of replies here, and
what a model holds of the memory is not known, so those counts are 0 and that list is empty.
"""

from __future__ import annotations

from typing import Any

from service.api.http import Reply
from service.payloads.codecs import encode_json
from service.serving.runtime import Runtime
from service.statistics import BatchTally, ModelStatistics, Tally

_NONE = Tally()


def all_statistics(runtime: Runtime) -> Reply:
    """Every version that is served, by model."""
    return _reply(
        [
            runtime.statistics(status.name, version)
            for status in runtime.models()
            for version in sorted(status.versions)
        ]
    )


def model_statistics(runtime: Runtime, name: str, version: int | None) -> Reply:
    """One version of a model, or every one that is served.

    Raises:
        ModelNotFound, VersionNotFound: there is none.
        NotReady: it cannot answer now.
    """
    served = runtime.resolve(name, version)
    versions = [served.version] if version is not None else sorted(runtime.status(name).versions)
    return _reply([runtime.statistics(served.name, number) for number in versions])


def _reply(found: list[ModelStatistics]) -> Reply:
    return Reply(200, encode_json({"model_stats": [_model(statistics) for statistics in found]}))


def _model(statistics: ModelStatistics) -> dict[str, Any]:
    return {
        "name": statistics.model,
        "version": str(statistics.version),
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": _tally(statistics.success),
            "fail": _tally(statistics.fail),
            "queue": _tally(statistics.queue),
            "compute_input": _tally(statistics.compute_input),
            "compute_infer": _tally(statistics.compute_infer),
            "compute_output": _tally(statistics.compute_output),
            "cache_hit": _tally(_NONE),
            "cache_miss": _tally(_NONE),
        },
        "response_stats": {},
        "batch_stats": [_batch(batch) for batch in statistics.batches],
        "memory_usage": [],
    }


def _batch(batch: BatchTally) -> dict[str, Any]:
    """Rows are decoded and encoded by request, not by batch, so a batch has no time for either."""
    idle = Tally(batch.compute_infer.count)
    return {
        "batch_size": batch.rows,
        "compute_input": _tally(idle),
        "compute_infer": _tally(batch.compute_infer),
        "compute_output": _tally(idle),
    }


def _tally(tally: Tally) -> dict[str, int]:
    return {"count": tally.count, "ns": tally.total_ns}
