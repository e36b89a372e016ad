"""One function for many wishes gives what each function by itself gives, in both engines, on the models that ship."""

from pathlib import Path

import numpy as np
import pytest
from opening import opened

MODELS = Path(__file__).parents[2] / "models"
TOLERANCE = 1e-6  # of the tensor's scale: a fused operation may round another way


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
@pytest.mark.parametrize("name", ["digits", "pairs"])
def test_united_is_what_apart_is(name, engine):
    served = opened(MODELS / name, engine=engine).engine
    spec = served.spec
    hidden = [layer.path for layer in spec.layers if layer.class_name in ("Dense", "Conv2D", "Flatten")]
    paths = tuple(dict.fromkeys([*hidden, *(output.path for output in spec.outputs)]))
    assert len(paths) > 1
    random = np.random.default_rng(1)
    rows = {item.name: random.random((5, *item.row_shape), dtype=np.float32) for item in spec.inputs}
    united = served.compile(paths).run(rows)
    assert set(united) == set(paths)
    for path in paths:
        alone = served.compile((path,)).run(rows)[path]
        assert (united[path].shape, united[path].dtype) == (alone.shape, alone.dtype)
        assert np.abs(united[path] - alone).max() <= TOLERANCE * np.abs(alone).max()
