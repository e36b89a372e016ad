"""Hot reload, driven by hand: what has settled is loaded, what is gone is unloaded, what failed waits for a change."""

import logging
import shutil
from functools import partial

import pytest
from changing_models import make_site, put

from service.errors import ModelNotFound, ModelUnloaded, RepositoryError
from service.repository import scan
from service.serving.reloading import Reloader


@pytest.fixture
def site(tmp_path):
    made = make_site(tmp_path, {"iris.h5": "1"})
    made.reloader = Reloader(made.runtime, partial(scan, tmp_path), 1.0)
    yield made
    made.runtime.stop()


def look_twice(site):
    site.reloader.look()
    site.reloader.look()


def assert_unloaded_until_its_files_change(site):
    site.runtime.unload_model("iris")
    look_twice(site)
    with pytest.raises(ModelUnloaded):
        site.runtime.resolve("iris")
    put(site.folder, "iris.h5", "4")
    look_twice(site)
    assert site.ask() == 4.0


def test_nothing_happens_while_nothing_changes(site):
    generation = site.runtime.generation
    look_twice(site)
    assert site.runtime.generation == generation


def test_a_new_file_is_loaded_once_it_has_settled(site):
    put(site.folder, "extra.h5", "2")
    site.reloader.look()
    with pytest.raises(ModelNotFound):
        site.runtime.resolve("extra")
    site.reloader.look()
    assert site.ask("extra") == 2.0
    look_twice(site)
    assert site.opened.count(("extra", 1, "2")) == 1


def test_a_file_that_still_grows_is_left_alone(site):
    for text in ("2", "20", "200"):
        (site.folder / "iris.h5").write_text(text)
        site.reloader.look()
    assert site.ask() == 1.0
    site.reloader.look()
    assert site.ask() == 200.0
    assert site.opened == [("iris", 1, "1"), ("iris", 1, "200")]


def test_a_new_version_and_new_settings_are_noticed(site):
    put(site.folder, "m/1/model.h5", "1")
    look_twice(site)
    put(site.folder, "m/2/model.h5", "2")
    look_twice(site)
    assert site.runtime.resolve("m").version == 2
    put(site.folder, "m/model.toml", 'versions = "all"')
    look_twice(site)
    assert sorted(site.runtime.status("m").versions) == [1, 2]


def test_a_file_that_does_not_load_waits_until_it_changes(site):
    put(site.folder, "iris.h5", "broken")
    look_twice(site)
    look_twice(site)
    assert site.opened == [("iris", 1, "1"), ("iris", 1, "broken")]
    assert site.ask() == 1.0
    put(site.folder, "iris.h5", "3")
    look_twice(site)
    assert site.ask() == 3.0


def test_a_model_whose_file_is_gone_is_gone_too(site):
    put(site.folder, "extra.h5", "2")
    look_twice(site)
    (site.folder / "extra.h5").unlink()
    site.reloader.look()
    assert site.ask("extra") == 2.0  # it may just be being replaced
    site.reloader.look()
    assert [status.name for status in site.runtime.models()] == ["iris"]


@pytest.fixture
def pair(tmp_path):
    made = make_site(tmp_path, {"iris.h5": "1", "m/1/model.h5": "2"})
    made.reloader = Reloader(made.runtime, partial(scan, tmp_path), 1.0)
    yield made
    made.runtime.stop()


def empty(folder):
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_all_models_gone_at_once_are_not_unloaded(pair, caplog):
    empty(pair.folder)
    with caplog.at_level(logging.INFO, "layertap.models"):
        look_twice(pair)
        look_twice(pair)
        assert (pair.ask("iris"), pair.ask("m")) == (1.0, 2.0)
        assert caplog.text.count("what is served goes on") == 1
        assert "iris, m" in caplog.text
        put(pair.folder, "iris.h5", "1")
        put(pair.folder, "m/1/model.h5", "20")
        look_twice(pair)
        assert "in the folder again: iris, m" in caplog.text
    assert (pair.ask("iris"), pair.ask("m")) == (1.0, 20.0)
    (pair.folder / "iris.h5").unlink()  # and one that goes alone goes
    look_twice(pair)
    assert [status.name for status in pair.runtime.models()] == ["m"]


def test_the_folder_below_a_volume_takes_no_place_of_what_was_in_it(pair):
    empty(pair.folder)
    put(pair.folder, "below.h5", "3")
    look_twice(pair)
    look_twice(pair)
    assert (pair.ask("iris"), pair.ask("m"), pair.ask("below")) == (1.0, 2.0, 3.0)
    (pair.folder / "below.h5").unlink()
    put(pair.folder, "iris.h5", "1")
    look_twice(pair)
    assert (pair.ask("iris"), pair.ask("m")) == (1.0, 2.0)
    assert sorted(status.name for status in pair.runtime.models()) == ["iris", "m"]


def test_the_only_model_stays_though_its_file_is_gone_until_it_is_unloaded(site):
    (site.folder / "iris.h5").unlink()
    look_twice(site)
    assert site.ask() == 1.0
    assert_unloaded_until_its_files_change(site)


def test_models_that_go_one_after_the_other_between_two_looks_stay(pair):
    shutil.rmtree(pair.folder / "m")
    pair.reloader.look()
    (pair.folder / "iris.h5").unlink()
    look_twice(pair)
    assert (pair.ask("iris"), pair.ask("m")) == (1.0, 2.0)


def test_what_an_operator_unloaded_stays_so_until_its_files_change(site):
    assert_unloaded_until_its_files_change(site)


def test_models_that_came_before_the_first_look_are_found(tmp_path):
    site = make_site(tmp_path, {"iris.h5": "1"})
    reloader = Reloader(site.runtime, partial(scan, tmp_path), 1.0)
    put(tmp_path, "iris.h5", "2")  # after the folder was read, before anything was loaded from it
    reloader.look()
    reloader.look()
    assert site.ask() == 2.0
    site.runtime.stop()


def test_a_folder_that_vanishes_takes_no_model_with_it(site, tmp_path):
    elsewhere = tmp_path.with_name("elsewhere")
    tmp_path.rename(elsewhere)
    with pytest.raises(RepositoryError):
        site.reloader.look()
    assert site.ask() == 1.0
    elsewhere.rename(tmp_path)
    look_twice(site)
    assert site.opened == [("iris", 1, "1")]


def test_the_thread_looks_by_itself_and_tells_once_that_the_folder_is_gone(site, tmp_path, caplog):
    looks = []

    def scan_again():
        looks.append(1)
        if len(looks) in (2, 3):
            raise RepositoryError("Expected a folder of models. Received: nothing there.")
        if len(looks) == 7:
            reloader.stop()
        return scan(tmp_path)

    with caplog.at_level(logging.INFO, "layertap.models"):
        reloader = Reloader(site.runtime, scan_again, 0.001)
        put(tmp_path, "iris.h5", "2")
        thread = reloader.start()
        thread.join(30.0)
    assert site.ask() == 2.0
    assert caplog.text.count("what is served goes on") == 1
