"""Owns one batch: jobs' rows put together, run as one, and handed back to each job.

It knows no queue, no thread and no clock; `service.scheduling.queueing` says which jobs meet here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from service.errors import InferenceFailed, LayertapError
from service.scheduling.batch import Batch, BatchReport
from service.scheduling.jobs import Deferred, Job, Lane, Run
from service.tensors import Array

_log = logging.getLogger("layertap.scheduler")


def run_batch(
    batch: Batch,
    clock: Callable[[], float],
    claim: Callable[[Sequence[Job]], Sequence[Job]],
    defer: Callable[[Job, Deferred], None],
) -> BatchReport:
    """Runs a batch and finishes the jobs whose last part was in it, each with its own rows or its own error.

    A job that is alone with its error gets it as it is where it is ours, else InferenceFailed from it. A split
    job ends with the first of its parts that fails.

    Args:
        batch: what `JobQueue.form` took, at least one job.
        clock: seconds.
        claim: returns those of the given jobs that nobody has ended; they are finished here.
        defer: gets the jobs that another function is to compute.
    """
    rows = sum(job.stop - job.start for job in batch.jobs)
    first = begun = clock()
    failed = False
    passes = []
    defects: list[tuple[Exception, Job]] = []
    for jobs, error, blamed in _attempts(batch):
        ended = clock()
        for job in jobs:
            job.compute_s += ended - begun
        if error is None:
            together = len(jobs) == len(batch.jobs)
            passes.append((rows if together else sum(job.stop - job.start for job in jobs), ended - begun))
            for job in claim([job for job in jobs if job.stop == job.rows]):
                job.succeed(ended)
        else:
            failed = failed or not isinstance(error, Deferred)
            if blamed:
                defects += _end_alone(jobs[0], error, ended, claim, defer)
        begun = ended
    lane = batch.lane
    if defects:
        _tell(lane, defects)
    return BatchReport(lane.name, lane.label, len(batch.jobs), rows, begun - first, failed, passes)


def _attempts(batch: Batch) -> Iterator[tuple[Sequence[Job], Exception | None, bool]]:
    """Runs the parts of a batch's jobs as one; halves what raises and runs it again, down to single jobs.

    Yields:
        After each forward pass: the jobs that were in it, `None` or what it raised, and whether that is the one
        job's own fault. A group of several that raised comes again, in halves, or lane by lane where it had jobs
        of several; jobs that were finished meanwhile are left out.
    """
    groups: list[tuple[Run, Sequence[Job]]] = [(batch.run, batch.jobs)]
    shares = batch.shares
    while groups:
        run, jobs = groups.pop()
        group = [job for job in jobs if not job.finished]
        if not group:
            continue
        failure: Exception | None = None
        retried: Sequence[tuple[Run, Sequence[Job]]] = ()
        try:
            _run_together(run, group)
        except Exception as error:  # noqa: BLE001 whatever the model raises is its culprit's answer
            failure = error
            middle = len(group) // 2
            retried = shares or ([(run, group[:middle]), (run, group[middle:])] if middle else ())
            groups += reversed(retried)
        shares = ()
        yield group, failure, failure is not None and not retried


def _end_alone(
    job: Job,
    error: Exception,
    ended: float,
    claim: Callable[[Sequence[Job]], Sequence[Job]],
    defer: Callable[[Job, Deferred], None],
) -> list[tuple[Exception, Job]]:
    """Sees to the one job that raised by itself; returns it with its error where that has to be logged."""
    if isinstance(error, Deferred):
        defer(job, error)
        return []
    answer = _as_failure(error)
    for unfinished in claim([job]):
        unfinished.fail(answer, ended)
    return [] if answer is error else [(error, job)]


def _as_failure(error: Exception) -> LayertapError:
    if isinstance(error, LayertapError):
        return error
    failure = InferenceFailed(
        f"Expected the model to take this input. Received: {type(error).__name__}; the service's log says more."
    )
    failure.__cause__ = error
    return failure


def _tell(lane: Lane, defects: Sequence[tuple[Exception, Job]]) -> None:
    """Logs what a model raised, each error once with its trace and the requests that it was the answer to."""
    met: dict[tuple[type[Exception], str], tuple[Exception, list[str]]] = {}
    for error, job in defects:
        met.setdefault((type(error), str(error)), (error, []))[1].append(job.request_id)
    for error, ids in met.values():
        told = {"model": lane.label[0], "version": lane.label[1], "request_ids": ids}
        _log.error("%s: jobs failed alone", lane.name, exc_info=error, extra={"fields": told})


def _gather(jobs: Sequence[Job]) -> Mapping[str, Array]:
    first = jobs[0]
    if len(jobs) > 1:
        return {name: np.concatenate([_part(job, name) for job in jobs]) for name in first.inputs}
    if first.stop - first.start == first.rows:
        return first.inputs
    return {name: array[first.start : first.stop] for name, array in first.inputs.items()}


def _part(job: Job, name: str) -> Array:
    array = job.inputs[name]
    return array if job.stop - job.start == job.rows else array[job.start : job.stop]


def _assemble(job: Job, part: Mapping[str, Array]) -> None:
    if job.answer is None:
        job.answer = {
            name: np.empty((job.rows, *array.shape[1:]), array.dtype) for name, array in part.items()
        }
    for name, array in part.items():
        whole = job.answer[name]
        # Assignment would broadcast, cast or truncate what differs, and nobody would know.
        if (array.shape[1:], array.dtype) != (whole.shape[1:], whole.dtype):
            raise InferenceFailed(
                f"Expected rows of '{name}' of shape {whole.shape[1:]} {whole.dtype}, as in the batch before. "
                f"Received: {array.shape[1:]} {array.dtype}."
            )
        whole[job.start : job.stop] = array


def _run_together(run: Run, jobs: Sequence[Job]) -> None:
    """Runs the parts of `jobs` as one batch and leaves in each job's `answer` what is its own.

    A job that is its whole batch goes in and comes out uncopied, a job of one part comes out as views, and a
    split one is put together in arrays made for all of its rows.

    Raises:
        InferenceFailed: the function returned another number of rows than it got.
        Exception: whatever the function raised; no job's answer may be used then.
    """
    rows = sum(job.stop - job.start for job in jobs)
    outputs = run(_gather(jobs))
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise InferenceFailed(
                f"Expected the model to return {rows} rows of '{name}'. Received: shape {array.shape}."
            )
    offset = 0
    for job in jobs:
        end = offset + job.stop - job.start
        wanted = job.wanted or outputs
        if end - offset < job.rows:
            _assemble(job, {name: outputs[name][offset:end] for name in wanted})
        elif job.rows < rows:
            job.answer = {name: outputs[name][offset:end] for name in wanted}
        else:
            job.answer = outputs
        offset = end
