"""How gunicorn runs the service: `gunicorn -c gunicorn.conf.py` in this folder. Numbers come from the settings."""

import ctypes
import faulthandler
import math
import os
import signal
import sys
from pathlib import Path

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from service import board
from service.drivers.arbiter import PatientArbiter
from service.errors import SettingsError
from service.settings import load_settings
from service.telemetry import logging_config

_PR_SET_PDEATHSIG = 1  # prctl(2)
_SHM = Path("/dev/shm")  # noqa: S108 gunicorn makes its file there with a random name

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up chatter
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"layertap: {error.message}")

wsgi_app = "service.wiring:asgi()"
worker_class = "service.drivers.worker.Worker"
bind = settings.bind
workers = settings.workers
preload_app = False
worker_tmp_dir = str(_SHM) if _SHM.is_dir() else None  # heartbeats stay off the disk
control_socket_disable = True  # nothing here speaks to it, and a read-only folder could not hold it
keepalive = int(settings.keep_alive_s)
graceful_timeout = math.ceil(settings.stop_timeout_s) + 1  # workers keep to it themselves
logconfig_dict = logging_config(settings.log_format, settings.max_log_bytes)


def on_starting(server: Arbiter) -> None:
    """Takes the master over, and refuses what would hang: a model built before fork leaves workers waiting forever."""
    if server.cfg.preload_app:
        sys.exit("layertap: --preload is refused: TensorFlow does not survive a fork. Start without it.")
    PatientArbiter.adopt(server)


def pre_fork(server: PatientArbiter, worker: Worker) -> None:
    """Gives a worker its place among the others."""
    worker.slot = server.board.take()


def post_fork(server: Arbiter, worker: Worker) -> None:  # noqa: ARG001 the hook's signature
    """Lets a worker that hangs say where (gunicorn ends it with SIGABRT), and none outlive its master."""
    board.attach(worker.slot)
    faulthandler.enable()
    if sys.platform == "linux":  # a worker whose master was killed must not go on holding the port
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
