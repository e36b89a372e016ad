"""Signals to the master while clients never rest: no request is lost, none is answered with a 5xx."""

import signal
import time

import odd_models
import pytest
from crowd import BODY, Crowd, is_open
from serving import Ending, serve
from wire import Wire

CLIENTS = 64
BUSY = 300  # answers, until the signal


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def models(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    return tmp_path


def is_busy(crowd):
    return crowd.answered() >= BUSY


def nothing_lost(crowd):
    crowd.stop()
    assert {what: n for what, n in crowd.seen.items() if what not in {200, "last", "refused"}} == {}


@pytest.mark.parametrize(
    ("sent", "pause_s"),
    [(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.2), (signal.SIGINT, 0.0), (signal.SIGQUIT, 0.0)],
)
def test_a_stop_loses_no_request_and_ends_every_connection_with_a_reply(models, cache, sent, pause_s):
    with serve(models, default_model="iris", cache_dir=cache) as service:
        service.until_ready()
        with Crowd(service.port, CLIENTS, pause_s=pause_s) as crowd:
            service.until(lambda: is_busy(crowd), "the crowd")
            service.process.send_signal(sent)
            assert service.exit_code() == 0, service.log
            nothing_lost(crowd)
        assert crowd.seen["last"] >= CLIENTS


@pytest.mark.slow
def test_a_stop_loses_no_request_six_times_out_of_six(models, cache):
    for pause_s in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5):
        test_a_stop_loses_no_request_and_ends_every_connection_with_a_reply(
            models, cache, signal.SIGTERM, pause_s
        )


def test_before_the_doors_close_readiness_says_no_and_everything_else_is_answered(models, cache):
    with serve(models, default_model="iris", cache_dir=cache, drain_delay_s=3) as service:
        service.until_ready()
        begun = time.monotonic()
        with Crowd(service.port, 8) as crowd:
            service.until(lambda: is_busy(crowd), "the crowd")
            service.terminate()
            service.until(lambda: service.get("/readyz").status == 503, "503 of readiness")
            before = crowd.answered()
            assert service.get("/v2/health/ready").status != 200
            assert service.get("/healthz").status == 200
            assert service.get("/models").status == 200
            service.until(lambda: crowd.answered() >= before + BUSY, "further answers")
            assert "refused" not in crowd.seen
            assert service.exit_code() == 0
            nothing_lost(crowd)
        assert time.monotonic() - begun < 28


def test_what_cannot_be_answered_in_time_is_refused_in_time(tmp_path):
    gate = odd_models.write_gate(tmp_path / "gate")
    held, waits = (request(value) for value in (odd_models.HOLD, 1.0))
    with serve(tmp_path, stop_timeout_s=4) as service:
        service.until_ready()
        with (
            gate.shut(),
            Wire.to(("127.0.0.1", service.port)) as one,
            Wire.to(("127.0.0.1", service.port)) as other,
        ):
            one.send(held)
            service.until(gate.entered, "the held request")
            other.send(waits)
            service.until(lambda: service.metric("layertap_queue_rows") == 1, "a row in the queue")
            service.terminate()
            answer = other.answer()
            assert (answer.status, answer.json()["code"]) == (503, "not_ready")
            assert service.exit_code() == 0


def request(value):
    body = b'{"instances": [[%f, %f]]}' % (value, value)
    head = b"POST /predict?model=gate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_second_interrupt_ends_at_once(tmp_path):
    gate = odd_models.write_gate(tmp_path / "gate")
    with serve(tmp_path) as service:
        service.until_ready()
        with gate.shut(), Wire.to(("127.0.0.1", service.port)) as connection:
            connection.send(request(odd_models.HOLD))
            service.until(gate.entered, "the held request")
            service.process.send_signal(signal.SIGINT)
            service.until(lambda: not is_open(service.port), "the end of listening")
            begun = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            assert service.exit_code() == 0
            assert time.monotonic() - begun < 20  # the first one alone would have waited for 26 s


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_replaces_workers_and_loses_no_request(models, cache, workers):
    with serve(models, default_model="iris", cache_dir=cache, workers=workers) as service:
        service.until_ready()
        service.until(lambda: all_ready(service, workers), "all workers")
        old = set(service.workers())
        ends = [Ending(pid) for pid in old]
        with Crowd(service.port, CLIENTS) as crowd:
            service.until(lambda: is_busy(crowd), "the crowd")
            service.process.send_signal(signal.SIGHUP)
            for end in ends:
                end.wait()
            before = crowd.answered()
            service.until(lambda: crowd.answered() >= before + BUSY, "answers of the new ones")
            nothing_lost(crowd)
        assert "refused" not in crowd.seen
        assert len(service.workers()) == workers
        assert not old & set(service.workers())


def all_ready(service, workers):
    return service.log.count("ready: 1 models") == workers


def test_a_reload_takes_new_settings_and_new_files_and_leaves_what_is_served_where_they_are_no_good(
    models, cache, tmp_path_factory
):
    config = tmp_path_factory.mktemp("config") / "layertap.toml"
    config.write_text('default_model = "iris"\n')
    with serve(models, cache_dir=cache, environ={"LAYERTAP_CONFIG": str(config)}) as service:
        service.until_ready()
        [first] = service.workers()
        config.write_text("max_batch_size = 0\n")
        service.process.send_signal(signal.SIGHUP)
        assert "max_batch_size" in service.until_logged("SIGHUP changes nothing")
        config.write_text('default_model = "iris"\nmax_body_bytes = 10\n')
        (models / "iris" / "1" / "model.h5").rename(models / "iris" / "kept")
        (models / "iris" / "1" / "model.h5").write_bytes(b"no HDF5")
        service.process.send_signal(signal.SIGHUP)
        service.until_logged("the reload is given up")
        service.until(lambda: service.workers() == [first], "the old worker alone")
        assert service.get("/readyz").status == 200
        (models / "iris" / "kept").rename(models / "iris" / "1" / "model.h5")
        end = Ending(first)
        service.process.send_signal(signal.SIGHUP)
        end.wait()
        assert service.post("/predict", b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}').status == 413


def test_a_reload_that_the_settings_make_fatal_leaves_what_is_served(models, cache, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "layertap.toml"
    config.write_text("fail_on_load_error = true\n")
    with serve(models, cache_dir=cache, environ={"LAYERTAP_CONFIG": str(config)}) as service:
        service.until_ready()
        first = service.workers()
        (models / "bad.h5").write_bytes(b"no HDF5")
        service.process.send_signal(signal.SIGHUP)
        service.until_logged("the reload is given up")
        service.until(lambda: service.workers() == first, "the old worker alone")
        assert service.post("/predict?model=iris", BODY).status == 200


def test_a_second_master_is_refused_and_the_log_says_what_to_do_instead(models, cache):
    with serve(models, default_model="iris", cache_dir=cache) as service:
        service.until_ready()
        workers = service.workers()
        with Crowd(service.port, 8) as crowd:
            service.process.send_signal(signal.SIGUSR2)
            assert "SIGHUP" in service.until_logged("SIGUSR2 is refused")
            service.until(lambda: is_busy(crowd), "answers")
            nothing_lost(crowd)
        assert service.workers() == workers


def test_while_a_killed_worker_is_replaced_new_clients_wait_instead_of_being_refused(models, cache):
    with serve(models, default_model="iris", cache_dir=cache) as service:
        service.until_ready()
        [worker] = service.workers()
        with Crowd(service.port, 8) as crowd:
            service.until(lambda: is_busy(crowd), "the crowd")
            Killed(worker).wait()
            before = crowd.answered()
            service.until(lambda: crowd.answered() >= before + BUSY, "answers of the new one")
            crowd.stop()
        assert crowd.seen[503] == 0
        assert crowd.seen["lost"] <= 8  # what the killed one had


def test_two_workers_ones_death_takes_only_its_own_requests_along(models, cache):
    with serve(models, default_model="iris", cache_dir=cache, workers=2) as service:
        service.until(lambda: all_ready(service, 2), "both workers")
        victim = service.workers()[0]
        with Crowd(service.port, 16) as crowd:
            service.until(lambda: is_busy(crowd), "the crowd")
            Killed(victim).wait()
            service.until(lambda: service.log.count("ready: 1 models") == 3, "another worker")
            crowd.stop()
        assert {code for code in crowd.seen if isinstance(code, int)} == {200}
        assert crowd.seen["lost"] <= 16
        assert "SIGKILL" in service.until_logged("ended unasked")


class Killed(Ending):
    """The end of a worker by SIGKILL."""

    def __init__(self, pid):
        super().__init__(pid)
        signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
