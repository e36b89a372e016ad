"""How the service starts, is refused, drains, dies and comes back, as an operator sees it."""

import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import odd_models
import pytest
from odd_models import DIE, HOLD
from serving import MODELS, NPY, ROOT, Ending, free_port, serve

HELD = np.full((1, 2), HOLD, "float32")
DEADLY = np.full((1, 2), DIE, "float32")
GOOD = np.array([[1, 2]], "float32")
IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")


def refuses_connections(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


# -- start ------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_health_and_heartbeat_go_on_while_a_load_is_held_up(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    gate = odd_models.write_slow(tmp_path)
    timeout_s = 4
    with serve(tmp_path, "--timeout", str(timeout_s), default_model="iris") as service:
        with gate.shut():
            service.until_listening()
            [worker] = service.workers()
            service.until(gate.entered, "the load")
            end = time.monotonic() + 1.25 * timeout_s  # gunicorn would have ended a silent worker by then

            def unhealthy_or_over():
                return service.get("/healthz").status != 200 or time.monotonic() > end

            service.until(unhealthy_or_over, "the end of the timeout")
            assert time.monotonic() > end, service.log
            assert service.workers() == [worker]
            readiness = service.get("/readyz")
            assert (readiness.status, readiness.json["models"]) == (503, {"iris": "loading"})
            early = service.post_rows("/predict", IRIS)
            assert (early.status, early.json["code"]) == (503, "model_loading")
        service.until_ready()
        assert service.post_rows("/predict", IRIS).json["classes"] == ["setosa"]
        assert service.workers() == [worker]


def test_sigterm_during_a_load_ends_promptly(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    gate = odd_models.write_slow(tmp_path)
    with gate.shut(), serve(tmp_path, default_model="iris") as service:
        service.until(gate.entered, "the load")
        service.terminate()
        assert service.exit_code() == 0  # the gate is still shut: nobody waited for the load


def test_port_is_honoured_and_a_killed_master_takes_its_worker_along(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    port = free_port()
    with serve(tmp_path, environ={"PORT": str(port)}) as service:
        assert service.port != port
        service.port = port
        service.until_listening()
        [worker] = service.workers()
        worker_ends = Ending(worker)
        service.process.kill()
        worker_ends.wait()
        assert refuses_connections(port)


def test_preload_is_refused():
    with serve(MODELS, "--preload") as service:
        assert service.exit_code() != 0
        assert "--preload is refused" in service.log


def test_an_impossible_setting_is_refused():
    with serve(max_batch_size=0) as service:
        assert service.exit_code() != 0
        assert "Expected 'max_batch_size' in the environment to be from 1 to 65536" in service.log


def test_a_file_that_crashes_libhdf5_stops_nobody(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    shutil.copyfile(ROOT / "tests/unit/damaged/crashes_libhdf5.h5", tmp_path / "damaged.h5")
    with serve(tmp_path, default_model="iris") as service:
        service.until_ready()
        assert service.get("/readyz").json["models"] == {"damaged": "failed", "iris": "ready"}
        assert service.post_rows("/predict", IRIS).json["labels"] == [0]
        refused = service.post_rows("/predict?model=damaged", IRIS)
        assert (refused.status, refused.json["code"]) == (503, "model_load_failed")


def test_a_failed_load_is_fatal_where_the_settings_say_so(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    odd_models.write_lambda(tmp_path / "bad", allowed=False)
    with serve(tmp_path, fail_on_load_error=True) as service:
        assert service.exit_code() == 3  # what starts it again should know that it did not end well
        assert "fail_on_load_error is set and bad failed to load" in service.log


# -- end --------------------------------------------------------------------------------------------------


def test_sigterm_answers_whatever_was_accepted(tmp_path):
    gate = odd_models.write_gate(tmp_path / "gate")
    rows = [np.full((2, 2), i, "float32") for i in range(40)]
    with ThreadPoolExecutor(41) as pool, serve(tmp_path) as service:
        service.until_ready()
        with gate.shut():
            held = pool.submit(service.post_rows, "/predict?model=gate", HELD, NPY)
            service.until(gate.entered, "the held request")
            waiting = [pool.submit(service.post_rows, "/predict?model=gate", each, NPY) for each in rows]
            service.until(lambda: service.metric("layertap_queue_rows") == 80, "all rows in the queue")
            service.terminate()
            service.until(lambda: refuses_connections(service.port), "the end of listening")
        np.testing.assert_array_equal(held.result().npy, HELD * 2)
        for each, reply in zip(rows, waiting, strict=True):
            np.testing.assert_array_equal(reply.result().npy, each * 2)
        assert service.exit_code() == 0


def test_a_dead_engine_answers_what_is_pending_and_its_worker_is_replaced(tmp_path):
    gate = odd_models.write_gate(tmp_path / "gate")
    with ThreadPoolExecutor(4) as pool, serve(tmp_path) as service:
        service.until_ready()
        [worker] = service.workers()
        worker_ends = Ending(worker)
        with gate.shut():
            held = pool.submit(service.post_rows, "/predict?model=gate", HELD, NPY)
            service.until(gate.entered, "the held request")
            doomed = [
                pool.submit(service.post_rows, "/predict?model=gate", DEADLY),
                pool.submit(service.post_rows, "/predict?model=gate", GOOD),
                pool.submit(service.post_rows, "/features?model=gate&layer=watched", GOOD),
            ]
            service.until(lambda: service.metric("layertap_queue_rows") == 3, "all rows in the queue")
        np.testing.assert_array_equal(held.result().npy, HELD * 2)
        for reply in doomed:
            assert (reply.result().status, reply.result().json["code"]) == (500, "engine_stopped")
        worker_ends.wait()
        service.until_ready()
        assert service.workers() not in ([], [worker])
        np.testing.assert_array_equal(service.post_rows("/predict?model=gate", GOOD, NPY).npy, GOOD * 2)


# -- several workers --------------------------------------------------------------------------------------


def test_two_workers_serve_and_a_warning_says_what_is_of_each(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    with serve(tmp_path, workers=2, default_model="iris") as service:
        service.until_ready()
        assert "are of each" in service.until_logged("workers = 2")
        served_by = set()

        def both_have_answered():
            reply = service.post_rows("/predict", IRIS)
            if reply.status == 200:
                assert reply.json["classes"] == ["setosa"]
                served_by.add(
                    reply.headers["x-request-id"].partition("-")[0]
                )  # each process has its own prefix
            return len(served_by) == 2

        service.until(both_have_answered, "answers of both workers")
        assert len(service.workers()) == 2
