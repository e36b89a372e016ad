"""Owns the Flask application: pages, metadata, metrics, health, and the inference routes on any WSGI server.

Its inference views wait on the calling thread; under gunicorn's ASGI worker the express lane (`asgi`) takes
those routes before they get here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, redirect, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import PathConverter
from werkzeug.wrappers import Response as BaseResponse

from service import errors
from service.api import catalog, scraping
from service.api.endpoint import Dialect, Endpoint
from service.api.http import HttpRequest, Reply
from service.api.native import NativeEndpoint
from service.api.openapi import openapi_document
from service.api.options import parse_version
from service.api.problems import problem
from service.api.trust import Hosts
from service.drivers.browsers import GUARDS, POLICY, page_policy
from service.drivers.exchange import Exchange, answer, body_too_large
from service.fields import nearest
from service.payloads.codecs import encode_json
from service.serving.runtime import Runtime
from service.telemetry import UNKNOWN, Telemetry

_PAGES = Path(__file__).parent / "pages"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HTML = "text/html; charset=utf-8"
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~%-]+)+")  # that a proxy took off the path


def create_app(
    runtime: Runtime,
    telemetry: Telemetry,
    endpoints: Sequence[NativeEndpoint],
    dialects: Sequence[Dialect],
    *,
    max_body_bytes: int,
    device: Mapping[str, Any],
    hosts: Hosts | None = None,
) -> Flask:
    """The application.

    Args:
        runtime: the served models.
        telemetry: metrics and request ids.
        endpoints: the native inference routes.
        dialects: what other clients speak, each under its own prefix.
        max_body_bytes: the largest request body.
        device: the device settings in force, for `/models`; filled in once they are known.
        hosts: what requests may be sent to; `None`: to any name.
    """
    app = Flask("layertap", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    infer = _inference(runtime, telemetry, max_body_bytes)

    def tell(dialect: Dialect) -> Response:
        read = partial(_read, max_body_bytes)
        return to_response(answer(dialect, read, runtime, telemetry, _given_id()))

    for endpoint in endpoints:
        app.add_url_rule(endpoint.path, endpoint.name, partial(infer, endpoint), methods=["POST"])
    for dialect in dialects:
        _add_dialect(app, dialect, infer, tell)
    _add_catalog(app, runtime, device)
    _add_pages(app, runtime, telemetry)
    _add_errors(app, telemetry, dialects)
    if hosts is not None:
        _add_hosts(app, hosts)
    return app


def to_response(reply: Reply) -> Response:
    """A Flask response of a reply."""
    response = Response(reply.body, reply.status, reply.headers)
    response.headers["Content-Type"] = reply.content_type
    return response


def _inference(runtime: Runtime, telemetry: Telemetry, max_body_bytes: int) -> Callable[[Endpoint], Response]:
    def infer(endpoint: Endpoint) -> Response:
        exchange = Exchange(endpoint, runtime, telemetry, _given_id())
        charge = exchange.charge = runtime.memory.charge()
        try:
            asked = _read(max_body_bytes)
            charge.receive(len(asked.body))
            if endpoint.is_heavy(asked):
                exchange.book(exchange.foresee(asked))
            call = exchange.parse(asked)
            result = runtime.infer(call.request, begun=exchange.begun)
            reply = exchange.finish(exchange.render(result))
        except Exception as error:  # noqa: BLE001 every request is answered, whatever went wrong
            reply = exchange.fail(error, request.path, request.query_string)
        exchange.record(reply.status)
        return to_response(reply)

    return infer


def _add_dialect(
    app: Flask,
    dialect: Dialect,
    infer: Callable[[Endpoint], Response],
    tell: Callable[[Dialect], Response],
) -> None:
    def view(**_: str) -> Response:
        endpoint = dialect.endpoint(request.path) if request.method == "POST" else None
        return tell(dialect) if endpoint is None else infer(endpoint)

    app.url_map.converters["rest"] = _Rest
    for rule in (dialect.prefix, f"{dialect.prefix}/<rest:rest>"):
        app.add_url_rule(
            rule, rule, view, methods=_METHODS, provide_automatic_options=False, merge_slashes=False
        )


class _Rest(PathConverter):
    """Whatever follows a dialect's prefix; unlike werkzeug's own converter it takes a slash first, and nothing."""

    regex = r"[\s\S]*?"
    part_isolating = False


def _given_id() -> bytes | None:
    given = request.headers.get("X-Request-Id")
    return given.encode() if given else None


def _read(max_body_bytes: int) -> HttpRequest:
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise body_too_large(max_body_bytes) from error
    headers = {
        name.lower().encode("latin-1"): value.encode("latin-1", "replace") for name, value in request.headers
    }
    method = "GET" if request.method == "HEAD" else request.method  # the server leaves out the body
    client = request.remote_addr or ""
    return HttpRequest(method, request.path, request.query_string, headers, body, client)


def _add_catalog(app: Flask, runtime: Runtime, device: Mapping[str, Any]) -> None:
    def layers(name: str) -> Response:
        return to_response(catalog.layers(runtime, name, parse_version(request.query_string)))

    routes: dict[str, Callable[..., Response]] = {
        "/healthz": lambda: to_response(catalog.healthz(runtime)),
        "/readyz": lambda: to_response(catalog.readyz(runtime)),
        "/models": lambda: to_response(catalog.models(runtime, device)),
        "/models/<name>": lambda name: to_response(catalog.model(runtime, name)),
        "/models/<name>/layers": layers,
        "/openapi.json": partial(_openapi, runtime),
    }
    for path, view in routes.items():
        app.add_url_rule(path, path, view)


def _add_pages(app: Flask, runtime: Runtime, telemetry: Telemetry) -> None:
    page = (_PAGES / "docs.html").read_text(encoding="utf-8")
    docs, policy = page.encode(), {POLICY: page_policy(page)}
    app.add_url_rule("/docs", "docs", lambda: to_response(Reply(200, docs, _HTML, policy)))
    app.add_url_rule("/metrics", "metrics", partial(_metrics, telemetry))
    app.add_url_rule("/", "root", lambda: _root(runtime))


def _metrics(telemetry: Telemetry) -> Response:
    asked = request.headers
    return to_response(scraping.metrics(telemetry, asked.get("Accept", ""), asked.get("Accept-Encoding", "")))


def _openapi(runtime: Runtime) -> Response:
    given = request.headers.get("X-Forwarded-Prefix", "").rstrip("/")
    document = openapi_document(runtime, given if _PREFIX.fullmatch(given) else "/")
    return to_response(Reply(200, encode_json(document), headers={"vary": "x-forwarded-prefix"}))


def _root(runtime: Runtime) -> BaseResponse:
    """The page for browsers; for others whether the service lives, as KServe's V1 clients ask here."""
    if "text/html" in request.headers.get("Accept", ""):
        return redirect("docs")  # beside this path, whatever prefix a proxy takes off it
    return to_response(catalog.healthz(runtime))


def _add_hosts(app: Flask, hosts: Hosts) -> None:
    def refuse() -> None:
        refusal = hosts.refusal(request.headers.get("Host", "").encode("latin-1"))
        if refusal is not None:
            raise refusal

    app.before_request(refuse)


def _add_errors(app: Flask, telemetry: Telemetry, dialects: Sequence[Dialect]) -> None:
    paths = [rule.rule for rule in app.url_map.iter_rules()]

    def answer(error: Exception) -> Response:
        if isinstance(error, HTTPException) and (error.code or 500) < 400:
            return error.get_response()  # type: ignore[return-value]  # a redirect; werkzeug's type is the base class
        ours = _translate(error, paths)
        if ours.status == 500:
            app.logger.error("%s failed", request.path, exc_info=error)
        telemetry.metrics.rejected.labels(ours.code).inc()
        response = to_response(_problem_of(request.path, dialects)(ours))
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or []))
        return response

    def finish(response: Response) -> Response:
        if "X-Request-Id" not in response.headers:  # a view of a dialect has seen to all this itself
            for name, value in GUARDS.items():
                response.headers.setdefault(name, value)
            request_id = telemetry.request_id(_given_id())
            response.headers["X-Request-Id"] = request_id
            route = request.url_rule.rule if request.url_rule else UNKNOWN
            telemetry.answered(route, UNKNOWN, response.status_code, None, request_id)
        return response

    app.register_error_handler(Exception, answer)
    app.after_request(finish)


def _problem_of(path: str, dialects: Sequence[Dialect]) -> Callable[[errors.LayertapError], Reply]:
    """What tells an error in the shape of the dialect that a path belongs to."""
    for dialect in dialects:
        if path == dialect.prefix or path.startswith(f"{dialect.prefix}/"):
            return dialect.problem
    return problem


def _translate(error: Exception, paths: Sequence[str]) -> errors.LayertapError:
    if isinstance(error, errors.LayertapError):
        return error
    if isinstance(error, NoRoute):
        return errors.NotFound(
            f"Expected one of the paths at /docs. Received: {request.path[:200]!r}.{nearest(request.path, paths)}"
        )
    if isinstance(error, MethodNotAllowed):
        allowed = " or ".join(sorted({"GET", "POST"}.intersection(error.valid_methods or [])))
        return errors.MethodNotAllowed(f"Expected {allowed} {request.path}. Received: {request.method}.")
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return errors.InvalidRequest(error.description or error.name)
    return errors.ServiceError("The service failed on this request; its log has the cause.")
