"""Output shapes that are told without Keras; tests/parity/test_doctor.py holds them against it."""

import hostile
import pytest

from service.tools.doctor.shapes import output_shapes


def shapes(*layers, given=(8, 8, 3)):
    return list(output_shapes(hostile.sequential(hostile.input_layer(*given), *layers)).values())[1:]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (hostile.layer("Flatten"), (None, 192)),
        (
            hostile.layer("Conv2D", filters=5, kernel_size=[3, 3], strides=[2, 2], padding="same"),
            (None, 4, 4, 5),
        ),
        (hostile.layer("Conv2D", filters=5, kernel_size=[3, 3], dilation_rate=[2, 2]), (None, 4, 4, 5)),
        (hostile.layer("MaxPooling2D", pool_size=[2, 2], data_format="channels_first"), (None, 8, 4, 1)),
        (hostile.layer("GlobalAveragePooling2D"), (None, 3)),
        (hostile.layer("Reshape", target_shape=[-1, 6]), (None, 32, 6)),
        (hostile.layer("ZeroPadding2D", padding=[[1, 2], [0, 3]]), (None, 11, 11, 3)),
        (hostile.layer("UpSampling2D", size=[2, 3]), (None, 16, 24, 3)),
        (hostile.layer("Permute", dims=[3, 1, 2]), (None, 3, 8, 8)),
        (hostile.layer("Cropping2D", cropping=[[1, 2], [0, 3]]), (None, 5, 5, 3)),
    ],
)
def test_the_usual_layers(layer, expected):
    assert shapes(layer) == [expected]


@pytest.mark.parametrize(
    "layer",
    [
        hostile.layer("Mine"),
        hostile.layer("Dense", units="many"),
        hostile.layer("Conv2D", filters=5),
        hostile.layer("Reshape", target_shape=["x"]),
        hostile.layer("UpSampling2D", size=[]),
        hostile.layer("MaxPooling2D", pool_size=[0, 0], strides=[0, 0]),
    ],
)
def test_what_cannot_be_told_is_left_out(layer):
    assert shapes(layer) == []
