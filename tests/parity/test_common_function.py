"""One function for many wishes gives what each function by itself gives, in both engines, on the models that ship."""

from pathlib import Path

import numpy as np
import pytest

from service.engines.choice import EngineOptions
from service.repository import scan
from service.serving.opening import open_model

MODELS = Path(__file__).parents[2] / "models"
TOLERANCE = 1e-6  # of the tensor's scale: a fused operation may round another way


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
@pytest.mark.parametrize("name", ["digits", "pairs"])
def test_united_is_what_apart_is(name, engine):
    entry = next(entry for entry in scan(MODELS) if entry.name == name)
    opened = open_model(
        entry,
        entry.versions[-1],
        buckets_to=None,
        tolerance=1e-4,
        on_trace=lambda: None,
        on_padding=lambda _: None,
        engine_options=EngineOptions(engine=engine),
    ).engine
    spec = opened.spec
    hidden = [layer.path for layer in spec.layers if layer.class_name in ("Dense", "Conv2D", "Flatten")]
    paths = tuple(dict.fromkeys([*hidden, *(output.path for output in spec.outputs)]))
    assert len(paths) > 1
    random = np.random.default_rng(1)
    rows = {item.name: random.random((5, *item.row_shape), dtype=np.float32) for item in spec.inputs}
    united = opened.compile(paths).run(rows)
    assert set(united) == set(paths)
    for path in paths:
        alone = opened.compile((path,)).run(rows)[path]
        assert (united[path].shape, united[path].dtype) == (alone.shape, alone.dtype)
        assert np.abs(united[path] - alone).max() <= TOLERANCE * np.abs(alone).max()
