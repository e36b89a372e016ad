"""What the look into HDF5 files tells, and what it refuses."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import LoadError
from service.loading import hdf5

CONFIG = json.dumps({"class_name": "Sequential", "config": {"name": "small", "layers": []}})


def write_legacy(group, layers):
    group.attrs["layer_names"] = np.array([name.encode() for name in layers])
    group.attrs["keras_version"] = b"3.15.1"
    for name, weights in layers.items():
        inner = group.create_group(name)
        inner.attrs["weight_names"] = np.array([key.encode() for key in weights])
        for key, value in weights.items():
            inner[key] = value


def write_model(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = CONFIG
        file.attrs["keras_version"] = b"3.15.1"
        kernel = {"dense/kernel": np.arange(6.0).reshape(2, 3), "dense/bias": np.zeros(3)}
        write_legacy(file.create_group("model_weights"), {"flatten": {}, "dense": kernel})
    return path


@pytest.fixture
def model_file(tmp_path):
    return write_model(tmp_path / "model.h5")


def test_a_whole_model_is_told_with_its_weights_in_order(model_file):
    contents = hdf5.look(model_file)
    assert contents.kind == hdf5.MODEL
    assert contents.config == CONFIG
    assert contents.keras_version == "3.15.1"
    (layer,) = contents.layers
    assert layer.names == ("dense/kernel", "dense/bias")
    assert [array.shape for array in layer.arrays] == [(2, 3), (3,)]
    kernel, bias = hdf5.read(model_file, layer.arrays)
    assert kernel.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bias.tolist() == [0, 0, 0]


def test_legacy_weights_are_told_by_content(tmp_path):
    path = tmp_path / "anything.weights.h5"
    with h5py.File(path, "w") as file:
        write_legacy(file, {"dense": {"dense/kernel:0": np.ones((2, 2))}})
    contents = hdf5.look(path)
    assert contents.kind == hdf5.LEGACY_WEIGHTS
    assert contents.layers[0].arrays[0].path == "dense/dense/kernel:0"


def test_keras_3_weights_are_told_by_content(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2))
    contents = hdf5.look(path)
    assert contents.kind == hdf5.KERAS3_WEIGHTS
    assert contents.layers == ()
    assert [array.path for array in contents.arrays] == ["layers/dense/vars/0"]


def test_names_that_keras_splits_over_attributes_are_joined(tmp_path):
    path = tmp_path / "split.h5"
    with h5py.File(path, "w") as file:
        for part, name in enumerate(["first", "second"]):
            file.attrs[f"layer_names{part}"] = np.array([name.encode()])
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([b"w"])
            group["w"] = np.ones(2)
    assert [layer.name for layer in hdf5.look(path).layers] == ["first", "second"]


def soft_link(file):
    file["model_weights/dense/other"] = h5py.SoftLink("/model_weights/dense/dense/bias")


def external_link(file):
    file["model_weights/dense/other"] = h5py.ExternalLink("/etc/passwd", "/")


def virtual_dataset(file):
    layout = h5py.VirtualLayout(shape=(3,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", shape=(3,))
    file.create_virtual_dataset("virtual", layout)


def external_storage(file):
    file.create_dataset("outside", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def shape_bomb(file):
    file.create_dataset("bomb", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def group_in_itself(file):
    file["model_weights/again"] = file["model_weights"]


def texts(file):
    file["words"] = ["not", "numbers"]


def named_type(file):
    file["type"] = np.dtype("f4")


def listed_but_missing(file):
    file["model_weights"].attrs["layer_names"] = np.array([b"nowhere"])


def config_of_numbers(file):
    file.attrs["model_config"] = np.arange(3)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (soft_link, "SoftLink"),
        (external_link, "ExternalLink"),
        (virtual_dataset, "other files"),
        (external_storage, "other files"),
        (shape_bomb, "declare"),
        (group_in_itself, "holds itself"),
        (texts, "no array of numbers"),
        (named_type, "Datatype"),
        (listed_but_missing, "nowhere"),
        (config_of_numbers, "no text"),
    ],
)
def test_what_keras_never_writes_is_refused(model_file, spoil, reason):
    with h5py.File(model_file, "a") as file:
        spoil(file)
    with pytest.raises(LoadError) as caught:
        hdf5.look(model_file)
    assert reason in caught.value.message
    assert caught.value.mend


def test_a_model_without_weights_is_refused(tmp_path):
    path = tmp_path / "config.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = CONFIG
    with pytest.raises(LoadError, match="a config only"):
        hdf5.look(path)


def test_another_programs_file_is_refused_and_says_what_it_holds(tmp_path):
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file["measurements"] = np.ones(3)
    with pytest.raises(LoadError, match="measurements"):
        hdf5.look(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 no archive"])
def test_what_is_no_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="intact HDF5"):
        hdf5.look(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LoadError, match="intact HDF5"):
        hdf5.look(tmp_path / "nothing.h5")


def test_every_truncation_is_refused(model_file, tmp_path):
    data = model_file.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in range(0, len(data) - 1, 97):
        cut.write_bytes(data[:size])
        with pytest.raises(LoadError):
            hdf5.look(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_never_raise_anything_but_load_errors(model_file, tmp_path, flips):
    data = bytearray(model_file.read_bytes())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(data)
    try:
        contents = hdf5.look(damaged)
        arrays = list(hdf5.read(damaged, contents.arrays))
    except LoadError as error:
        assert error.mend  # noqa: PT017 -- damage to values alone cannot be seen and does not raise
    else:
        assert [array.shape for array in arrays] == [array.shape for array in contents.arrays]
