"""Loading, replacing and unloading while others are served: what answers, what is told, what is let go of."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from changing_models import ROW, WITHIN_S, make_site, put

from service.errors import (
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelUnloaded,
    NotReady,
    VersionNotFound,
)
from service.serving.served import IndexedVersion, State
from service.tensors import InferRequest


@pytest.fixture
def site(tmp_path):
    made = make_site(tmp_path, {"iris.h5": "1"})
    yield made
    made.runtime.stop()


def forgotten(reference):
    """Waits until an object is gone."""
    gone = threading.Event()
    if reference() is not None:
        weakref.finalize(reference(), gone.set)
    return reference() is None or gone.wait(WITHIN_S)


# -- load -------------------------------------------------------------------------------------------------


def test_a_new_model_is_loaded_while_others_answer(site):
    put(site.folder, "extra.h5", "2")
    with pytest.raises(ModelNotFound):
        site.runtime.resolve("extra")
    before = site.runtime.generation
    status = site.runtime.load_model("extra")
    assert (status.state, sorted(status.versions)) == (State.READY, [1])
    assert site.runtime.generation != before
    assert (site.ask("iris"), site.ask("extra")) == (1.0, 2.0)
    assert [model.name for model in site.runtime.models()] == ["iris", "extra"]


def test_a_replaced_file_is_swapped_in(site):
    put(site.folder, "iris.h5", "3")
    assert site.ask() == 1.0  # nothing happens by itself
    site.runtime.load_model("iris")
    assert site.ask() == 3.0


def test_files_that_are_what_they_were_are_not_read_again(site):
    served = site.runtime.resolve("iris")
    site.runtime.load_model("iris")
    assert site.runtime.resolve("iris").lanes is served.lanes
    assert site.opened == [("iris", 1, "1")]


def test_a_file_of_the_same_size_and_date_is_read_again(site):
    stat = (site.folder / "iris.h5").stat()
    put(site.folder, "iris.h5", "2")
    os.utime(site.folder / "iris.h5", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    site.runtime.load_model("iris")
    assert site.ask() == 2.0


def test_while_the_new_one_loads_the_old_one_answers(site):
    put(site.folder, "iris.h5", "2")
    inside, go_on = threading.Event(), threading.Event()

    def hold():
        inside.set()
        assert go_on.wait(WITHIN_S)

    site.before_open = hold
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(site.runtime.load_model, "iris")
        assert inside.wait(WITHIN_S)
        assert site.ask() == 1.0
        assert site.runtime.ready
        assert site.index() == [("iris", 1, "READY", "")]
        go_on.set()
        loading.result(WITHIN_S)
    assert site.ask() == 2.0


def test_a_model_that_exits_is_reported_failed_and_others_are_loaded(site, caplog):
    put(site.folder, "extra.h5", "2")
    site.exits = ["extra"]
    with pytest.raises(ModelLoadFailed, match="ends its thread"):
        site.runtime.load_model("extra")
    assert "failed to load" in caplog.text
    assert "SystemExit" in caplog.text
    put(site.folder, "iris.h5", "3")
    site.runtime.load_model("iris")
    assert site.ask() == 3.0


def test_models_that_exit_while_the_service_starts_leave_the_others_ready(tmp_path):
    made = make_site(tmp_path, {"bad.h5": "1", "iris.h5": "1"}, exits=["bad"])
    try:
        assert made.runtime.ready
        assert made.ask("iris") == 1.0
        with pytest.raises(ModelLoadFailed):
            made.runtime.resolve("bad")
    finally:
        made.runtime.stop()


def test_a_load_that_never_ends_is_reported_failed_and_others_are_loaded(tmp_path, caplog):
    made = make_site(tmp_path, {"iris.h5": "1"}, load_timeout_s=1.0)
    go_on = threading.Event()
    made.before_open = lambda: go_on.wait(WITHIN_S)
    try:
        put(tmp_path, "extra.h5", "2")
        with pytest.raises(ModelLoadFailed, match="load_timeout_s"):
            made.runtime.load_model("extra")
        assert "Its thread cannot be ended" in caplog.text
        assert ("extra", 1, "UNAVAILABLE") in [line[:3] for line in made.index()]
        made.before_open = lambda: None
        put(tmp_path, "another.h5", "4")
        made.runtime.load_model("another")
        assert made.ask("another") == 4.0
    finally:
        go_on.set()
        made.runtime.stop()


def test_while_a_first_version_loads_it_says_so(site):
    put(site.folder, "extra/4/model.h5", "4")
    inside, go_on = threading.Event(), threading.Event()
    site.before_open = lambda: (inside.set(), go_on.wait(WITHIN_S))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(site.runtime.load_model, "extra")
        assert inside.wait(WITHIN_S)
        with pytest.raises(ModelLoading):
            site.runtime.resolve("extra")
        assert site.index()[0] == ("extra", 4, "LOADING", "")
        assert site.index(ready_only=True) == [("iris", 1, "READY", "")]
        go_on.set()
        loading.result(WITHIN_S)
    assert site.index()[0] == ("extra", 4, "READY", "")


@pytest.mark.parametrize("text", ["broken", "defect"])
def test_a_load_that_fails_leaves_the_old_one_and_tells(site, text):
    put(site.folder, "iris.h5", text)
    with pytest.raises(ModelLoadFailed, match="'iris' failed to load"):
        site.runtime.load_model("iris")
    assert site.ask() == 1.0
    status = site.runtime.status("iris")
    assert (status.state, sorted(status.versions), list(status.errors)) == (State.READY, [1], [1])
    assert status.errors[1].__traceback__ is None  # it would hold what was half loaded
    put(site.folder, "iris.h5", "5")
    assert site.runtime.load_model("iris").errors == {}
    assert site.ask() == 5.0


def test_settings_that_make_no_sense_leave_the_old_one(tmp_path):
    site = make_site(tmp_path, {"m/1/model.h5": "1"})
    put(tmp_path, "m/model.toml", "colour = 3")
    with pytest.raises(ModelLoadFailed, match="colour"):
        site.runtime.load_model("m")
    assert site.ask("m") == 1.0
    site.runtime.stop()


def test_a_model_that_is_in_no_folder_is_not_found(site):
    with pytest.raises(ModelNotFound, match="Did you mean 'iris'"):
        site.runtime.load_model("irs")
    (site.folder / "iris.h5").unlink()
    with pytest.raises(ModelNotFound):
        site.runtime.load_model("iris")
    assert site.ask() == 1.0


def test_the_highest_version_takes_over_and_older_requests_are_answered_by_theirs(tmp_path):
    site = make_site(tmp_path, {"m/1/model.h5": "1"})
    parsed_for = site.runtime.resolve("m")
    put(tmp_path, "m/2/model.h5", "2")
    assert list(site.runtime.load_model("m").versions) == [2]
    assert site.ask("m") == 2.0
    assert site.ask(served=parsed_for) == 1.0
    with pytest.raises(VersionNotFound):
        site.runtime.resolve("m", 1)
    put(tmp_path, "m/3/model.h5", "broken")
    with pytest.raises(ModelLoadFailed):
        site.runtime.load_model("m")
    assert site.ask("m") == 2.0
    assert [line[1:3] for line in site.index()] == [(1, "UNAVAILABLE"), (2, "READY"), (3, "UNAVAILABLE")]
    assert site.opened.count(("m", 2, "2")) == 1
    site.runtime.stop()


def test_jobs_in_flight_end_on_the_model_they_were_meant_for(site):
    inside, go_on = threading.Event(), threading.Event()
    site.before_run = lambda: (inside.set(), go_on.wait(WITHIN_S))
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(site.ask)
        assert inside.wait(WITHIN_S)
        queued = pool.submit(site.ask, served=site.runtime.resolve("iris"))
        put(site.folder, "iris.h5", "2")
        site.runtime.load_model("iris")
        after = pool.submit(site.ask)
        go_on.set()
        assert [done.result(WITHIN_S) for done in (running, queued, after)] == [1.0, 1.0, 2.0]


def test_loads_asked_for_at_once_are_done_one_after_the_other(site):
    names = [f"m{number}" for number in range(6)]
    for name in names:
        put(site.folder, f"{name}.h5", "2")
    inside = []

    def alone():
        inside.append(1)
        assert len(inside) == 1
        inside.pop()

    site.before_open = alone
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(site.runtime.load_model, name) for name in names * 2]
        assert [done.result(WITHIN_S).state for done in asked] == [State.READY] * 12
    assert len(site.opened) == 1 + len(names)


def test_whoever_cannot_be_told_of_a_change_does_not_stop_it(site, caplog):
    put(site.folder, "iris.h5", "2")
    site.states = None  # what is told of changes is kept here
    site.runtime.load_model("iris")
    assert site.ask() == 2.0
    assert "a change could not be told" in caplog.text


# -- unload -----------------------------------------------------------------------------------------------


def test_an_unloaded_model_refuses_and_can_come_back(site):
    status = site.runtime.unload_model("iris")
    assert (status.state, status.reason) == (State.UNAVAILABLE, "unloaded")
    with pytest.raises(ModelUnloaded):
        site.runtime.resolve("iris")
    assert site.index() == [("iris", 1, "UNAVAILABLE", "unloaded")]
    assert not site.runtime.ready
    assert site.runtime.unload_model("iris").state is State.UNAVAILABLE  # again changes nothing
    site.runtime.load_model("iris")
    assert site.ask() == 1.0
    assert [state for _, state, _ in site.states] == [
        State.READY, State.UNLOADING, State.UNAVAILABLE, State.LOADING, State.READY,
    ]  # fmt: skip
    with pytest.raises(ModelNotFound):
        site.runtime.unload_model("nobody")


def test_unloading_waits_for_the_requests_it_has(site):
    inside, go_on = threading.Event(), threading.Event()
    site.before_run = lambda: (inside.set(), go_on.wait(WITHIN_S))
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(site.ask)
        assert inside.wait(WITHIN_S)
        site.runtime.submit(InferRequest("iris", 1, ("probs",), ROW, 1), done=(answered := []).append)
        unloading = pool.submit(site.runtime.unload_model, "iris")
        while site.runtime.status("iris").state is not State.UNLOADING:
            assert not unloading.done()
        with pytest.raises(ModelUnloaded):
            site.ask()
        assert site.index() == [("iris", 1, "UNLOADING", "unloaded")]
        assert not unloading.done()
        go_on.set()
        assert unloading.result(WITHIN_S).state is State.UNAVAILABLE
        assert running.result(WITHIN_S) == 1.0
    assert [job.error for job in answered] == [None]


def test_an_unloaded_model_is_freed_though_someone_remembers_it(site):
    remembered = site.runtime.resolve("iris")
    site.ask()
    gc.freeze()
    site.runtime.unload_model("iris")
    assert forgotten(site.engines[0])
    with pytest.raises(ModelUnloaded):
        site.ask(served=remembered)


def test_a_replaced_model_is_freed_once_nobody_can_need_it(tmp_path):
    site = make_site(tmp_path, {"iris.h5": "1"}, request_timeout_s=0.2)
    site.ask()
    put(tmp_path, "iris.h5", "2")
    site.runtime.load_model("iris")
    assert forgotten(site.engines[0])
    assert site.ask() == 2.0
    site.runtime.stop()


def test_a_model_whose_function_is_being_made_is_freed_afterwards(tmp_path):
    site = make_site(tmp_path, {"iris.h5": "1"}, request_timeout_s=0.2)
    inside, go_on = threading.Event(), threading.Event()
    site.before_compile = lambda: (inside.set(), go_on.wait(WITHIN_S))
    job = site.runtime.submit(InferRequest("iris", 1, ("x", "probs"), ROW, 1), lambda _: None)
    assert inside.wait(WITHIN_S)
    site.runtime.expire(job)
    site.runtime.unload_model("iris")
    assert site.engines[0]() is not None
    go_on.set()
    assert forgotten(site.engines[0])
    site.runtime.stop()


def test_a_model_whose_files_are_gone_is_forgotten(site):
    site.runtime.forget_model("iris")
    with pytest.raises(ModelNotFound):
        site.runtime.resolve("iris")
    assert site.runtime.models() == ()
    site.runtime.forget_model("iris")


# -- end --------------------------------------------------------------------------------------------------


def test_a_service_that_drains_changes_nothing_more(site):
    put(site.folder, "extra.h5", "2")
    inside, go_on = threading.Event(), threading.Event()
    site.before_open = lambda: (inside.set(), go_on.wait(WITHIN_S))
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(site.runtime.load_model, "extra")
        assert inside.wait(WITHIN_S)
        later = pool.submit(site.runtime.unload_model, "iris")
        site.runtime.stop()
        for waiting in (begun, later):
            with pytest.raises(NotReady, match="draining"):
                waiting.result(WITHIN_S)
        go_on.set()
    with pytest.raises(NotReady, match="draining"):
        site.runtime.load_model("extra")


# -- labels -----------------------------------------------------------------------------------------------


def test_versions_with_a_label_are_served_beside_the_highest(tmp_path):
    labels = "labels = { stable = 1, canary = 2 }"
    files = {f"m/{number}/model.h5": str(number) for number in (1, 2, 3, 4)}
    site = make_site(tmp_path, files | {"m/model.toml": labels})
    assert sorted(site.runtime.status("m").versions) == [1, 2, 4]
    assert site.runtime.resolve("m", label="stable").version == 1
    assert site.runtime.resolve("m", label="canary").version == 2
    assert site.runtime.resolve("m").version == 4
    with pytest.raises(VersionNotFound, match=r"\['canary', 'stable'\]. Received: 'nightly'"):
        site.runtime.resolve("m", label="nightly")
    site.runtime.stop()


def test_a_label_moves_without_loading_anything_again(tmp_path):
    files = {"m/1/model.h5": "1", "m/2/model.h5": "2", "m/model.toml": "labels = { stable = 1 }"}
    site = make_site(tmp_path, files)
    opened = len(site.opened)
    put(tmp_path, "m/model.toml", "labels = { stable = 2 }")
    site.runtime.load_model("m")
    assert site.runtime.resolve("m", label="stable").version == 2
    assert list(site.runtime.status("m").versions) == [2]
    assert len(site.opened) == opened
    site.runtime.stop()


def test_a_label_of_a_version_that_does_not_load_tells_why(tmp_path):
    files = {"m/1/model.h5": "broken", "m/2/model.h5": "2", "m/model.toml": "labels = { stable = 1 }"}
    site = make_site(tmp_path, files)
    with pytest.raises(ModelLoadFailed, match="Expected an HDF5 file"):
        site.runtime.resolve("m", label="stable")
    assert site.ask("m") == 2.0
    site.runtime.stop()


# -- index ------------------------------------------------------------------------------------------------


def test_the_index_tells_of_everything_in_the_folder(tmp_path):
    files = {"a.h5": "1", "b.h5": "broken", "c/1/model.h5": "1", "c/2/model.h5": "2"}
    site = make_site(tmp_path, files)
    put(tmp_path, "d.h5", "4")
    put(tmp_path, "e/model.toml", "nonsense")
    (tmp_path / "a.h5").unlink()
    lines = site.runtime.index()
    assert [(line.name, line.version, line.state) for line in lines] == [
        ("a", 1, "READY"),
        ("b", 1, "UNAVAILABLE"),
        ("c", 1, "UNAVAILABLE"),
        ("c", 2, "READY"),
        ("d", 1, "UNAVAILABLE"),
        ("e", None, "UNAVAILABLE"),
    ]
    assert "Expected an HDF5 file" in lines[1].reason
    assert lines[4] == IndexedVersion("d", 1, "UNAVAILABLE", "not loaded")
    assert "Expected TOML" in lines[5].reason
    assert [line.name for line in site.runtime.index(ready_only=True)] == ["a", "c"]
    site.runtime.stop()
