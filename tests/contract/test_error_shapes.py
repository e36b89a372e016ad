"""One table over every route of every dialect: what can go wrong there, told in that dialect's shape.

The routes are those of the OpenAPI document: each must answer every mistake that applies to it with a status that it
declares, and have no declared status that no mistake here leads to.
"""

import json
from dataclasses import dataclass, field

import pytest
from drivers import LIMITS, MAX_BODY_BYTES, Gate, open_site
from jsonschema import Draft202012Validator

from service.api.dialects import every_dialect
from service.api.openapi import describe_api
from service.api.problems import PROBLEM
from service.payloads.codecs import JSON

DOCUMENT = json.loads(json.dumps(describe_api(())))
ROUTES = [(verb, path) for path, operations in DOCUMENT["paths"].items() for verb in operations]
INFERENCE = ("/predict", "/features", ":predict", ":classify", ":regress", "/infer")
ROW = [1.0, 2.0, 3.0, 4.0]
# Told by the document that the route answers with anyway, or caused by a state: test_waiting and others have them.
STATES = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
}
ELSEWHERE = {500, 504}


@dataclass(frozen=True)
class Mistake:
    """A request that goes wrong on one route.

    Args:
        what: goes wrong.
        route: method in lower case, and the path with its parameters.
        status: that it must have.
        site: which of the sites it is sent to.
        filled: parameters of the path.
        method: where it is not the route's.
    """

    what: str
    route: tuple[str, str]
    status: int
    site: str = "open"
    filled: dict = field(default_factory=dict)
    query: str = ""
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    method: str | None = None

    def __str__(self):
        return f"{self.route[0].upper()} {self.route[1]}: {self.what}"

    @property
    def request(self):
        verb, template = self.route
        names = {"name": "line" if template.endswith(":regress") else "iris", "version": "1", "label": "none"}
        path = template.format(**names | self.filled)
        query = self.query or ("model=iris" if template in ("/predict", "/features") else "")
        body = good_body(template) if self.body is None and verb == "post" else self.body or b""
        return self.method or verb.upper(), path, query, {"Content-Type": JSON} | self.headers, body


def good_body(template):
    if template.endswith(":regress"):
        value = {"examples": [{"x": ROW[:2]}]}
    elif template.endswith(":classify"):
        value = {"examples": [{"x": ROW}]}
    elif template.endswith("/infer"):
        value = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW}]}
    elif template.startswith("/v2"):
        value = {}
    else:
        value = {"instances": [ROW]}
    return json.dumps(value).encode()


def dialect(path):
    return path[:3] if path.startswith(("/v1", "/v2")) else "native"


def everywhere(route):
    """What can go wrong on any route, and on any that takes a body."""
    verb, path = route
    yield Mistake("another method", route, 400 if dialect(path) == "/v1" else 405, method="PUT")
    if verb == "post":
        yield Mistake("a body over the limit", route, 413, body=bytes(MAX_BODY_BYTES + 1))
        yield Mistake("half a JSON", route, 400, body=b'{"inputs": [')
        yield Mistake("no object", route, 400, body=b"[1]")


def of_models(route):
    """What can go wrong where a model is named."""
    _, path = route
    native = path in ("/predict", "/features")
    if not native and "{name}" not in path:
        return

    def named(what, name, status, **more):
        where = {"query": f"model={name}"} if native else {"filled": {"name": name}}
        return Mistake(what, route, status, **where | more)

    yield named("an unknown model", "irs", 404)
    if "{label}" in path:
        yield Mistake("an unknown label", route, 400)
        return
    if "{version}" in path:
        yield Mistake("an unknown version", route, 404, filled={"version": "7"})
        yield Mistake("a version of letters", route, 400, filled={"version": "x"})
    if needs_the_model(path):
        yield named("a model that failed to load", "broken", 503)
        if not path.endswith("/load"):
            yield named("a model that is loading", "iris", 503, site="loading")


def needs_the_model(path):
    ends = (*INFERENCE, "/metadata", "/config", "/stats", "/layers", "/load")
    return path.endswith(ends) or path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


def of_inference(route):
    """What can go wrong where a model runs."""
    _, path = route
    if not path.endswith(INFERENCE) or "{label}" in path:
        return
    yield Mistake("a full queue", route, 429, site="full")
    yield Mistake("a defect of the model", route, 500, site="defective")
    unknown = 400 if dialect(path) == "/v1" else 415
    yield Mistake("an unknown coding", route, unknown, headers={"Content-Encoding": "br"})
    yield Mistake("no gzip", route, 400, headers={"Content-Encoding": "gzip"})


def of_one_route():
    """What only one route knows."""
    for path in ("/predict", "/features"):
        route = ("post", path)
        picture = {"Content-Type": "image/png"}
        yield Mistake("a picture for rows", route, 415, headers=picture, body=b"\x89PNG")
        yield Mistake("a broken picture", route, 422, headers=picture, query="model=shapes", body=b"\x89PNG")
        yield Mistake("no such format", route, 406, headers={"Accept": "text/csv"})
        yield Mistake("no such version", route, 404, query="model=iris&version=7")
    yield Mistake("no such layer", ("post", "/features"), 404, query="model=iris&layer=no")
    layers = ("get", "/models/{name}/layers")
    yield Mistake("a version of letters", layers, 400, query="version=x")
    for rest in ("index", "models/{name}/load", "models/{name}/unload"):
        yield Mistake("the setting admin is off", ("post", f"/v2/repository/{rest}"), 403, site="closed")
    ready = ("get", "/v2/models/{name}/ready")
    yield Mistake("a model that is not ready", ready, 400, filled={"name": "broken"})
    yield Mistake("a path without a model", ("get", "/v1/models/{name}"), 400, filled={"name": ""})
    yield Mistake("a colon in the name", ("get", "/v1/models/{name}/metadata"), 400, filled={"name": "a:b"})
    for verb in ("predict", "classify", "regress"):
        path = f"/v1/models/{{name}}:{verb}"
        yield Mistake(
            "no such signature", ("post", path), 400, body=b'{"signature_name": "x", "instances": [1]}'
        )


MISTAKES = [
    *(
        mistake
        for route in ROUTES
        for made in (everywhere, of_models, of_inference)
        for mistake in made(route)
    ),
    *of_one_route(),
]


@pytest.fixture(scope="module")
def sites():
    """Name -> a site in the state that a mistake needs."""

    def defect():
        raise ValueError("a defect of the model")

    gate = Gate()
    admin = every_dialect(LIMITS, admin=True)
    with (
        open_site(dialects=admin) as site,
        open_site("iris") as closed,
        open_site("iris", "line", load=False) as loading,
        open_site("iris", "line", gate=gate, max_queue_rows=1) as full,
        open_site("iris", "line", before_run=defect) as defective,
    ):
        sent = Mistake("", ("post", "/predict"), 200).request
        running = full.express.start(*sent)
        assert gate.entered.wait(30)
        other = Mistake("", ("post", "/v1/models/line:regress"), 200).request
        waiting = [full.express.start(*each) for each in (sent, other)]
        assert all(each.watched.wait(30) for each in waiting)  # they are queued by then
        yield {"open": site, "closed": closed, "loading": loading, "full": full, "defective": defective}
        gate.open()
        assert [each.answer().status for each in (running, *waiting)] == [200, 200, 200]


@pytest.mark.parametrize("name", ["flask", "express"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_told_in_the_dialects_shape(sites, name, mistake):
    answer = getattr(sites[mistake.site], name).send(*mistake.request)
    assert answer.status == mistake.status, answer.body
    document = answer.json()
    verb, path = mistake.route
    if dialect(path) == "native":
        assert answer.content_type == PROBLEM
        assert (document["status"], bool(document["detail"])) == (mistake.status, True)
    else:
        assert answer.content_type == JSON
        assert document["error"]
        assert list(document) == ["error"] or mistake.what == "a model that is not ready"
    if mistake.status == 429:
        assert int(answer.headers["retry-after"]) >= 1
    if mistake.status == 405:
        assert verb.upper() in answer.headers["allow"].split(", ")
    if mistake.method is None:
        declared = DOCUMENT["paths"][path][verb]["responses"][str(mistake.status)]["content"]
        schema = declared[answer.content_type]["schema"]
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(document)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_no_status_is_declared_that_nothing_leads_to(route):
    verb, path = route
    declared = {int(status) for status in DOCUMENT["paths"][path][verb]["responses"]}
    shown = {mistake.status for mistake in MISTAKES if mistake.route == route and mistake.method is None}
    if route in STATES or "{label}" in path:  # no model of these sites has a label
        return
    assert {status for status in declared if status >= 400} - ELSEWHERE - state_of(path) == shown - ELSEWHERE


def state_of(path):
    """A status that tells a model's state in the document that a ready model has, too."""
    return {503} if path == "/v1/models/{name}" else set()


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/nowhere", "/v2/nowhere", "/v2/repository", "/v3/models"]
)
@pytest.mark.parametrize("name", ["flask", "express"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_none_is_told_in_the_dialects_shape(sites, name, path, method):
    answer = getattr(sites["open"], name).send(method, path)
    told = answer.json()
    if dialect(path) == "native":
        assert (answer.status, answer.content_type, told["code"]) == (404, PROBLEM, "not_found")
    else:
        assert (answer.status, answer.content_type) == (404 if dialect(path) == "/v2" else 400, JSON)
        assert list(told) == ["error"]
