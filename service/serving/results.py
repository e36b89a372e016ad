"""Owns what a finished job means: its result, or the error that its request is answered with."""

from __future__ import annotations

from service.errors import DeadlineExceeded, NotReady
from service.scheduling.jobs import Job
from service.tensors import InferResult


def deadline_error() -> DeadlineExceeded:
    """The error of a request whose time ran out."""
    return DeadlineExceeded("The request's time ran out before its reply was there; see timeout_ms.")


def result_of(job: Job) -> InferResult:
    """A finished job's result.

    Raises:
        LayertapError: what the job ended with.
    """
    if job.error is not None:
        raise job.error
    if job.outputs is None:
        raise NotReady("The request was abandoned.")
    return InferResult(job.outputs, job.queue_s, job.compute_s)
