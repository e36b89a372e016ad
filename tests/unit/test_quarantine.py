import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from service.errors import LoadError
from service.loading.quarantine import first_look

# A small model's file with flipped bits, found by fuzzing: reading its config attribute crashes libhdf5 itself.
CRASHING = Path(__file__).parent / "damaged" / "crashes_libhdf5.h5"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "good.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        group["dense/kernel:0"] = np.ones((4, 3), "float32")
    return path


def refusal(path, **options):
    with pytest.raises(LoadError) as caught:
        first_look(path, **options)
    return caught.value


def test_a_good_file_passes(weights):
    first_look(weights)


def test_a_file_that_crashes_libhdf5_is_refused_and_the_process_lives_on(tmp_path):
    path = tmp_path / "model.h5"
    shutil.copyfile(CRASHING, path)
    error = refusal(path)
    assert "Expected an intact" in error.message
    assert error.mend


def test_a_file_that_takes_too_long_is_refused(weights):
    assert "no end" in refusal(weights, patience_s=0).message


def test_what_is_no_model_is_refused_in_the_words_of_the_reader(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"not a model")
    error = refusal(path)
    assert "Expected an intact HDF5 file" in error.message
    assert "Save the model again" in error.mend
