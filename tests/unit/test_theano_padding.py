"""Convolutions that Theano trained: refused where TensorFlow would pad them at other sides."""

import pytest

from service.errors import LoadError
from service.loading.theano_padding import refuse_theano_padding


def model(**config):
    layer = {"class_name": "Conv2D", "config": {"name": "conv", **config}}
    return {"class_name": "Sequential", "config": {"layers": [layer]}}


@pytest.mark.parametrize(("kernel", "strides"), [([2, 2], [1, 1]), ([3, 4], [1, 1]), ([3, 3], [2, 2])])
def test_other_padding_is_refused(kernel, strides):
    with pytest.raises(LoadError, match=r"'conv' .* which TensorFlow pads at other sides"):
        refuse_theano_padding(model(padding="same", kernel_size=kernel, strides=strides))


@pytest.mark.parametrize(
    ("padding", "kernel", "strides"),
    [("valid", [2, 2], [2, 2]), ("same", [3, 5], [1, 1]), ("same", [1, 1], [2, 2])],
)
def test_the_same_padding_passes(padding, kernel, strides):
    refuse_theano_padding(model(padding=padding, kernel_size=kernel, strides=strides))
