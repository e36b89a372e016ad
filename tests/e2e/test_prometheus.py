"""The metrics in the eyes of Prometheus itself: its checker, and a real server that scrapes the service."""

import contextlib
import http.client
import json
import shutil
import subprocess
from urllib.parse import quote

import numpy as np
import pytest
from serving import free_port

IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")

_CONFIG = """
global:
  scrape_interval: 200ms
scrape_configs:
  - job_name: layertap
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_promtool_has_nothing_to_say_against_the_metrics(shipped):
    shipped.post_rows("/features?model=iris&layer=species&include=predictions", IRIS)
    text = shipped.get("/metrics").body
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus")
def test_prometheus_scrapes_the_service(shipped, tmp_path):
    for _ in range(5):
        assert shipped.post_rows("/predict?model=iris", IRIS).status == 200
    count = shipped.metric("layertap_requests_total", route="predict", model="iris", code="200")
    assert count >= 5
    (tmp_path / "prometheus.yml").write_text(_CONFIG.format(port=shipped.port))
    port = free_port()
    with prometheus(tmp_path, port):
        query = 'layertap_requests_total{route="predict",model="iris",code="200"}'

        def scraped():
            return value_of(port, query) == count

        shipped.until(scraped, f"{count:g} requests in Prometheus")
        assert value_of(port, "up") == 1
        assert value_of(port, 'layertap_model_state{model="digits",state="ready"}') == 1
        assert value_of(port, 'histogram_quantile(1, layertap_compute_seconds_bucket{model="iris"})') > 0


@contextlib.contextmanager
def prometheus(folder, port):
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def value_of(port, query):
    """The value of the one series that a query gives; `None` while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/api/v1/query?query={quote(query)}")
        reply = json.loads(connection.getresponse().read())
    except (ConnectionRefusedError, json.JSONDecodeError):  # it starts
        return None
    finally:
        connection.close()
    series = reply["data"]["result"]
    assert len(series) <= 1, series
    return float(series[0]["value"][1]) if series else None
