"""Every file of the corpus computes what its writer computed: whole, and as weights beside their architecture.

`tests/corpus/README.md` tells who wrote the files. Each comes with inputs and the writer's own outputs.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from service.errors import LoadError
from service.loading.loader import load
from service.model_config import ModelConfig
from service.surgery.cut import cut, describe

pytestmark = pytest.mark.usefixtures("looked_through_here")

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = sorted(path.with_suffix("") for path in CORPUS.glob("*/*.npz"))
TOLERANCE = 1e-5  # of the largest number of an output
ALONE = ModelConfig(loader="keras3")  # no other library may step in
OBJECTS = """
import keras

class Scale(keras.layers.Layer):
    def __init__(self, factor=1.5, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.g = self.add_weight(shape=(input_shape[-1],), name="g")

    def call(self, inputs):
        return inputs * self.g * self.factor
"""
LAMBDAS = {"keras": "lambda t: t * 2 + 1", "tfkeras": "lambda t: t * 2"}


@dataclass(frozen=True)
class Sample:
    """One model of the corpus: where its files begin, its inputs and its writer's outputs."""

    stem: Path
    inputs: list
    outputs: list

    def file(self, ending):
        return self.stem.with_name(self.stem.name + ending)


@cache
def sample(stem):
    with np.load(f"{stem}.npz") as arrays:
        found = {
            kind: [arrays[f"{kind}{place}"] for place in range(sum(name[0] == kind for name in arrays))]
            for kind in "xy"
        }
    return Sample(stem, found["x"], found["y"])


@pytest.fixture(params=FILES, ids=[f"{path.parent.name}/{path.name}" for path in FILES])
def old(request):
    return sample(request.param)


@pytest.fixture
def object_files(old, tmp_path):
    """A custom_objects.py with what the corpus' own classes and functions need."""
    code = OBJECTS
    if is_lambda(old):
        code += f"\nCUSTOM_OBJECTS = {{name: {LAMBDAS[old.stem.parent.name]} for name in {lambda_names(old)!r}}}\n"
        code += "CUSTOM_OBJECTS['Scale'] = Scale\n"
    path = tmp_path / "custom_objects.py"
    path.write_text(code)
    return [] if "crf" in old.stem.name else [path]


def is_lambda(old):
    return "lam" in old.stem.name.split("_")[-1]


def lambda_names(old):
    """The names of the Lambda layers in a file's architecture."""
    text = old.file(".json").read_text()
    return [name for name in ("lam", "lambda", "lambda_1", "lambda_2") if f'"{name}"' in text]


def largest_difference(model, old):
    given = model(old.inputs if len(old.inputs) > 1 else old.inputs[0], training=False)
    found = [np.asarray(tensor, "float64") for tensor in keras.tree.flatten(given)]
    assert [array.shape for array in found] == [array.shape for array in old.outputs]
    pairs = zip(found, old.outputs, strict=True)
    return max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs)


def test_a_whole_file_computes_what_its_writer_did(old, object_files):
    loaded = load(old.file(".h5"), ALONE, object_files)
    assert largest_difference(loaded.model, old) < TOLERANCE


def test_weights_alone_with_their_architecture_compute_the_same(old, object_files):
    config = ModelConfig(loader="keras3", architecture=old.file(".json").name)
    loaded = load(old.file("_w.h5"), config, object_files)
    assert largest_difference(loaded.model, old) < TOLERANCE


@pytest.mark.parametrize(
    "old", [path for path in FILES if "lam" in path.name.split("_")[-1]], indirect=True, ids=str
)
def test_stored_code_does_not_run_unasked(old):
    with pytest.raises(LoadError, match="Python code"):
        load(old.file(".h5"), ALONE)


ONE_OF_A_KIND = [  # each kind of layer and of nesting once, by the oldest file that has it
    *["keras/1.0.8_act_layers", "keras/1.0.8_bi_td", "keras/1.0.8_convmisc", "keras/1.0.8_highway"],
    *["keras/1.0.8_mask_td", "keras/1.0.8_multi_io", "keras/1.1.2_local", "keras/1.1.2_seq_merge"],
    *["keras/1.2.2_convlstm", "keras/1.2.2_deconv", "keras/1.2.2_nested", "keras/1.2.2_siamese"],
    *["keras/1.2.2_th_cnn", "keras/2.0.8_seq2seq", "keras/2.0.8_seq_gru", "tfkeras/cudnn_rnn"],
    *[
        "tfkeras/dict_out",
        "tfkeras/lstm_time_major",
        "tfkeras/mha",
        "tfkeras/nested_multi",
        "tfkeras/shared3",
    ],
    *["tfkeras/td_model", "tfkeras/tfop_arith"],
]


@pytest.mark.parametrize("old", [CORPUS / name for name in ONE_OF_A_KIND], indirect=True, ids=ONE_OF_A_KIND)
def test_every_layer_inside_can_be_asked_for(old, object_files):
    model = load(old.file(".h5"), ALONE, object_files).model
    spec = describe(model)
    paths = tuple(
        dict.fromkeys([layer.path for layer in spec.layers] + [output.path for output in spec.outputs])
    )
    tensors = cut(model, paths)([keras.ops.convert_to_tensor(array) for array in inputs_of(model, old)])
    found = dict(zip(paths, map(np.asarray, tensors), strict=True))
    assert all(np.isfinite(array).all() for array in found.values())
    for output, theirs in zip(spec.outputs, old.outputs, strict=True):
        ours = found[output.path]
        assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def inputs_of(model, old):
    return [array.astype(tensor.dtype) for tensor, array in zip(model.inputs, old.inputs, strict=True)]


@pytest.mark.parametrize(
    "name",
    [
        "keras/1.2.2_fun_cnn",
        "keras/2.0.8_multi_io",
        "keras/2.2.4_seq_cnn",
        "tfkeras/loss_obj",
        "tfkeras/mse_str",
    ],
)
def test_old_losses_and_optimisers_compile_where_asked_for(name):
    loaded = load(CORPUS / f"{name}.h5", ModelConfig(loader="keras3", compile=True))
    assert loaded.compiled
    assert loaded.model.optimizer is not None
