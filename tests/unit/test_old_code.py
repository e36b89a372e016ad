"""Lines of old Keras are found in the operator's files, with what Keras 3 needs instead."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LoadError
from service.loading.old_code import find_old_lines, old_lines
from service.loading.python_files import run_file

BACKEND = "from keras import backend as K\n"


def found(source):
    return {line.number: line.new for line in find_old_lines(textwrap.dedent(source))}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("K.round(K.clip(y, 0, 1))", "keras.ops.round(keras.ops.clip(y, 0, 1))"),
        ("K.sum(y, axis=-1, keepdims=True)", "keras.ops.sum(y, axis=-1, keepdims=True)"),
        ("K.dot(x, w)", "keras.ops.dot(x, w)"),
        ("K.concatenate([a, b])", "keras.ops.concatenate([a, b], axis=-1)"),
        ("K.concatenate([a, b], axis=1)", "keras.ops.concatenate([a, b], axis=1)"),
        ("K.expand_dims(x)", "keras.ops.expand_dims(x, axis=-1)"),
        ("K.expand_dims(x, 1)", "keras.ops.expand_dims(x, 1)"),
        ("K.argmax(x)", "keras.ops.argmax(x, axis=-1)"),
        ("K.gather(table, rows)", "keras.ops.take(table, rows, axis=0)"),
        ("K.permute_dimensions(x, (0, 2, 1))", "keras.ops.transpose(x, (0, 2, 1))"),
        ("K.int_shape(x)[1]", "x.shape[1]"),
        ("K.ndim(x)", "len(x.shape)"),
        ("K.batch_flatten(x)", "keras.ops.reshape(x, (keras.ops.shape(x)[0], -1))"),
        ("K.hard_sigmoid(x + 1)", "keras.ops.clip(0.2 * (x + 1) + 0.5, 0, 1)"),
        ("K.in_train_phase(a, b)", "a if training else b"),
        ("K.variable(value, name='w')", "keras.Variable(value, name='w')"),
    ],
)
def test_backend_functions_have_a_place_in_keras_3(old, new):
    assert found(BACKEND + f"z = {old}") == {1: "import keras", 2: f"z = {new}"}


def test_what_the_backend_still_has_stays():
    assert found(BACKEND + "e = K.epsilon()\nf = K.floatx()") == {}
    assert found(BACKEND + "e = K.epsilon() + K.abs(x)") == {
        1: "import keras; from keras import backend as K",
        2: "e = K.epsilon() + keras.ops.abs(x)",
    }
    assert found("import keras.backend as K\ny = K.abs(K.epsilon())") == {
        1: "import keras; import keras.backend as K",
        2: "y = keras.ops.abs(K.epsilon())",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from keras.engine.topology import Layer, InputSpec", "from keras.layers import Layer, InputSpec"),
        ("from keras.engine import Layer", "from keras.layers import Layer"),
        ("from keras.layers.recurrent import LSTM", "from keras.layers import LSTM"),
        ("from keras import initializations", "from keras import initializers"),
        ("from keras.utils.np_utils import to_categorical", "from keras.utils import to_categorical"),
        ("from tensorflow.python.keras.layers import Layer", "from keras.layers import Layer"),
        ("import tensorflow as tf\ny = tf.log(x)", "y = tf.math.log(x)"),
        ("import tensorflow as tf\ny = tf.to_float(x)", "y = tf.cast(x, 'float32')"),
        ("from keras.layers import Dense\nd = Dense(output_dim=3, init='uniform')", None),
        ("self.trainable_weights = [self.W]", "(delete it: add_weight registers weights by itself)"),
        ("self.W = self.add_weight('W', (3,), initializer='zeros')", None),
        ("self.W = self.init((3, 4), name='W')", None),
        ("class A(B):\n    def get_output_shape_for(self, shape): pass", None),
    ],
)
def test_imports_layers_and_tensorflow_names(old, new):
    told = {
        "from keras.layers import Dense\nd = Dense(output_dim=3, init='uniform')": (
            "d = Dense(units=3, kernel_initializer='uniform')"
        ),
        "self.W = self.add_weight('W', (3,), initializer='zeros')": (
            "self.W = self.add_weight(name='W', shape=(3,), initializer='zeros')"
        ),
        "self.W = self.init((3, 4), name='W')": (
            "self.W = self.add_weight(shape=(3, 4), initializer=self.init, name='W')"
        ),
        "class A(B):\n    def get_output_shape_for(self, shape): pass": (
            "def compute_output_shape(self, shape):"
        ),
    }
    assert list(found(old).values()) == [new or told[old]]


def test_code_of_today_has_no_old_lines():
    today = """
        import keras
        import tensorflow as tf
        from keras.layers import Dense, Embedding, Layer

        class Mine(Layer):
            def build(self, shape):
                self.w = self.add_weight(shape=(3,), initializer="zeros", name="w")
                self.v = self.add_weight((3,), "zeros")
                self.e = Embedding(5, output_dim=4)

            def call(self, x, training=None):
                if training:
                    return keras.ops.round(tf.math.log(x))
                return Dense(3, kernel_initializer="zeros")(x)

            def compute_output_shape(self, shape):
                return shape
    """
    assert found(today) == {}


def test_lines_inside_blocks_are_told_by_their_own_number():
    source = """
        from keras import backend as K
        def call(x):
            try:
                with scope:
                    if K.ndim(x) > 2:
                        return K.abs(x)
            except ValueError:
                x = K.exp(x)
    """
    assert found(source) == {
        2: "import keras",
        6: "if len(x.shape) > 2:",
        7: "return keras.ops.abs(x)",
        9: "x = keras.ops.exp(x)",
    }


@given(st.text())
def test_no_text_raises(source):
    find_old_lines(source)


def test_a_file_that_does_not_run_is_told_with_the_lines_to_change(tmp_path):
    path = tmp_path / "custom_objects.py"
    path.write_text("from gone.engine import Layer\n")
    with pytest.raises(LoadError) as caught:
        run_file(path)
    assert "shows where it fails" in caught.value.mend
    path.write_text("import gone\nfrom keras.layers.core import Layer\n")
    with pytest.raises(LoadError) as caught:
        run_file(path)
    assert "line 2: from keras.layers.core import Layer" in caught.value.mend
    assert "write: from keras.layers import Layer" in caught.value.mend
    assert old_lines(tmp_path / "absent.py") == ""
