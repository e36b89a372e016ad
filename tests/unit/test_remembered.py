"""What dialects remember: bounded, and never across a change of the models."""

from service.api.remembered import Remembered


def test_what_was_kept_is_found_until_other_models_are_served():
    store = Remembered()
    assert store.find("key", 1) is None
    store.keep("key", 1, "value")
    assert store.find("key", 1) == "value"
    assert store.find("other", 1) is None
    assert store.find("key", 2) is None
    assert len(store) == 0


def test_a_slow_thread_brings_no_old_value_back():
    store = Remembered()
    store.find("key", 2)
    store.keep("key", 1, "of models that are gone")
    assert store.find("key", 2) is None


def test_it_is_emptied_when_it_is_full():
    store = Remembered()
    for number in range(1025):
        store.keep(number, 0, number)
    assert len(store) == 1
    assert store.find(1024, 0) == 1024
