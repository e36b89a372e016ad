"""The ledger: what is counted, when, and that nothing is lost or taken back."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from drivers import open_site
from scheduling import BAD, REJECTED, Desk

from service.scheduling.batch import BatchReport
from service.statistics import BatchTally, Ledger, ModelStatistics, Tally
from service.tensors import Timings


def report(*passes, failed=False):
    return BatchReport("m/1:y", ("m", 1), 1, sum(rows for rows, _ in passes), 1.0, failed, passes)


def test_nothing_was_done_yet():
    assert Ledger().read("m", 1) == ModelStatistics("m", 1)


def test_batches_count_rows_passes_and_sizes():
    ledger = Ledger(clock=lambda: 12.3456)
    ledger.ran("m", 1, report((4, 0.5)))
    ledger.ran("m", 1, report((2, 0.25), (4, 1.0), failed=True))
    ledger.ran("m", 2, report((9, 9.0)))
    read = ledger.read("m", 1)
    assert (read.inference_count, read.execution_count, read.last_inference_ms) == (10, 3, 12345)
    assert read.batches == (
        BatchTally(2, Tally(1, 250_000_000)),
        BatchTally(4, Tally(2, 1_500_000_000)),
    )
    assert ledger.read("m", 2).inference_count == 9


def test_a_batch_that_only_failed_is_no_inference():
    ledger = Ledger(clock=lambda: 12.0)
    ledger.ran("m", 1, report(failed=True))
    assert ledger.read("m", 1) == ModelStatistics("m", 1)


def test_requests_count_by_stage():
    ledger = Ledger()
    ledger.answered("m", 1, Timings(decode_s=0.001, queue_s=0.002, compute_s=0.003, encode_s=0.004))
    ledger.answered("m", 1, Timings(decode_s=0.001))
    ledger.failed("m", 1, 2.0)
    read = ledger.read("m", 1)
    assert read.success == Tally(2, 11_000_000)
    assert read.fail == Tally(1, 2_000_000_000)
    assert read.compute_input == Tally(2, 2_000_000)
    assert read.queue == Tally(2, 2_000_000)
    assert read.compute_infer == Tally(2, 3_000_000)
    assert read.compute_output == Tally(2, 4_000_000)


def test_many_threads_lose_nothing_and_no_number_ever_falls():
    ledger, threads, each = Ledger(), 8, 1000
    begin = threading.Barrier(threads)

    def work(_):
        begin.wait()
        seen = 0
        for _ in range(each):
            ledger.answered("m", 1, Timings(decode_s=0.001))
            ledger.failed("m", 1, 0.001)
            ledger.ran("m", 1, report((2, 0.001)))
            count = ledger.read("m", 1).success.count
            assert count > seen
            seen = count

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    read = ledger.read("m", 1)
    total = threads * each
    assert (read.success.count, read.fail.count, read.execution_count) == (total, total, total)
    assert read.inference_count == 2 * total


def test_passes_of_a_batch_that_was_halved_are_those_that_did_not_raise():
    desk = Desk(max_batch_size=8, seconds=0.5)
    for value in (1, 2, BAD, REJECTED):
        desk.submit(value)
    desk.submit(5, 6, 7)
    desk.run_all()
    (told,) = desk.reports
    assert (told.rows, told.failed) == (7, True)
    assert [list(one) for one in told.passes] == [[2, 0.5], [3, 0.5]]


def test_rows_of_a_job_that_was_cancelled_in_its_batch_are_counted_since_they_ran():
    desk = Desk()
    gone = desk.submit(1, 2)
    desk.submit(3)
    desk.model.before = lambda: desk.scheduler.cancel(gone)
    desk.run_all()
    assert [list(one) for one in desk.reports[0].passes] == [[3, 0.0]]


@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_request_over_http_is_counted_from_both_sides(name):
    body = b'{"instances": [[1, 2, 3], [4, 5, 6]]}'
    with open_site("words") as site:
        driver = getattr(site, name)
        for ids in (body, body, body.replace(b"6", b"60")):
            driver.send("POST", "/predict", "model=words", {"Content-Type": "application/json"}, ids)
        driver.send("POST", "/predict", "model=words", {"Content-Type": "application/json"}, b"{")
        read = site.runtime.statistics("words", 1)
    assert (read.success.count, read.fail.count) == (2, 1)  # what could not be read meant no version
    assert (read.inference_count, read.execution_count) == (4, 2)
    assert [batch.rows for batch in read.batches] == [2]
    assert read.last_inference_ms > 1_600_000_000_000
    stages = (read.compute_input, read.queue, read.compute_infer, read.compute_output)
    assert {stage.count for stage in stages} == {2}
    assert abs(read.success.total_ns - sum(stage.total_ns for stage in stages)) <= 4
