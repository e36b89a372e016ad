"""How gunicorn runs the service: `gunicorn -c gunicorn.conf.py` in this folder. Numbers come from the settings."""

import os
import sys

from gunicorn.arbiter import Arbiter

from service.errors import SettingsError
from service.settings import load_settings
from service.telemetry import logging_config

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up chatter
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"layertap: {error.message}")

wsgi_app = "service.wiring:asgi()"
worker_class = "uvicorn_worker.UvicornWorker"
bind = settings.bind
workers = settings.workers
preload_app = False
keepalive = 75  # seconds: longer than the load balancers in front
graceful_timeout = settings.request_timeout_ms // 1000 + 5  # a request in flight keeps its whole time
logconfig_dict = logging_config(settings.log_format)


def on_starting(server: Arbiter) -> None:
    """Refuses what would hang: a model built before fork leaves every worker waiting forever."""
    if server.cfg.preload_app:
        sys.exit("layertap: --preload is refused: TensorFlow does not survive a fork. Start without it.")
