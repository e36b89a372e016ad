"""What is missing is told as code to fill in."""

from service.loading.stubs import FUNCTION, LAYER, OBJECT, Need, stub

WEIGHTS = {"scale_1": [("scale_1/g:0", (5,)), ("scale_1_b:0", (5, 2)), ("scale_1/0-th", ())]}


def written(needs, weights=None):
    text = stub(needs, weights or {})
    compile(text, "custom_objects.py", "exec")
    return text


def test_a_layer_has_its_arguments_weights_and_config():
    need = Need(
        "Scale", "pack>Scale", LAYER, "scale_1", {"name": "scale_1", "trainable": True, "factor": 1.5}
    )
    assert (
        written([need], WEIGHTS)
        == """\
import keras


class Scale(keras.layers.Layer):
    def __init__(self, factor=1.5, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        # what the file holds, in its order
        self.g = self.add_weight(shape=(5,), name="g")
        self.b = self.add_weight(shape=(5, 2), name="b")
        self.w_0_th = self.add_weight(shape=(), name="w_0_th")

    def call(self, inputs):
        raise NotImplementedError("what Scale computes")

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
"""
    )


def test_a_layer_without_arguments_or_weights():
    text = written([Need("Plain", "Plain", LAYER, "plain", {"name": "plain"})])
    assert "def __init__(self, **kwargs):" in text
    assert "return {**super().get_config()}" in text
    assert "build" not in text


def test_each_name_is_written_once_with_the_arguments_of_all_its_uses():
    uses = [Need("L", "L", LAYER, "a", {"x": 1}), Need("L", "L", LAYER, "b", {"x": 2, "y": None})]
    text = written(uses)
    assert text.count("class L(") == 1
    assert "x=1, y=None" in text


def test_functions_objects_and_names_that_are_no_names():
    text = written(
        [
            Need("mine", "mine", FUNCTION, "dense"),
            Need("<lambda>", "<lambda>", FUNCTION, "dense"),
            Need("Start", "Start", OBJECT, "dense", {"low": 0.5}),
        ]
    )
    assert "def mine(x):" in text
    assert "def function_lambda(x):" in text
    assert "CUSTOM_OBJECTS = {'<lambda>': function_lambda}" in text
    assert "def __init__(self, low=0.5):" in text


def test_hostile_arguments_stay_text():
    text = written(
        [
            Need(
                "L",
                "L",
                LAYER,
                "a",
                {"a b": 1, "lambda": 1, "x=1): evil(": 2, "ok": "');evil('", "long": ["x" * 100]},
            )
        ]
    )
    assert "evil(" not in text.replace('''"');evil('"''', "")
    assert "long=None" in text
