import pytest

from service.errors import RepositoryError
from service.model_config import ModelConfig, PreprocessConfig, read_model_config


def read(tmp_path, text):
    path = tmp_path / "model.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_model_config(path)


def test_no_file_gives_the_defaults(tmp_path):
    assert read_model_config(tmp_path / "model.toml") == ModelConfig()


def test_every_documented_line_is_read(tmp_path):
    config = read(
        tmp_path,
        """
        default_layer = "pool"
        warm_layers = ["pool", "flatten"]
        layers = "listed"
        versions = "all"
        max_batch_size = 8
        classes = ["zero", "one"]
        custom_objects = ["a.py", "b.py"]
        compile = true
        architecture = "builder:get_model"
        allow_lambda = "sha256:00"
        [preprocess]
        color_mode = "rgb"
        interpolation = "bilinear"
        resize = "crop"
        decode = "fast"
        exif_orientation = true
        mode = "tf"
        rescale = 0.5
        samplewise_center = true
        samplewise_std_normalization = true
        featurewise_mean = [1, 2.5, 3]
        featurewise_std = 2
        """,
    )
    assert config == ModelConfig(
        default_layer="pool",
        warm_layers=("pool", "flatten"),
        layers="listed",
        versions="all",
        max_batch_size=8,
        classes=("zero", "one"),
        custom_objects=("a.py", "b.py"),
        compile=True,
        architecture="builder:get_model",
        allow_lambda="sha256:00",
        preprocess=PreprocessConfig(
            color_mode="rgb",
            interpolation="bilinear",
            resize="crop",
            decode="fast",
            exif_orientation=True,
            mode="tf",
            rescale=0.5,
            samplewise_center=True,
            samplewise_std_normalization=True,
            featurewise_mean=(1.0, 2.5, 3.0),
            featurewise_std=(2.0,),
        ),
    )


def test_a_file_of_classes_stays_a_file_name(tmp_path):
    assert read(tmp_path, 'classes = "classes.txt"').classes == "classes.txt"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default_layer =", "Expected TOML"),
        (b"\xff\xfe", "Expected TOML"),
        ("defualt_layer = 'x'", "Did you mean 'default_layer'?"),
        ("[preproces]", "Did you mean 'preprocess'?"),
        ("[preprocess]\nrescal = 1", "Did you mean 'rescale'?"),
        ("[preprocess]\nrescale = nan", "a number"),
        ("[preprocess]\nmode = 'keras'", "none, tf, torch, caffe"),
        ("preprocess = 1", "a table"),
        ("classes = [1]", "text"),
        ("max_batch_size = 0", "from 1 to"),
        ("compile = 1", "true or false"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path, text, said):
    with pytest.raises(RepositoryError) as caught:
        read(tmp_path, text)
    assert said in caught.value.message
    assert "model.toml" in caught.value.message
