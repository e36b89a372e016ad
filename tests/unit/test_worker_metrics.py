import re

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import Telemetry
from service.tensors import Timings
from service.worker_metrics import merged

ODD = 'a "b" {c} \\ d\ne'


def registry(count):
    made = CollectorRegistry()
    Counter("asked", "Asked. {odd} text", ("who",), registry=made).labels(ODD).inc(count)
    Gauge("now", "Now.", registry=made).set(count)
    Histogram("took_seconds", "Took.", registry=made, buckets=(1, 2)).observe(count)
    return made


FORMATS = [
    (generate_latest, text_string_to_metric_families),
    (exposition.generate_latest, parser.text_string_to_metric_families),
]


@pytest.mark.parametrize(("write", "read"), FORMATS, ids=["plain", "OpenMetrics"])
def test_each_workers_samples_are_there_once_under_its_label(write, read):
    texts = {worker: write(registry(count)).decode() for worker, count in {0: 1, 5: 2}.items()}
    families = {family.name: family for family in read(merged(texts))}
    counts = {
        (sample.labels["worker"], sample.labels["who"]): sample.value
        for sample in families["asked"].samples
        if sample.name == "asked_total"
    }
    assert counts == {("0", ODD): 1, ("5", ODD): 2}
    assert {sample.labels["worker"]: sample.value for sample in families["now"].samples} == {"0": 1, "5": 2}
    assert families["took_seconds"].type == "histogram"
    alone = [len(list(family.samples)) for family in read(texts[0])]
    assert [len(family.samples) for family in families.values()] == [2 * size for size in alone]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_all_of_the_services_metrics_can_be_merged(openmetrics):
    telemetry = Telemetry()
    telemetry.answered("predict", "iris", 200, Timings(0.1, 0.1, 0.1, 0.1), "id")
    text = telemetry.render(openmetrics=openmetrics).decode()
    both = merged({0: text, 1: text})
    _, read = FORMATS[openmetrics]
    assert len(list(read(both))) == len(list(read(text)))
    names = [line.split()[2] for line in both.splitlines() if re.match("# TYPE", line)]
    assert len(names) == len(set(names))
    telemetry.gather = lambda own, _: merged({0: own, 1: own})
    assert len(telemetry.render().splitlines()) > len(telemetry.render_own().splitlines())
