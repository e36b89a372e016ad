"""What can be known of the image without building it; its health command runs for real."""

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]


def instructions():
    """The Dockerfile as (instruction, arguments), continuation lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]


def stages():
    found = []
    for name, arguments in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, arguments))
    return found


def only(stage, name):
    """The arguments of the one instruction of this name."""
    (arguments,) = [arguments for found, arguments in stage if found == name]
    return arguments


def health_command():
    """The health command as the container runs it, with this interpreter."""
    check = only(stages()[-1], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + len("CMD") :])
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def sed_rule(text):
    (rule,) = re.findall(r"'(s/\^tensorflow-cpu[^']*)'", text)
    return rule


def test_two_stages_stand_on_one_base_that_can_be_chosen():
    assert instructions()[0] == ("ARG", "BASE=python:3.11-slim")
    assert [stage[0] for stage in stages()] == [("FROM", "${BASE} AS build"), ("FROM", "${BASE}")]


def test_the_service_runs_as_nobody_special():
    assert only(stages()[-1], "USER") == "10001:10001"


def test_what_the_service_runs_from_belongs_to_root():
    assert not [arguments for name, arguments in stages()[-1] if name == "COPY" and "--chown" in arguments]


def test_gunicorn_is_the_first_process_and_gets_the_signals():
    assert json.loads(only(stages()[-1], "CMD")) == ["gunicorn", "-c", "gunicorn.conf.py"]
    assert "ENTRYPOINT" not in dict(stages()[-1])


def test_no_stage_installs_a_compiler():
    build, final = stages()

    assert "--only-binary :all:" in only(build, "RUN")
    runs = " ".join(arguments for stage in (build, final) for name, arguments in stage if name == "RUN")
    assert not re.search(r"\b(apt|apt-get|apk|dnf|gcc|g\+\+|build-essential|make)\b", runs)
    assert "pip" not in only(final, "RUN")


def test_the_gpu_argument_and_make_swap_the_same_line():
    rule = sed_rule((ROOT / "Dockerfile").read_text())
    assert rule == sed_rule((ROOT / "Makefile").read_text())

    before = (ROOT / "requirements.txt").read_text().splitlines()
    after = subprocess.run(
        ["sed", rule, "requirements.txt"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]

    ((old, new),) = changed
    assert "(*)" in old
    version = re.match(r"tensorflow-cpu==([\d.]+);", old)[1]
    assert new.startswith(f"tensorflow[and-cuda]=={version} ")
    assert ";" not in new


def test_only_what_the_service_needs_enters_the_image():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]

    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {"service", "models", "gunicorn.conf.py", "layertap.toml", "requirements.txt"}
    assert {"**/__pycache__", "**/*.pyc"} <= set(rules)


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (500, False)])
def test_the_health_command_tells_what_healthz_says(status, healthy):
    asked = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Nothing: the test reads `asked`."""

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        server.timeout = 30  # a command that never asks fails the test instead of hanging it
        thread = Thread(target=server.handle_request)
        thread.start()
        port = str(server.server_address[1])
        # A proxy that nobody runs: asking it would fail.
        environ = os.environ | {"PORT": port, "http_proxy": "http://127.0.0.1:9"}
        environ.pop("no_proxy", None)
        done = subprocess.run(health_command(), cwd=ROOT, env=environ, capture_output=True, check=False)
        thread.join()

    assert (done.returncode == 0) is healthy, done.stderr
    assert asked == ["/healthz"]


def test_the_health_command_fails_where_nothing_listens():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = str(server.server_address[1])  # free again once closed

    environ = os.environ | {"PORT": port}
    done = subprocess.run(health_command(), cwd=ROOT, env=environ, capture_output=True, check=False)

    assert done.returncode != 0
    assert b"refused" in done.stderr
