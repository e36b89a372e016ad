"""A log that nobody reads: requests and health are answered, and the lines that were lost are told of."""

import odd_models
from serving import PATIENCE_S, serve

ROW = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
PIPE_BYTES = 64 * 1024
LINES = 2 * PIPE_BYTES // 100  # none is shorter


def test_a_full_log_pipe_holds_up_nobody(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    with serve(tmp_path, default_model="iris", access_log="all", max_log_bytes=10_000) as service:
        service.until_ready()
        with service.unheard():
            with service.connect() as connection:
                for _ in range(LINES):
                    assert connection.post("/predict", ROW).status == 200
            assert service.get("/healthz").status == 200
            assert service.metric("layertap_dropped_log_lines_total") > 0

        def told():
            return service.post("/predict", ROW).status == 200 and "log lines were dropped" in service.log

        service.until(told, "word of what was dropped")


def test_the_service_ends_though_nobody_reads_its_log(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    with serve(tmp_path, default_model="iris", access_log="all", max_log_bytes=10_000) as service:
        service.until_ready()
        with service.unheard():
            with service.connect() as connection:
                for _ in range(LINES):
                    connection.post("/predict", ROW)
            service.terminate()
            assert service.process.wait(PATIENCE_S) == 0
        service.exit_code()
