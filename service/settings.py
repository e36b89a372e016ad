"""Owns the service's settings: one frozen object, and the only place that reads the environment.

Sources, weakest first: the defaults below, `layertap.toml` in the working directory (or the file that
LAYERTAP_CONFIG names), `LAYERTAP_<NAME>` in the environment, flags of `python -m service serve`. `PORT`, as
container platforms set it, replaces the port of `bind`. Variables that Kubernetes makes for services are no settings,
and other variables that are none change nothing: `strange_variables` names them. The README's table is generated from
this class.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import SettingsError
from service.fields import build, nearest, setting

PREFIX = "LAYERTAP_"
CONFIG_FILE = "layertap.toml"
# Kubernetes gives every container variables about every service. For one that is called layertap, or layertap-canary,
# these are LAYERTAP_SERVICE_HOST, LAYERTAP_CANARY_PORT_80_TCP_ADDR and the like, and ..._PORT holds a URL.
# Source: `makeEnvVariableName` and `makeLinkVariables` in pkg/kubelet/envvars/envvars.go of Kubernetes.
_KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"(\w+_)?PORT")
_KUBERNETES_URL = re.compile(r"(tcp|udp|sctp)://")

_DRAIN_DELAY_S = 5.0  # until the endpoints of a Service have forgotten the container, everywhere
_KERNELS = re.compile(r"(ONEDNN|DNNL|TF_ENABLE_ONEDNN)_")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the service."""

    models_dir: str = setting("models", "folder of the models")
    default_model: str | None = setting(None, "the model that answers when a request names none")
    bind: str = setting("0.0.0.0:8080", "address and port to listen on")
    workers: int = setting(
        1, "worker processes; each holds a full copy of the models and its share of the device", low=1
    )
    engine: str = setting(
        "auto",
        "what computes; auto: OpenVINO where it is installed, no GPU is in use and it gives what Keras gives, "
        "else TensorFlow",
        choices=("auto", "tensorflow", "openvino"),
    )
    precision: str = setting(
        "float32",
        "bfloat16 trades digits for speed, with OpenVINO on processors that have instructions for it; "
        "/models says how often labels stay the same, or why float32 is given instead",
        choices=("float32", "bfloat16"),
    )
    max_batch_size: int = setting(32, "rows of the largest batch", low=1, high=65536)
    max_batch_delay_ms: float = setting(
        0.0, "how long a batch may wait for company; 0: a lone request leaves at once", low=0
    )
    batch_buckets: str = setting(
        "auto",
        "TensorFlow: pad batches to 1, 2, 4, ... rows; auto: only where the device pays for every new size (a GPU)",
        choices=("auto", "on", "off"),
    )
    max_queue_rows: int = setting(
        1024, "rows of one model that may wait before new requests for it get 429", low=1
    )
    cache_dir: str = setting(
        "~/.cache/layertap",
        "what a start worked out lies here for the next one, which then needs no TensorFlow; empty: nothing is kept",
    )
    max_cache_bytes: int = setting(
        4 * 2**30, "largest size of the cache; what was used least recently goes", low=1
    )
    max_compiled_outputs: int = setting(32, "functions kept per model for layers that were not warmed", low=1)
    max_waiting_compilations: int = setting(
        16,
        "sets of layers of one model that may wait to be compiled before requests for others get 429",
        low=1,
    )
    load_timeout_s: float = setting(
        600.0,
        "how long one version of a model may take to load; then it is reported failed, and the others go on. Its "
        "thread cannot be ended and keeps its memory until it ends by itself",
        low=0.01,
    )
    request_timeout_ms: int = setting(30_000, "a request's time; a client's timeout_ms may shorten it", low=1)
    gpu_memory_fraction: float | None = setting(
        None,
        "the service's total share of each card's memory, shared by its workers; unset: grows on demand",
        low=0.01,
        high=1.0,
    )
    gpu_allow_growth: bool | None = setting(
        None, "take GPU memory on demand; off where gpu_memory_fraction is set"
    )
    visible_gpus: tuple[int, ...] | None = setting(
        None, "indices of the cards to use; empty: none; unset: all", low=0
    )
    intra_op_threads: int | None = setting(
        None, "cores that one batch may use; unset: usable cores / workers", low=1
    )
    inter_op_threads: int | None = setting(
        None, "TensorFlow operations at a time; unset: TensorFlow's own choice", low=1
    )
    decode_threads: int | None = setting(
        None, "threads that decode images and large bodies; unset: usable cores", low=1
    )
    keep_alive_s: float = setting(
        75.0, "how long a connection may be idle; longer than the load balancers in front", low=1
    )
    header_timeout_s: float = setting(
        10.0, "how long a request's head may take, and a new connection's first request", low=0.1
    )
    body_timeout_s: float = setting(20.0, "how long nothing may come of a body that is not complete", low=0.1)
    send_timeout_s: float = setting(
        20.0, "how long a client may take nothing of a reply, before its connection is closed", low=0.1
    )
    min_rate_bytes_s: int = setting(
        1024,
        "bytes a second that a body that comes and a reply that goes must make on average, after the timeouts "
        "above; 0: any",
        low=0,
    )
    linger_timeout_s: float = setting(
        10.0,
        "how long what a refused client still sends is read and forgotten, so that it comes to read the refusal",
        low=0.1,
    )
    drain_delay_s: float | None = setting(
        None,
        "when the service is told to stop: how long it says that it is not ready before it lets nobody in any more; "
        "unset: 5 in Kubernetes, else 0",
        low=0,
    )
    stop_timeout_s: float = setting(
        28.0,
        "how long a stop may take, drain_delay_s included; what is not answered by then gets 503. A second less than "
        "what starts the service leaves it (Kubernetes: 30)",
        low=1,
    )
    max_connections: int | None = setting(
        None,
        "connections of one worker; those that are idle the longest go where there are more; unset: what the file "
        "descriptors allow, less 64, and at most 8192",
        low=1,
    )
    max_unread_bytes: int = setting(
        64 * 2**20, "how much of what a refused client still sends is read and forgotten", low=0
    )
    max_head_bytes: int = setting(
        32 * 2**10, "largest head of a request: its first line and its headers", low=16 * 2**10
    )
    max_headers: int = setting(100, "headers of one request", low=16)
    max_target_bytes: int = setting(16 * 2**10, "longest target of a request: its path and query", low=1024)
    max_body_bytes: int = setting(64 * 2**20, "largest request body", low=1)
    max_input_bytes: int = setting(
        512 * 2**20, "largest decoded input of one request: small files can hold large pictures", low=1
    )
    max_image_pixels: int = setting(64_000_000, "largest picture, in pixels", low=1)
    max_memory_bytes: int | None = setting(
        None,
        "what all requests together may hold in memory: bodies, what they unpack to, arrays, what models with free axes "
        "compute, replies until they are taken; unset: a quarter of the machine's or the container's, divided by workers",
        low=1,
    )
    max_reply_bytes: int = setting(64 * 2**20, "largest reply body", low=1)
    poll_interval_s: float = setting(
        0.0,
        "look at the models folder this often, and load what is new or changed, unload what is gone, unless all is gone at once; 0: never",
        low=0,
    )
    admin: bool = setting(False, "let clients load and unload models and list the models folder over HTTP")
    admin_key: str | None = setting(
        None,
        "what these clients must send, as Authorization: Bearer KEY or X-Admin-Key: KEY; unset: only requests from this "
        "machine to localhost, of no other page's making, are obeyed",
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        'names that a request\'s Host may have, "*.example.com" for all below; addresses and localhost always pass; '
        "empty: any",
    )
    fail_on_load_error: bool = setting(False, "stop the service when any model fails to load")
    log_format: str = setting("json", "one JSON object a line, or text", choices=("json", "text"))
    max_log_bytes: int = setting(
        4 * 2**20,
        "log lines that may wait for whoever reads the log; more of them are dropped and counted",
        low=1,
    )
    access_log: str = setting(
        "errors", "which requests are logged: off, errors (5xx) or all", choices=("off", "errors", "all")
    )

    @property
    def address(self) -> tuple[str, int]:
        """`bind` as host and port."""
        host, _, port = self.bind.rpartition(":")
        return host, int(port)


_NAMES = frozenset(field.name for field in dataclasses.fields(Settings))


def load_settings(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings in force.

    Args:
        environ: the environment; `None` takes the process's.
        flags: name -> value, from the command line.
        directory: where `layertap.toml` is looked for; `None` takes the working directory.

    Raises:
        SettingsError: an unknown key in the file, an impossible value or an unreadable file.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for source, where in (
        _from_file(environ, directory or Path.cwd()),
        (_from_environ(environ), "the environment"),
        (dict(flags or {}), "the command line"),
    ):
        build(Settings, source, where)  # each source is checked by itself, so that messages name it
        values |= source
    settings = build(Settings, values, "the settings")
    if environ.get("PORT") and "bind" not in (flags or {}):
        host, _, _ = settings.bind.rpartition(":")
        settings = dataclasses.replace(settings, bind=f"{host}:{environ['PORT']}")
    _check_stop(settings)
    _check_bind(settings.bind)
    _check_key(settings.admin_key)
    _check_hosts(settings.allowed_hosts)
    return settings


def strange_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each `LAYERTAP_` variable that is no setting; it changes nothing, and may be one misspelt.

    Args:
        environ: the environment; `None` takes the process's.
    """
    variables = _variables(os.environ if environ is None else environ)
    return [
        f"{PREFIX}{name.upper()[:80]} is no setting and changes nothing.{nearest(name, _NAMES)}"
        for name in variables
        if name not in _NAMES
    ]


def drain_delay_s(settings: Settings, environ: Mapping[str, str] | None = None) -> float:
    """The setting `drain_delay_s`, or what it is where nobody has set it.

    Args:
        settings: those in force.
        environ: the environment; `None` takes the process's.
    """
    if settings.drain_delay_s is not None:
        return settings.drain_delay_s
    environ = os.environ if environ is None else environ
    in_kubernetes = environ.get("KUBERNETES_SERVICE_HOST")  # every container there has it
    return min(_DRAIN_DELAY_S, settings.stop_timeout_s / 4) if in_kubernetes else 0.0


def kernel_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables by which oneDNN, and so OpenVINO and TensorFlow, are told which of their kernels to take.

    They are none of ours: ONEDNN_MAX_CPU_ISA holds back a processor's instructions, for example.

    Args:
        environ: the environment; `None` takes the process's.
    """
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if _KERNELS.match(name)}


def child_environ(flags: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process that shall have these flags; a flag's port replaces PORT's.

    Args:
        flags: name -> value, from the command line.
        environ: the environment to start from; `None` takes the process's.
    """
    child = dict(os.environ if environ is None else environ)
    child |= {f"{PREFIX}{name.upper()}": value for name, value in flags.items()}
    if "bind" in flags:
        child["PORT"] = flags["bind"].rpartition(":")[2]
    return child


def _from_file(environ: Mapping[str, str], directory: Path) -> tuple[dict[str, Any], str]:
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named) if named else directory / CONFIG_FILE
    if not path.is_file():
        if named:
            raise SettingsError(f"Expected a file at {PREFIX}CONFIG. Received: {named}.")
        return {}, CONFIG_FILE
    try:
        with path.open("rb") as file:
            return tomllib.load(file), str(path)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"Expected TOML in {path}. Received: {error}.") from error


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in _variables(environ).items() if name in _NAMES}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Name without prefix -> value of every variable that is meant for us, known or not."""
    variables = {}
    for key, value in environ.items():
        name = key.removeprefix(PREFIX)
        if name not in (key, "CONFIG") and not _is_of_kubernetes(name, value):
            variables[name.lower()] = value
    return variables


def _is_of_kubernetes(name: str, value: str) -> bool:
    if _KUBERNETES_PORT.fullmatch(name) and _KUBERNETES_URL.match(value):
        return True  # of a setting's name, too: a service may be called like one that ends in `_port`
    return name.lower() not in _NAMES and _KUBERNETES.fullmatch(name) is not None


def _check_stop(settings: Settings) -> None:
    if settings.drain_delay_s is not None and settings.drain_delay_s >= settings.stop_timeout_s:
        raise SettingsError(
            f"Expected 'drain_delay_s' to be less than 'stop_timeout_s', {settings.stop_timeout_s:g}. "
            f"Received: {settings.drain_delay_s:g}."
        )


def _check_bind(bind: str) -> None:
    _, separator, port = bind.rpartition(":")
    if not separator or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise SettingsError(f"Expected 'bind' as address:port, for example 0.0.0.0:8080. Received: {bind!r}.")


def _check_key(key: str | None) -> None:
    if key is not None and re.fullmatch(r"[!-~]+", key) is None:
        raise SettingsError(
            "Expected 'admin_key' to be printable ASCII without spaces, as a header can carry it. "
            f"Received: {len(key)} characters, others among them."
        )


def _check_hosts(names: tuple[str, ...]) -> None:
    for name in names:
        if re.fullmatch(r"(\*\.)?[A-Za-z0-9._-]+", name) is None:
            raise SettingsError(
                "Expected 'allowed_hosts' to hold names without scheme and port, for example models.example.com or "
                f"*.example.com. Received: {name[:80]!r}."
            )
