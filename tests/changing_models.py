"""Owns a runtime over a folder of toy models that a test changes while they are served."""

import sys
import weakref

import numpy as np
from numpy_engine import NumpyEngine, graph_of

from service.errors import LoadError
from service.repository import scan
from service.scheduling.scheduler import Scheduler
from service.serving.runtime import Runtime, RuntimeOptions
from service.serving.served import OpenedModel
from service.tensors import InferRequest

WITHIN_S = 30.0  # nothing here takes a second; what takes this long hangs
ROW = {"x": np.ones((1, 4), np.float32)}


class Site:
    """A runtime over a folder whose files hold the scale of a model's answers, or the word `broken`."""

    def __init__(self, folder, request_timeout_s, load_timeout_s):
        self.folder = folder
        self.opened = []
        self.exits = ()  # the models whose code ends its thread
        self.engines = []
        self.states = []
        self.before_open = lambda: None
        self.before_run = lambda: None
        self.before_compile = lambda: None
        self.scheduler = Scheduler(max_queue_rows=100)
        self.runtime = Runtime(
            lambda: scan(folder),
            self.open,
            self.scheduler,
            RuntimeOptions(None, 8, 4, request_timeout_s, load_timeout_s),
            lambda status: self.states.append((status.name, status.state, sorted(status.versions))),
        )
        self.scheduler.start()

    def open(self, entry, version):
        self.before_open()
        if entry.name in self.exits:
            sys.exit(3)
        text = version.path.read_text()
        self.opened.append((entry.name, version.number, text))
        if text == "broken":
            raise LoadError("Expected an HDF5 file. Received: something else.", mend="Save it again.")
        if text == "defect":
            raise RuntimeError("a defect")
        engine = NumpyEngine(graph_of("iris"), self._about_to_run, self._about_to_compile)
        self.engines.append(weakref.ref(engine))
        return OpenedModel(Scaled(engine, float(text)), {"file_bytes": len(text)})

    def _about_to_run(self):
        self.before_run()

    def _about_to_compile(self, _):
        self.before_compile()

    def ask(self, name="iris", version=None, served=None):
        served = served or self.runtime.resolve(name, version)
        request = InferRequest(served.name, served.version, ("probs",), ROW, 1, served=served)
        return float(self.runtime.infer(request).outputs["probs"].sum().round(3))

    def index(self, **options):
        return [(line.name, line.version, line.state, line.reason) for line in self.runtime.index(**options)]


class Scaled:
    """The numpy engine, its answers multiplied: what answered can be told from the answer."""

    name = "numpy"
    activations = None

    def __init__(self, engine, scale):
        self.spec = engine.spec
        self._engine = engine
        self._scale = scale

    def compile(self, outputs):
        return _ScaledFunction(self._engine.compile(outputs), self._scale, self)


class _ScaledFunction:
    def __init__(self, function, scale, engine):
        self._function = function
        self._scale = scale
        self._circle = engine, self  # as Keras' objects: only the garbage collector frees them

    def run(self, batch):
        return {path: array * self._scale for path, array in self._function.run(batch).items()}


def make_site(folder, files, request_timeout_s=WITHIN_S, load_timeout_s=WITHIN_S, exits=()):
    for path, text in files.items():
        put(folder, path, text)
    site = Site(folder, request_timeout_s, load_timeout_s)
    site.exits = exits
    site.runtime.load()
    return site


def put(folder, path, text):
    """A file that is replaced at once, as a careful copy does it."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(target)
