"""Whom the real service believes: the environment, the folder, and who sends requests. It starts without models."""

import socket

import pytest
from serving import Connection, free_port, serve

INDEX = "/v2/repository/index"

KUBERNETES = {
    f"LAYERTAP_{name}_{variable}": value
    for name in ("METRICS", "CANARY", "HEADLESS", "PREDICTOR")
    for variable, value in (
        ("SERVICE_HOST", "10.0.0.7"),
        ("SERVICE_PORT", "80"),
        ("SERVICE_PORT_HTTP", "80"),
        ("PORT", "tcp://10.0.0.7:80"),
        ("PORT_80_TCP", "tcp://10.0.0.7:80"),
        ("PORT_80_TCP_ADDR", "10.0.0.7"),
    )
}


def test_variables_of_other_services_do_not_stop_the_start(tmp_path):
    with serve(tmp_path, environ=KUBERNETES | {"LAYERTAP_WORKRES": "2"}) as service:
        service.until_listening()
        line = service.until_logged("LAYERTAP_WORKRES")
        assert "Did you mean 'workers'?" in line
        assert "LAYERTAP_CANARY" not in service.log


def ask(service, path=INDEX, address="127.0.0.1", **headers):
    """The status of a request without a body, sent to one of this machine's addresses."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with Connection(service.port, address) as connection:
        return connection.ask("POST" if path == INDEX else "GET", path, None, named).status


def own_address():
    """An address of this machine that other machines could use; `None` where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        return probe.getsockname()[0]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("empty"), admin="true") as service:
        yield service.until_listening()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    settings = {"admin": "true", "admin_key": "correct-horse", "allowed_hosts": "models.example.com"}
    with serve(tmp_path_factory.mktemp("empty"), **settings) as service:
        yield service.until_listening()


def test_without_a_key_only_this_machine_administers_and_no_page_of_others(local):
    local.until_logged("no admin_key is set")
    assert ask(local) == 200
    assert ask(local, Host="localhost", Origin="http://localhost") == 200
    assert ask(local, Origin="http://evil.example") == 403
    assert ask(local, Host="rebound.example") == 403
    assert ask(local, X_Forwarded_For="10.0.0.9") == 403
    assert ask(local, X_Admin_Key="") == 200


@pytest.mark.skipif(
    own_address() is None, reason="needs an address besides 127.0.0.1: connect the machine to a network"
)
def test_without_a_key_another_address_is_refused(tmp_path):
    port = free_port()
    with serve(tmp_path, admin="true", bind=f"0.0.0.0:{port}") as service:
        service.port = port
        service.until_listening()
        assert ask(service) == 200
        assert ask(service, address=own_address(), Host="localhost") == 403


def test_with_a_key_whoever_has_it_administers(keyed):
    assert ask(keyed) == 403
    assert ask(keyed, Authorization="Bearer guess") == 403
    assert ask(keyed, Authorization="Bearer correct-horse", Host="models.example.com") == 200
    assert ask(keyed, X_Admin_Key="correct-horse", Origin="http://evil.example") == 200
    assert "correct-horse" not in keyed.log


def test_other_names_read_nothing(keyed, local):
    for path in ("/models", "/docs", "/readyz", "/metrics", "/v2/models"):
        rebound = ask(keyed, path, Host="rebound.example")
        assert (rebound, ask(keyed, path, Host="models.example.com")) in {(403, 200), (403, 503)}, path
        assert ask(local, path, Host="any.example") in {200, 503}, path


def test_the_page_is_framed_by_nobody_and_runs_its_own_script_only(local):
    headers = local.get("/docs").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "'unsafe" not in headers["content-security-policy"]
