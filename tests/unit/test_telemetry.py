import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import UNKNOWN, Telemetry, logging_config, server_timing_header, server_timings
from service.tensors import Timings

ROOT = Path(__file__).parents[2]
TIMINGS = Timings(decode_s=0.001, queue_s=0.0002, compute_s=0.0301, encode_s=0.00000049)


def families(telemetry):
    return {family.name: family for family in text_string_to_metric_families(telemetry.render().decode())}


def samples(telemetry, name, *labels):
    found = families(telemetry)[name].samples
    return {tuple(s.labels[label] for label in labels): s.value for s in found if s.name == f"{name}_total"}


# -- metrics ------------------------------------------------------------------------------------------------


def test_every_metric_is_ours_documented_and_parsed():
    telemetry = Telemetry()
    telemetry.answered("predict", "iris", 200, TIMINGS, "id")
    telemetry.layer_asked("iris", "base/conv5")
    found = families(telemetry)
    ours = {name for name in found if not name.startswith(("process_", "python_"))}
    assert {
        "layertap_requests",
        "layertap_rejected",
        "layertap_queue_rows",
        "layertap_traces",
        "layertap_model_state",
    } <= ours
    assert all(name.startswith("layertap_") and found[name].documentation.endswith(".") for name in ours)


def test_replies_are_counted_by_route_model_and_status():
    telemetry = Telemetry()
    for status in (200, 200, 404):
        telemetry.answered("predict", "iris", status, None, "id")
    telemetry.answered(UNKNOWN, UNKNOWN, 404, None, "id")
    assert samples(telemetry, "layertap_requests", "route", "model", "code") == {
        ("predict", "iris", "200"): 2,
        ("predict", "iris", "404"): 1,
        ("unknown", "unknown", "404"): 1,
    }


def test_layers_are_counted_by_path():
    telemetry = Telemetry()
    for path in ("pool", "pool", "base/conv5"):
        telemetry.layer_asked("digits", path)
    assert samples(telemetry, "layertap_layer_requests", "model", "layer") == {
        ("digits", "pool"): 2,
        ("digits", "base/conv5"): 1,
    }


@pytest.mark.parametrize("stage", ["decode", "queue", "compute", "encode"])
def test_stages_are_observed_only_for_answers(stage):
    telemetry = Telemetry()
    telemetry.answered("predict", "iris", 200, TIMINGS, "id")
    telemetry.answered("predict", "iris", 429, None, "id")
    values = {
        s.name.removeprefix(f"layertap_{stage}_seconds"): s.value
        for s in families(telemetry)[f"layertap_{stage}_seconds"].samples
        if "le" not in s.labels
    }
    assert values["_count"] == 1
    assert values["_sum"] == pytest.approx(getattr(TIMINGS, f"{stage}_s"))


def test_buckets_reach_from_a_tenth_of_a_millisecond_to_half_a_minute():
    telemetry = Telemetry()
    telemetry.answered("predict", "iris", 200, TIMINGS, "id")
    bounds = [
        s.labels["le"] for s in families(telemetry)["layertap_queue_seconds"].samples if "le" in s.labels
    ]
    assert (bounds[0], bounds[-2:]) == ("0.0001", ["30.0", "+Inf"])


def test_two_services_in_one_process_count_apart():
    one, other = Telemetry(), Telemetry()
    one.layer_asked("m", "pool")
    assert samples(other, "layertap_layer_requests", "model", "layer") == {}


def test_label_values_cannot_break_the_text():
    telemetry = Telemetry()
    path = 'a"b\\c\nd} 1\n# HELP x y'
    telemetry.layer_asked("m", path)
    assert samples(telemetry, "layertap_layer_requests", "model", "layer") == {("m", path): 1}


# -- request ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", [b"a", b"0af7651916cd43dd-b7ad", b'x"y=z,{}', b"~" * 128])
def test_a_decent_id_is_echoed(given_id):
    assert Telemetry().request_id(given_id) == given_id.decode()


@pytest.mark.parametrize(
    "given_id",
    [
        None,
        b"",
        b" ",
        b"a b",
        b"a\r\nSet-Cookie: x",
        b"a\n",
        b"a\tb",
        b"\0",
        b"\x7f",
        b"\x1b[31m",
        "é".encode(),
        b"\xff",
        b"x" * 129,
    ],
)
def test_a_hostile_id_is_replaced(given_id):
    got = Telemetry().request_id(given_id)
    assert got.encode() != given_id
    assert got.isprintable()
    assert got.isascii()


@given(st.binary(max_size=140))
def test_any_id_is_safe_in_a_header(given_id):
    got = Telemetry().request_id(given_id)
    assert 0 < len(got) <= 128
    assert all(32 < ord(character) < 127 for character in got)


def test_new_ids_differ():
    telemetry, other = Telemetry(), Telemetry()
    ids = [service.request_id(None) for service in (telemetry, other) for _ in range(100)]
    assert len(set(ids)) == 200


# -- timings ------------------------------------------------------------------------------------------------


def test_timings_are_told_in_milliseconds():
    assert (
        server_timing_header(TIMINGS)
        == "decode;dur=1.000, queue;dur=0.200, compute;dur=30.100, encode;dur=0.000"
    )
    assert server_timings(TIMINGS) == {
        "decode_ms": 1.0,
        "queue_ms": 0.2,
        "compute_ms": 30.1,
        "encode_ms": 0.0,
    }


# -- logs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access_log", "statuses"), [("off", []), ("errors", [500, 503]), ("all", [200, 404, 500, 503])]
)
def test_the_access_log_holds_what_was_asked_for(access_log, statuses, caplog):
    telemetry = Telemetry(access_log)
    with caplog.at_level(logging.INFO, "layertap.access"):
        for status in (200, 404, 500, 503):
            telemetry.answered("predict", "iris", status, TIMINGS if status == 200 else None, "id-1")
    assert [record.fields["status"] for record in caplog.records] == statuses
    for record in caplog.records:
        assert record.fields["request_id"] == "id-1"
        assert ("compute_ms" in record.fields) == (record.fields["status"] == 200)


def formatted(log_format, message, *arguments, exc_info=None, **extra):
    config = logging_config(log_format)["formatters"]["line"]
    options = {name: value for name, value in config.items() if name != "()"}
    record = logging.LogRecord("layertap.test", logging.WARNING, "x.py", 1, message, arguments, exc_info)
    vars(record).update(extra)
    return config["()"](**options).format(record)


def broken():
    try:
        int("first\nsecond")
    except ValueError:
        return sys.exc_info()


def test_json_lines_are_one_object_a_line():
    line = formatted("json", "%s\nof two", "one", fields={"status": 200, "model": "iris"}, exc_info=broken())
    assert "\n" not in line
    document = json.loads(line)
    assert (document["message"], document["level"], document["logger"]) == (
        "one\nof two",
        "warning",
        "layertap.test",
    )
    assert (document["status"], document["model"]) == (200, "iris")
    assert "ValueError: invalid literal" in document["exception"]


@pytest.mark.parametrize("value", ["file \udcff", 10**30, {1, 2}, object(), b"\xff"])
def test_json_lines_take_whatever_is_logged(value):
    assert json.loads(formatted("json", "%s", "\udcff", fields={"value": value}))["message"] == "\udcff"
    assert "value" in json.loads(formatted("json", "x", fields={"value": value}))


def test_text_lines_end_with_the_fields():
    line = formatted("text", "request %d", 7, fields={"status": 200, "model": "iris"})
    assert line.endswith("WARNING request 7 status=200 model=iris")
    assert formatted("text", "plain").endswith("WARNING plain")


SPEAK = """
import logging.config, sys
from service.telemetry import logging_config
logging.config.dictConfig(logging_config(sys.argv[1]))
logging.getLogger("layertap.models").info("ready")
logging.getLogger("gunicorn.error").info("chatter")
logging.getLogger("elsewhere").warning("heard")
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_logging_takes_the_configuration(log_format):
    # In a process of its own: configuring closes whatever handlers the process had, other libraries' included.
    command = [sys.executable, "-c", SPEAK, log_format]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert "ready" in lines[0]
    assert "heard" in lines[1]
