"""schemathesis against the running service: its own OpenAPI document, and the one of the Open Inference Protocol.

Held against each reply: no 500, no status, content type or header that is not declared, no body of another shape.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import MODELS, ROOT, serve

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
# 501, 503 and 504 are answers to what was asked: not here, not ready, too late. They must be declared all the same.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2XX", "3XX", "4XX", "501", "503", "504"]
"""
PROTOCOL = ROOT / "tests/openapi/open_inference.yaml"
AT_LEAST = 20_000
EXAMPLES_IN_CI = 20  # for each operation; those without parameters have but one
EXAMPLES = {"own": 500, "protocol": 500}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Models to ask, one with a label to load and unload, and one that is broken."""
    models = tmp_path_factory.mktemp("conformance")
    shutil.copytree(MODELS, models, dirs_exist_ok=True)
    shutil.copytree(MODELS / "iris", models / "spare")
    (models / "spare/model.toml").write_text("labels = { stable = 1 }\n")
    (models / "broken.h5").write_bytes(b"no HDF5")
    with serve(models, admin="true") as service:
        yield service.until_ready()


def run(service, folder, document, examples, *options):
    """Runs schemathesis; returns how many cases it sent."""
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(CONFIG)
    where = ["--url", f"http://127.0.0.1:{service.port}"]
    command = [
        *[
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(config),
            "run",
            str(document),
            *where,
        ],
        *["--checks", ",".join(CHECKS), "--max-examples", str(examples), "--no-color", "--warnings", "off"],
        *["--report", "json", "--report-json-path", str(report), "--request-timeout", "60", *options],
    ]
    hooks = str(Path(__file__).with_name("conformance_hooks.py"))
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": hooks},
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0, told
    found = json.loads(report.read_text())
    assert found["operations"]["tested"] == found["operations"]["total"], told
    assert found["failures"] == [], told
    assert found["test_cases"]["errored"] == 0, told
    return found["test_cases"]["generated"]


@pytest.fixture(params=["own", "protocol"])
def document(request, service, tmp_path):
    return document_of(request.param, service, tmp_path)


def document_of(name, service, folder):
    if name == "protocol":
        return PROTOCOL
    path = folder / "openapi.json"
    path.write_bytes(service.get("/openapi.json").body)
    return path


def answered(service):
    """Inference route -> how many requests it has answered with 200."""
    routes = ("predict", "features", "v1_predict", "v1_classify", "v2_infer")
    return {route: service.metric("layertap_requests_total", route=route, code="200") for route in routes}


def test_a_few_hundred_requests(service, document, tmp_path):
    options = ["--phases", "examples,fuzzing", "--generation-deterministic"]
    assert run(service, tmp_path, document, EXAMPLES_IN_CI, *options) > 70
    reached = answered(service)
    assert all(reached.values()) if document != PROTOCOL else reached["v2_infer"], reached


@pytest.mark.slow
def test_twenty_thousand_requests(service, tmp_path):
    sent = 0
    for name in ("own", "protocol"):
        folder = tmp_path / name
        folder.mkdir()
        document = document_of(name, service, folder)
        generated = run(service, folder, document, EXAMPLES[name], "--phases", "examples,coverage,fuzzing")
        print(f"schemathesis, {name} document: {generated} requests, no failure")
        sent += generated
    print(f"answered with 200: {answered(service)}")
    assert sent >= AT_LEAST
