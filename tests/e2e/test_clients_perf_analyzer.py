"""NVIDIA's perf_analyzer against the running service: metadata, configuration, statistics and load as it wants them."""

import perf_analyzer
import pytest

JSON = ("--input-tensor-format", "json", "--output-tensor-format", "json")
BINARY = ("--input-tensor-format", "binary", "--output-tensor-format", "binary")
LOADS = {
    "1 at a time": ("--concurrency-range", "1"),
    "8 at a time": ("--concurrency-range", "8"),
    "32 at a time": ("--concurrency-range", "32"),
    "100 a second": ("--request-rate-range", "100", "--request-distribution", "poisson"),
    "8 at a time, 4 rows each": ("--concurrency-range", "8", "-b", "4"),
}


@pytest.fixture(scope="module")
def program():
    try:
        perf_analyzer.fetch()
    except perf_analyzer.Unavailable as error:
        pytest.skip(f"needs perf_analyzer, which pip did not bring: {error}")


@pytest.mark.slow
@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("form", [JSON, BINARY], ids=["JSON", "binary"])
@pytest.mark.parametrize("model", ["iris", "digits"])
@pytest.mark.parametrize("load", LOADS)
def test_it_measures(shipped, tmp_path, model, form, load):
    answered = shipped.metric("layertap_requests_total", route="v2_infer", model=model, code="200")
    found = perf_analyzer.measure(shipped.port, model, tmp_path, *form, *LOADS[load])
    print(
        f"\nperf_analyzer | {model} | {form[1]} | {load} | {found.per_second:,.0f} inferences/s "
        f"| p50 {found.p50_ms:.2f} ms | p99 {found.p99_ms:.2f} ms"
    )
    assert found.per_second > 0
    assert shipped.metric("layertap_requests_total", route="v2_infer", model=model, code="200") > answered
    assert shipped.metric("layertap_requests_total", route="v2_infer", code="400") == 0
