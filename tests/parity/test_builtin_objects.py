"""The package's own metrics, losses and layers, each against its formula written again in numpy."""

import json

import h5py
import keras
import numpy as np
import pytest

from service.loading.builtin_objects import builtin_objects

EPSILON = keras.config.epsilon()
OBJECTS = builtin_objects()


def counts(y_true, y_pred):
    actual, predicted = np.round(np.clip(y_true, 0, 1)), np.round(np.clip(y_pred, 0, 1))
    pairs = [(1, 1), (0, 0), (0, 1), (1, 0)]  # tp, tn, fp, fn
    return [float(np.sum((actual == a) & (predicted == p))) for a, p in pairs]


def numpy_mcor(y_true, y_pred):
    tp, tn, fp, fn = counts(y_true, y_pred)
    return (tp * tn - fp * fn) / (np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) + EPSILON)


def numpy_precision(y_true, y_pred):
    tp, _, fp, _ = counts(y_true, y_pred)
    return tp / (tp + fp + EPSILON)


def numpy_recall(y_true, y_pred):
    tp, _, _, fn = counts(y_true, y_pred)
    return tp / (tp + fn + EPSILON)


def numpy_f1(y_true, y_pred, epsilon=0.0):
    p, r = numpy_precision(y_true, y_pred), numpy_recall(y_true, y_pred)
    return 2 * (p * r) / (p + r + epsilon)


def numpy_dice(y_true, y_pred):
    return (2 * np.sum(y_true * y_pred) + 1) / (np.sum(y_true) + np.sum(y_pred) + 1)


def numpy_iou(y_true, y_pred):
    overlap = np.sum(y_true * y_pred)
    return (overlap + 1) / (np.sum(y_true) + np.sum(y_pred) - overlap + 1)


def numpy_determination(y_true, y_pred):
    return 1 - np.sum((y_true - y_pred) ** 2) / (np.sum((y_true - y_true.mean()) ** 2) + EPSILON)


def numpy_focal(y_true, y_pred):
    positive = -0.25 * (1 - y_pred) ** 2 * np.log(y_pred)
    negative = -0.75 * y_pred**2 * np.log(1 - y_pred)
    return np.mean(np.where(y_true == 1, positive, negative))


FORMULAS = {
    "mcor": numpy_mcor,
    "precision": numpy_precision,
    "recall": numpy_recall,
    "f1": numpy_f1,
    "f1_m": lambda t, p: numpy_f1(t, p, EPSILON),
    "dice_coef": numpy_dice,
    "dice_loss": lambda t, p: 1 - numpy_dice(t, p),
    "iou_coef": numpy_iou,
    "rmse": lambda t, p: np.sqrt(np.mean((t - p) ** 2)),
    "coeff_determination": numpy_determination,
    "binary_focal_loss": numpy_focal,
}
ALIASES = {
    "precision_m": "precision",
    "recall_m": "recall",
    "root_mean_squared_error": "rmse",
    "jaccard_coef": "iou_coef",
    "dice_coef_loss": "dice_loss",
    "L2Norm": "L2Normalization",
}
LAYERS = {
    "L2Normalization",
    "Scale",
    "InstanceNormalization",
    "FixedDropout",
    "CRF",
}  # test_crf.py tests the last


@pytest.fixture
def labelled():
    """One-hot labels of 5 classes and probabilities that are right more often than not."""
    random = np.random.default_rng(3)
    y_true = np.eye(5)[random.integers(5, size=64)]
    scores = np.exp(3 * y_true + random.normal(size=y_true.shape))
    return y_true, scores / scores.sum(axis=1, keepdims=True)


def test_everything_registered_is_tested_here():
    assert set(OBJECTS) == {*FORMULAS, *ALIASES, *LAYERS}


def test_each_call_gives_a_dict_of_its_own():
    builtin_objects().clear()
    assert builtin_objects() == OBJECTS


@pytest.mark.parametrize("name", FORMULAS)
def test_function_equals_its_formula(name, labelled):
    y_true, y_pred = labelled
    result = float(OBJECTS[name](y_true.astype("float32"), y_pred.astype("float32")))
    assert result == pytest.approx(FORMULAS[name](y_true, y_pred), rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", ["int32", "bool", "float64"])
def test_labels_may_have_any_number_type(name, dtype, labelled):
    y_true, y_pred = labelled
    y_pred = y_pred.astype("float32")
    expected = float(OBJECTS[name](y_true.astype("float32"), y_pred))
    assert float(OBJECTS[name](y_true.astype(dtype), y_pred)) == expected


@pytest.mark.parametrize("alias", ALIASES)
def test_alias_is_the_same_object(alias):
    assert OBJECTS[alias] is OBJECTS[ALIASES[alias]]


def test_a_perfect_prediction_scores_one():
    labels = np.eye(4, dtype="float32")
    for name in ("mcor", "precision", "recall", "f1", "dice_coef", "iou_coef", "coeff_determination"):
        assert float(OBJECTS[name](labels, labels)) == pytest.approx(1.0, abs=1e-6)


def test_f1_without_any_positive_is_nan_as_in_the_notes_and_f1_m_is_zero():
    nothing = np.zeros((4, 2), dtype="float32")
    assert np.isnan(float(OBJECTS["f1"](nothing, nothing)))
    assert float(OBJECTS["f1_m"](nothing, nothing)) == 0.0


def test_focal_loss_of_certain_mistakes_is_finite():
    right = np.array([[0.0, 1.0]], dtype="float32")
    assert np.isfinite(float(OBJECTS["binary_focal_loss"](right, 1 - right)))


def numpy_unit(x, axis):
    return x / np.sqrt(np.sum(x**2, axis=axis, keepdims=True))


def numpy_instance(x, axes, gamma, beta):
    deviation = np.std(x, axis=axes, keepdims=True) + 1e-3
    return (x - np.mean(x, axis=axes, keepdims=True)) / deviation * gamma + beta


GAMMA, BETA = np.array([2.0, -1.0, 0.5]), np.array([0.1, 0.2, -0.3])
PER_SECOND_AXIS = (slice(None), np.newaxis, np.newaxis)
LAYER_CASES = {
    "unit rows": ("L2Normalization", {}, [], lambda x: numpy_unit(x, -1)),
    "unit along another axis": ("L2Normalization", {"axis": 1}, [], lambda x: numpy_unit(x, 1)),
    "unit rows with SSD's gain": (
        "L2Normalization",
        {"gamma_init": 20},
        [GAMMA],
        lambda x: numpy_unit(x, -1) * GAMMA,
    ),
    "scale": ("Scale", {}, [GAMMA, BETA], lambda x: x * GAMMA + BETA),
    "scale of the second axis": (
        "Scale",
        {"axis": 1},
        [GAMMA, BETA],
        lambda x: x * GAMMA[PER_SECOND_AXIS] + BETA[PER_SECOND_AXIS],
    ),
    "instances by channel": (
        "InstanceNormalization",
        {"axis": -1},
        [GAMMA, BETA],
        lambda x: numpy_instance(x, (1, 2), GAMMA, BETA),
    ),
    "instances by the second axis": (
        "InstanceNormalization",
        {"axis": 1},
        [GAMMA, BETA],
        lambda x: numpy_instance(x, (2, 3), GAMMA[PER_SECOND_AXIS], BETA[PER_SECOND_AXIS]),
    ),
    "instances as a whole": (
        "InstanceNormalization",
        {},
        [GAMMA[:1], BETA[:1]],
        lambda x: numpy_instance(x, (1, 2, 3), GAMMA[0], BETA[0]),
    ),
    "instances without weights": (
        "InstanceNormalization",
        {"axis": -1, "center": False, "scale": False},
        [],
        lambda x: numpy_instance(x, (1, 2), 1.0, 0.0),
    ),
    "dropout": ("FixedDropout", {"rate": 0.5, "noise_shape": (None, 1, 1, 3)}, [], lambda x: x),
}


@pytest.mark.parametrize("case", LAYER_CASES)
def test_layer_equals_its_formula_also_from_a_file(case, tmp_path):
    name, arguments, weights, formula = LAYER_CASES[case]
    rows = np.random.default_rng(5).normal(size=(4, 3, 3, 3)).astype("float32")
    image = keras.Input((3, 3, 3))
    model = keras.Model(image, OBJECTS[name](name="own", **arguments)(image))
    model.get_layer("own").set_weights(weights)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5", compile=False, custom_objects=builtin_objects())
    for served in (model, loaded):
        result = np.asarray(served(rows, training=False))
        np.testing.assert_allclose(result, formula(rows.astype("float64")), rtol=1e-5, atol=1e-5)
    assert loaded.get_layer("own").get_config() == model.get_layer("own").get_config()


def test_a_row_of_zeros_has_no_direction_and_stays_zero():
    zeros = np.zeros((1, 4), dtype="float32")
    np.testing.assert_array_equal(np.asarray(OBJECTS["L2Normalization"]()(zeros)), zeros)


def test_instance_normalisation_takes_the_training_settings_that_its_files_store():
    stored = {"axis": 3, "epsilon": 0.001, "center": True, "scale": True}
    for weight, start in (("beta", "Zeros"), ("gamma", "Ones")):
        stored[f"{weight}_initializer"] = {"class_name": start, "config": {}}
        stored[f"{weight}_regularizer"] = stored[f"{weight}_constraint"] = None
    layer = OBJECTS["InstanceNormalization"].from_config({**stored, "name": "own", "trainable": True})
    assert (layer.axis, layer.epsilon, layer.name) == (3, 0.001, "own")


def test_a_file_compiled_with_the_functions_evaluates_to_the_same_numbers(tmp_path, labelled):
    y_true, rows = labelled
    names = ["mcor", "precision", "recall", "f1", "dice_coef", "rmse"]
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, activation="softmax")])
    model.compile("sgd", OBJECTS["dice_loss"], metrics=[OBJECTS[name] for name in names])
    expected = model.evaluate(rows, y_true, verbose=0, return_dict=True)
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert json.loads(file.attrs["training_config"])["metrics"] == names
    loaded = keras.models.load_model(tmp_path / "model.h5", compile=True, custom_objects=builtin_objects())
    assert loaded.evaluate(rows, y_true, verbose=0, return_dict=True) == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )
