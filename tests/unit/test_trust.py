"""Names that a service is called by, and who may administer it."""

import pytest

from service.api.http import HttpRequest
from service.api.trust import Hosts, check_administrator
from service.errors import AdminRefused

HOSTS = Hosts(["Models.Example.com", "*.svc.cluster.local"])
KEY = "correct-horse"


def request_with(client="127.0.0.1", **headers):
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return HttpRequest("POST", "/v2/repository/index", b"", named, b"", client)


def refused(request, key=None):
    with pytest.raises(AdminRefused) as caught:
        check_administrator(request, key)
    return caught.value.message.partition("Received: ")[2]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "models.example.com",
        "MODELS.example.com.:8080",
        "iris.default.svc.cluster.local",
        "localhost:8080",
        "10.0.0.7:8080",
        "[::1]:8080",
        "[fd00::7]",
    ],
)
def test_names_addresses_and_localhost_pass(host):
    assert HOSTS.refusal(host.encode()) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "example.com",
        "a.models.example.com",
        "svc.cluster.local",
        "notsvc.cluster.local",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1, evil.example",
        "user@models.example.com",
        "models.example.com/",
        "[::1",
        "a" * 100_000,
        "\u00ff",
    ],
)
def test_other_names_are_refused_and_told(host):
    message = HOSTS.refusal(host.encode("latin-1")).message
    assert repr(host[:80]) in message
    assert len(message) < 300


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_without_a_key_this_machine_may_administer(client, host):
    check_administrator(request_with(client, host=host), None)
    check_administrator(request_with(client, host=host, origin=f"http://{host}"), None)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (request_with("10.0.0.7", host="localhost"), "one from 10.0.0.7"),
        (request_with("::ffff:10.0.0.7", host="localhost"), "one from ::ffff:10.0.0.7"),
        (request_with("", host="localhost"), "one from an unknown address"),
        (request_with("unix", host="localhost"), "one from unix"),
        (request_with(), "Host: ''"),
        (request_with(host="rebound.example:8080"), "Host: 'rebound.example:8080'"),
        (request_with(host="10.0.0.7:8080"), "Host: '10.0.0.7:8080'"),
        (request_with(host="localhost, evil.example"), "Host: 'localhost, evil.example'"),
        (request_with(host="localhost", origin="http://evil.example"), "Origin: 'http://evil.example'"),
        (
            request_with(host="localhost:80", origin="http://localhost:3000"),
            "Origin: 'http://localhost:3000'",
        ),
        (request_with(host="localhost", origin="null"), "Origin: 'null'"),
        (request_with(host="localhost", x_forwarded_for="10.0.0.9"), "x-forwarded-for"),
        (request_with(host="localhost", forwarded="for=10.0.0.9"), "forwarded"),
        (request_with(host="localhost", via="1.1 proxy"), "via"),
    ],
)
def test_without_a_key_nobody_else_may(request_, told):
    assert told in refused(request_)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x_admin_key": KEY},
        {"authorization": "Basic dXNlcjpwYXNz", "x_admin_key": KEY},
    ],
)
def test_the_key_lets_in_from_anywhere(headers):
    check_administrator(request_with("10.0.0.7", host="models.example.com", **headers), KEY)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "none."),
        ({"authorization": f"Basic {KEY}"}, "none."),
        ({"authorization": KEY}, "none."),
        ({"authorization": "Bearer"}, "another one."),
        ({"authorization": "Bearer correct-hors"}, "another one."),
        ({"authorization": f"Bearer {KEY}, Bearer {KEY}"}, "another one."),
        ({"x_admin_key": KEY.upper()}, "another one."),
        ({"x_admin_key": ""}, "another one."),
    ],
)
def test_where_there_is_a_key_nothing_else_lets_in(headers, told):
    message = refused(request_with(host="localhost", **headers), KEY)
    assert message == told
    assert KEY not in message
