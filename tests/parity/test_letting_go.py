"""What an unloaded Keras model held is freed: the model, its variables and its compiled functions."""

import shutil
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from service.errors import ModelUnloaded
from service.repository import scan
from service.scheduling.scheduler import Scheduler
from service.serving.opening import open_model
from service.serving.runtime import Runtime, RuntimeOptions
from service.tensors import InferRequest


@pytest.fixture
def shipped_folder(tmp_path):
    shutil.copytree(Path(__file__).parents[2] / "models" / "iris", tmp_path / "iris")
    return tmp_path


def test_an_unloaded_keras_model_leaves_nothing_behind_and_comes_back(shipped_folder):
    held = []

    def opened(entry, version):
        made = open_model(
            entry, version, buckets_to=None, tolerance=1e-4, on_trace=lambda: None, on_padding=lambda _: None
        )
        model = made.engine._model
        held.extend(weakref.ref(thing) for thing in (made.engine, model, *model.layers, *model.variables))
        return made

    scheduler = Scheduler(max_queue_rows=100)
    runtime = Runtime(
        partial(scan, shipped_folder), opened, scheduler, RuntimeOptions(None, 8, 4, 30.0, 600.0)
    )
    scheduler.start()
    runtime.load()
    served = runtime.resolve("iris")
    hidden = served.spec.layers[1].path
    row = {served.spec.inputs[0].name: np.ones((1, 4), np.float32)}
    asked = [InferRequest("iris", 1, paths, row, 1) for paths in ((served.spec.outputs[0].path,), (hidden,))]
    before = [runtime.infer(request).outputs for request in asked]
    assert len(held) == 5  # engine, model, layer, kernel, bias
    assert all(reference() is not None for reference in held)

    runtime.unload_model("iris")
    assert [reference() for reference in held if reference() is not None] == []
    with pytest.raises(ModelUnloaded):
        runtime.infer(asked[0])

    runtime.load_model("iris")
    again = [runtime.infer(request).outputs for request in asked]
    for old, new in zip(before, again, strict=True):
        for path, array in old.items():
            np.testing.assert_array_equal(new[path], array)
    runtime.stop()
