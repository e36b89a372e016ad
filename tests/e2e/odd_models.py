"""Models made to misbehave or to be held up, written as folders that the service can serve."""

import contextlib
import fcntl
import hashlib
import shutil

import h5py
import keras
import numpy as np
from serving import MODELS

HOLD = 7777.0  # a value that waits inside the forward pass while a `Gate` is shut
DIE = 6666.0  # a value that ends the engine thread
VOCABULARY = 10

_GATE_LAYER = """
import ctypes
import fcntl
import threading
from pathlib import Path

import keras
import tensorflow as tf

HERE = Path(__file__).parent


def end_engine():
    # TensorFlow turns what is raised in here into an error of its own; this reaches the waiting thread itself.
    for thread in threading.enumerate():
        if thread.name == "layertap-engine":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def watch(rows):
    values = rows.numpy()
    if (values == {die}).any():
        end_engine()
    if (values == {hold}).any():
        (HERE / "entered").touch()
        with (HERE / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
    return rows


class Watch(keras.layers.Layer):
    def call(self, rows):
        watched = tf.py_function(watch, [rows], rows.dtype)
        watched.set_shape(rows.shape)
        return watched

    def compute_output_shape(self, input_shape):
        return input_shape
"""

_SLOW_OBJECTS = """
import fcntl
from pathlib import Path

HERE = Path(__file__).parent
(HERE / "entered").touch()
with (HERE / "lock").open() as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
"""

_BUILDER = """
import keras


def get_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="hidden"), keras.layers.Dense(2)])
"""


class Gate:
    """Holds up whoever takes a folder's lock, and tells when somebody does.

    The lock is this process's, so that nothing stays held up when the tests end early.
    """

    def __init__(self, folder):
        self._lock = folder / "lock"
        self._entered = folder / "entered"
        self._lock.touch()

    @contextlib.contextmanager
    def shut(self):
        self._entered.unlink(missing_ok=True)
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self

    def entered(self):
        return self._entered.exists()


def write_gate(folder, engine_thread="shared"):
    """`gate`: (N, 2) -> watched (N, 2) -> twice (N, 2), the rows doubled; see HOLD and DIE.

    It shares its engine thread unless it is told otherwise, so that it can hold up others.
    """
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(f'engine_thread = "{engine_thread}"\n')
    source = _GATE_LAYER.format(hold=HOLD, die=DIE)
    (folder / "custom_objects.py").write_text(source)
    scope = {"__file__": str(folder / "custom_objects.py"), "__name__": "gate_objects"}
    exec(source, scope)  # noqa: S102 the text above
    inputs = keras.Input((2,), name="rows")
    watched = scope["Watch"](name="watched")(inputs)
    model = keras.Model(inputs, keras.layers.Rescaling(2.0, name="twice")(watched))
    _save(model, folder / "model.h5")
    return Gate(folder)


def write_slow(models):
    """Makes the load of every model in this folder wait for its gate."""
    (models / "custom_objects.py").write_text(_SLOW_OBJECTS)
    return Gate(models)


def write_words(folder):
    """`words`: ids (N, 3) below VOCABULARY -> (N, 1); returns the model."""
    ids = keras.Input((3,), name="ids", dtype="int32")
    vectors = keras.layers.Embedding(VOCABULARY, 4, name="vectors")(ids)
    score = keras.layers.Dense(1, name="score")(keras.layers.Flatten()(vectors))
    return _save(keras.Model(ids, score), folder / "model.h5")


def write_weights_only(folder):
    """Weights alone, with the builder that gives them their architecture; returns the model."""
    folder.mkdir(parents=True)
    (folder / "builder.py").write_text(_BUILDER)
    (folder / "model.toml").write_text('architecture = "builder:get_model"\n')
    scope = {}
    exec(_BUILDER, scope)  # noqa: S102 the text above
    model = scope["get_model"]()
    model.save_weights(folder / "model.weights.h5")
    return model


def write_lambda(folder, *, allowed):
    """A Lambda layer that adds 1; the operator may allow this very file to run it."""
    inputs = keras.Input((2,), name="rows")
    model = keras.Model(inputs, keras.layers.Lambda(lambda rows: rows + 1.0, name="plus_one")(inputs))
    _save(model, folder / "model.h5")
    if allowed:
        digest = hashlib.sha256((folder / "model.h5").read_bytes()).hexdigest()
        (folder / "model.toml").write_text(f'allow_lambda = "sha256:{digest}"\n')


_MATTHEWS = """
def matthews(y_true, y_pred):
    return 0.0
"""


def write_digits_with_unknown_metric(folder, *, defined):
    """The shipped digits, compiled with a metric `matthews` in place of `mcor`; its folder may define that."""
    shutil.copytree(MODELS / "digits", folder)
    with h5py.File(folder / "1" / "model.h5", "r+") as file:
        training = file.attrs["training_config"]
        assert '"mcor"' in training
        file.attrs["training_config"] = training.replace('"mcor"', '"matthews"')
    if defined:
        (folder / "custom_objects.py").write_text(_MATTHEWS)


def write_mobilenet(folder, side=96):
    """MobileNetV2 with random weights whose batch norms hold the statistics of a few batches; returns it."""
    keras.utils.set_random_seed(7)
    model = keras.applications.MobileNetV2((side, side, 3), weights=None, classes=10)
    random = np.random.default_rng(7)
    for _ in range(3):
        model(random.normal(size=(4, side, side, 3)).astype("float32"), training=True)
    return _save(model, folder / "model.h5")


def copy_shipped(name, models):
    shutil.copytree(MODELS / name, models / name)


def _save(model, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model
