"""What a function is held against, kept from an earlier process; and a function in reserve that nobody waits for."""

import threading

import numpy as np
import pytest
from numpy_engine import NumpyEngine, graph_of

from service.engines.expectations import expect
from service.engines.late import LateEngine
from service.engines.references import LateFunction, refer_to, refer_to_kept
from service.errors import LoadError
from service.scheduling.jobs import Deferred

IRIS = graph_of("iris")
ROWS = {"x": np.array([[1, 2, 3, 4], [4, 3, 2, 1]], "float32")}
PATIENCE_S = 30


class Opening:
    """Opens an engine when the test lets it."""

    def __init__(self, *failures):
        self.gate = threading.Event()
        self.opened = 0
        self._failures = list(failures)

    def __call__(self):
        assert self.gate.wait(PATIENCE_S)
        self.opened += 1
        if self._failures:
            raise self._failures.pop()
        return NumpyEngine(IRIS)


def test_a_function_in_reserve_is_made_by_whoever_is_asked_and_once():
    opening = Opening()
    opening.gate.set()
    function = LateFunction(LateEngine(IRIS.spec(), opening), ("probs",))
    for _ in range(3):
        with pytest.raises(Deferred) as deferred:
            function()
    assert opening.opened == 0
    made = deferred.value.make()
    expected = NumpyEngine(IRIS).compile(("probs",)).run(ROWS)
    np.testing.assert_array_equal(made(ROWS)["probs"], expected["probs"])
    np.testing.assert_array_equal(function().run(ROWS)["probs"], expected["probs"])
    assert function() is function()
    assert opening.opened == 1


def test_a_late_engine_is_opened_once_for_all_functions_and_told_of():
    opening, told = Opening(), []
    opening.gate.set()
    engine = LateEngine(IRIS.spec(), opening, lambda: told.append(1))
    assert (engine.name, opening.opened) == ("tensorflow", 0)
    engine.compile(("probs",))
    engine.compile(("hidden",))
    assert (opening.opened, told) == (1, [1])


def test_another_model_from_the_same_place_is_refused():
    engine = LateEngine(graph_of("words").spec(), lambda: NumpyEngine(IRIS))
    with pytest.raises(LoadError, match="another one from the same file"):
        engine.compile(("probs",))


def test_references_at_work_and_kept_ones_expect_the_same():
    values = NumpyEngine(IRIS).compile(("hidden", "probs")).run(ROWS)
    kept = refer_to_kept({path: expect(array) for path, array in values.items()}, NumpyEngine(IRIS))
    live = refer_to(NumpyEngine(IRIS), ROWS)
    for refer in (kept, live):
        expected = refer(("probs",)).expected
        assert list(expected) == ["probs"]
        assert expected["probs"].difference(values["probs"]) == 0
        assert expected["probs"].difference(values["probs"][::-1]) > 0.01


def test_a_layer_that_nothing_is_known_of_has_no_kept_reference():
    with pytest.raises(LoadError, match="is not known of hidden"):
        refer_to_kept({}, NumpyEngine(IRIS))(("hidden",))
