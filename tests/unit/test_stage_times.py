"""Histograms that are counted in bulk say what `prometheus_client`'s own would."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.stage_times import StageTimes
from service.tensors import Timings

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TIMES = st.one_of(st.sampled_from([0.0, *BOUNDS]), st.floats(0, 100))


def told(registry):
    """(name, labels) -> value of every sample but those that say when counting began."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def new_times():
    registry = CollectorRegistry()
    times = StageTimes(
        {"decode_seconds": ("decode_s", "Decoding."), "queue_seconds": ("queue_s", "Waiting.")}
    )
    registry.register(times)
    return registry, times


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["iris", "digits"]), TIMES, TIMES), max_size=600))
def test_they_are_what_the_library_counts_one_by_one(requests):
    registry, times = new_times()
    expected = CollectorRegistry()
    decode = Histogram("decode_seconds", "Decoding.", ["model"], registry=expected, buckets=BOUNDS)
    queue = Histogram("queue_seconds", "Waiting.", ["model"], registry=expected, buckets=BOUNDS)
    for model, decode_s, queue_s in requests:
        times.add(model, Timings(decode_s=decode_s, queue_s=queue_s))
        decode.labels(model).observe(decode_s)
        queue.labels(model).observe(queue_s)
    assert told(registry) == pytest.approx(told(expected))


def test_no_model_no_samples_but_the_metrics_are_described():
    registry, _ = new_times()
    text = generate_latest(registry).decode()
    assert told(registry) == {}
    assert "# TYPE decode_seconds histogram" in text
    assert "# HELP queue_seconds Waiting." in text


def test_none_is_lost_between_threads():
    registry, times = new_times()

    def ask():
        for _ in range(1000):
            times.add("iris", Timings(decode_s=0.5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert told(registry).get(("decode_seconds_count", (("model", "iris"),)), 0) <= 4000
    assert told(registry)["decode_seconds_count", (("model", "iris"),)] == 4000
