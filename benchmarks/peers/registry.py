"""Owns the list of servers that are compared: what each is installed from, started with and spoken to in."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peers.dialects import BASE64, LAYERTAP, MULTIPART, PLAIN, V2_BINARY, V2_JSON, Dialect
from peers.endpoints import Endpoint
from peers.environments import CACHE, Environment
from peers.mlserver_folder import write_folder
from servers import bare_command, layertap_command, layertap_environ

FOLDER = Path(__file__).parent
COMPILED = "+compiled"
_UVICORN = ("--host", "127.0.0.1", "--log-level", "warning", "--no-access-log")


@dataclass(frozen=True)
class Start:
    """One start of a server.

    Args:
        port: to listen on.
        models: the folder of the models.
        endpoints: what will be asked.
        programs: the folder of its interpreter.
    """

    port: int
    models: Path
    endpoints: tuple[Endpoint, ...]
    programs: Path = Path(sys.executable).parent


@dataclass(frozen=True)
class Peer:
    """One server.

    Args:
        name: in options, tables and JSON.
        dialect: what it is spoken to in.
        command: what starts it.
        environment: where it is installed; `None`: in this interpreter.
        module: the file in this folder that says how it is set up.
        call: how it calls Keras, for inference.py; empty where it does not.
        environ: more variables of its environment, beside the peers' own.
        ready: a path that answers with 200 when all models are loaded; `None`: its endpoints are asked.
        apart: it is started for each workload with only what that asks: its idle workers take the core.
        real: it computes; a no-op server does not.
    """

    name: str
    dialect: Dialect
    command: Callable[[Start], list[str]]
    environment: Environment | None = None
    module: str | None = None
    call: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    apart: bool = False
    real: bool = True

    def start(
        self, port: int, models: Path, endpoints: tuple[Endpoint, ...]
    ) -> tuple[list[str], dict[str, str]]:
        """The command and the environment that start it."""
        programs = self.environment.bin if self.environment else Start.programs
        command = self.command(Start(port, models, endpoints, programs))
        if self.module is None:
            return command, layertap_environ(port, models) | dict(self.environ)
        return command, {
            "PEER_PORT": str(port),
            "PEER_MODELS": str(models),
            "PEER_CALL": self.call,
            "PEER_ENDPOINTS": ",".join(endpoint.name for endpoint in endpoints),
            "PYTHONPATH": str(FOLDER),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **self.environ,
        }

    def settings(self) -> str:
        """How it is set up: the docstring of its module."""
        if self.module is None:
            return "as `make serve` starts it" if self.real else "answers two bytes"
        return ast.get_docstring(ast.parse((FOLDER / self.module).read_text())) or ""


def _script(module: str) -> Callable[[Start], list[str]]:
    return lambda start: [str(start.programs / "python"), str(FOLDER / module)]


def _mlserver(start: Start) -> list[str]:
    folder = CACHE / "mlserver" / "served"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_folder(folder, start.port, start.endpoints)
    return [str(start.programs / "mlserver"), "start", str(folder)]


def _layertap(name: str, **settings: str) -> Peer:
    environ = {f"LAYERTAP_{key.upper()}": value for key, value in settings.items()}
    return Peer(name, LAYERTAP, lambda _: layertap_command(), environ=environ, ready="/readyz")


_PEERS = (
    Peer(
        "flask", PLAIN,
        lambda start: [
            str(start.programs / "gunicorn"), "-k", "gthread", "--threads", "32", "-w", "1", "-t", "180",
            "-b", f"127.0.0.1:{start.port}", "flask_server:app",
        ],
        Environment("flask", ("flask==3.1.3", "gunicorn==27.0.1")), "flask_server.py", "predict",
    ),
    Peer(
        "fastapi", PLAIN,
        lambda start: [str(start.programs / "uvicorn"), "fastapi_server:app", "--port", str(start.port), *_UVICORN],
        Environment("fastapi", ("fastapi==0.165.0", "uvicorn[standard]==0.54.0")), "fastapi_server.py", "call",
    ),
    Peer(
        "litserve", BASE64, _script("litserve_server.py"),
        Environment("litserve", ("litserve==0.2.19",)), "litserve_server.py", "predict_on_batch", apart=True,
    ),
    Peer(
        "bentoml", MULTIPART,
        lambda start: [
            str(start.programs / "bentoml"), "serve", "bentoml_server:KerasModels", "--host", "127.0.0.1",
            "--port", str(start.port), "--working-dir", str(FOLDER),
        ],
        Environment("bentoml", ("bentoml==1.4.39",)), "bentoml_server.py", "predict_on_batch",
    ),
    Peer(
        "mlserver", V2_JSON, _mlserver,
        Environment("mlserver", ("mlserver==1.7.1",)), "mlserver_runtime.py", "predict_on_batch",
    ),
    Peer(
        "ray", PLAIN, _script("ray_server.py"),
        Environment("ray", ("ray[serve]==2.60.0",)), "ray_server.py", "predict_on_batch",
    ),
    Peer(
        "mosec", PLAIN, _script("mosec_server.py"),
        Environment("mosec", ("mosec==0.9.8",)), "mosec_server.py", "predict_on_batch",
    ),
    Peer(
        "pytriton", V2_BINARY, _script("pytriton_server.py"),
        Environment("pytriton", ("nvidia-pytriton==0.7.0",), "/usr/bin/python3.11"),
        "pytriton_server.py", "predict_on_batch",
    ),
)  # fmt: skip

NOOP = Peer("no-op", PLAIN, lambda start: bare_command(start.port), real=False)
_OURS = (
    _layertap("layertap"),
    _layertap("layertap-tensorflow", engine="tensorflow"),
    _layertap("layertap-bfloat16", precision="bfloat16"),
)
DEFAULT = (NOOP.name, *(ours.name for ours in _OURS), *(peer.name for peer in _PEERS), f"mosec{COMPILED}")

ONCE = ("layertap-tensorflow", f"mosec{COMPILED}")  # rows that no goal compares with


def find_peer(name: str) -> Peer:
    """A server by name; `NAME+compiled` is the peer with our compiled function in it.

    Raises:
        KeyError: there is none.
    """
    known = {peer.name: peer for peer in (NOOP, *_OURS, *_PEERS)}
    base = name.removesuffix(COMPILED)
    peer = known[base]
    if name == base:
        return peer
    if peer.module is None:
        raise KeyError(name)
    return dataclasses.replace(peer, name=name, call="compiled")
