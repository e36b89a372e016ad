import json

import pytest

from service.errors import RepositoryError
from service.repository import scan


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(folder, *paths, text=""):
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def only(models):
    (entry,) = scan(models)
    return entry


def test_every_layout_is_found(models):
    put(
        models,
        "iris.h5",
        "old.HDF5",
        "new.keras",
        "flat/net.h5",
        "digits/1/model.h5",
        "digits/10/a.h5",
        "digits/9/b.h5",
    )
    found = {entry.name: [(v.number, v.path) for v in entry.versions] for entry in scan(models)}
    assert found == {
        "iris": [(1, models / "iris.h5")],
        "old": [(1, models / "old.HDF5")],
        "new": [(1, models / "new.keras")],
        "flat": [(1, models / "flat/net.h5")],
        "digits": [
            (10, models / "digits/10/a.h5"),
            (9, models / "digits/9/b.h5"),
            (1, models / "digits/1/model.h5"),
        ],
    }
    assert all(entry.error is None for entry in scan(models))


def test_models_come_by_name(models):
    put(models, "a.h5", "a-b.h5", "a0/model.h5", "A.h5")
    assert [entry.name for entry in scan(models)] == sorted(["a", "a-b", "a0", "A"])


def test_what_is_no_model_is_left_alone(models):
    put(
        models, ".hidden.h5", "_draft.h5", "README.md", "custom_objects.py", "notes/readme.txt", ".git/1/x.h5"
    )
    put(models, "__pycache__/model.h5")
    (models / "empty").mkdir()
    (models / "dangling.h5").symlink_to(models / "gone.h5")
    assert scan(models) == ()


def test_the_folder_must_be_there(tmp_path):
    for path in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(RepositoryError, match="Expected a folder of models"):
            scan(path)


def test_a_file_named_model_is_preferred_beside_others(models):
    put(models, "m/model.weights.h5", "m/encoder.h5", "m/model.json")
    assert only(models).versions[0].path.name == "model.weights.h5"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["m/a.h5", "m/b.h5"], "Received: a.h5, b.h5."),
        (["m/model.h5", "m/model.keras", "m/c.h5"], "Received: model.h5, model.keras, c.h5."),
        (["m/model.toml"], "Received: none."),
    ],
)
def test_one_file_must_stand_out(models, paths, said):
    put(models, *paths)
    said = said.replace("model.h5, model.keras, c.h5", "c.h5, model.h5, model.keras")
    assert only(models).error.endswith(said)
    assert only(models).versions == ()


def test_a_version_without_a_file_does_not_hide_the_good_ones(models):
    put(models, "m/1/model.h5")
    (models / "m/2").mkdir()
    entry = only(models)
    assert entry.error is None
    assert [(v.number, v.error is None) for v in entry.versions] == [(2, False), (1, True)]
    assert "Received: none." in entry.versions[0].error


def test_two_folders_of_one_version_are_told_apart_by_nobody(models):
    put(models, "m/1/model.h5", "m/01/model.h5", "m/2/model.h5")
    entry = only(models)
    assert [(v.number, v.error is None) for v in entry.versions] == [(2, True), (1, False)]
    assert "Expected one folder for version 1" in entry.versions[1].error


@pytest.mark.parametrize("name", ["²", "٣", "-1", "1.0", "v1"])
def test_only_whole_numbers_are_versions(models, name):
    put(models, "m/model.h5", f"m/{name}/model.h5")
    assert [(v.number, v.path.parent.name) for v in only(models).versions] == [(1, "m")]


@pytest.mark.parametrize("other", ["twin.keras", "twin/model.h5", "twin/1/model.h5"])
def test_a_name_may_be_used_once(models, other):
    put(models, "twin.h5", other, "good.h5")
    good, twin = scan(models)
    assert good.error is None
    assert twin.error == "Expected one file or folder for model 'twin'. Received: several."
    assert twin.versions == ()


@pytest.mark.parametrize("name", ["two words", "käse", "a:b", "-dash", "a%2Fb"])
def test_names_must_fit_a_url(models, name):
    put(models, f"{name}.h5", "folders/model.h5")
    entry = next(entry for entry in scan(models) if entry.name != "folders")
    assert entry.error == f"Expected a model name of letters, digits, '_', '-' and '.'. Received: {name!r}."


def test_a_name_that_is_no_text_can_still_be_told(models):
    (models / b"bad\xff.h5".decode("utf-8", "surrogateescape")).touch()
    entry = only(models)
    entry.name.encode()
    assert entry.error.startswith("Expected a model name")


def test_a_broken_toml_is_told_and_hides_no_other_model(models):
    put(models, "bad/model.h5", "good/model.h5")
    put(models, "bad/model.toml", text="default_layr = 'x'")
    bad, good = scan(models)
    assert "Did you mean 'default_layer'?" in bad.error
    assert bad.versions == ()
    assert good.error is None


def test_settings_are_read_from_the_models_folder(models):
    put(models, "m/1/model.h5")
    put(models, "m/model.toml", text="default_layer = 'pool'")
    assert only(models).config.default_layer == "pool"
    assert only(models).folder == models / "m"


# -- custom objects -----------------------------------------------------------------------------------------


def test_shared_objects_come_before_the_models_own(models):
    put(models, "custom_objects.py", "m/custom_objects.py", "m/model.h5", "bare.h5")
    bare, m = scan(models)
    assert bare.object_files == (models / "custom_objects.py",)
    assert m.object_files == (models / "custom_objects.py", models / "m/custom_objects.py")


def test_a_named_file_of_objects_must_be_there(models):
    put(models, "m/model.h5", "m/a.py")
    put(models, "m/model.toml", text="custom_objects = ['a.py']")
    assert only(models).object_files == (models / "m/a.py",)
    put(models, "m/model.toml", text="custom_objects = ['a.py', 'b.py']")
    assert "Expected the custom_objects file" in only(models).error
    put(models, "m/model.toml", text="custom_objects = ['a.py', 'package.module:attribute']")
    assert only(models).object_files == (models / "m/a.py",)


# -- class names --------------------------------------------------------------------------------------------

FORMS = {
    "classes.txt": "zero\n\n one \ntwo\n",
    "classes.json": '["zero", "one", "two"]',
    "class_indices.json": '{"two": 2, "zero": 0, "one": 1}',
    "imagenet.json": '{"0": ["n01", "zero"], "2": ["n03", "two"], "1": ["n02", "one"]}',
    "by_index.json": '{"0": "zero", "2": "two", "1": "one"}',
    "windows.txt": "\ufeffzero\r\none\r\ntwo\r\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_class_names_are_read_in_every_form(models, name):
    put(models, "m/1/model.h5")
    put(models, f"m/{name}", text=FORMS[name])
    put(models, "m/model.toml", text=f"classes = '{name}'")
    assert only(models).classes == ("zero", "one", "two")


@pytest.mark.parametrize("name", ["classes.txt", "classes.json", "class_indices.json"])
def test_class_names_beside_the_model_need_no_mention(models, name):
    put(models, "m/1/model.h5", "bare.h5", "bareback.h5")
    put(models, f"m/{name}", f"bare.{name}", text=FORMS[name])
    bare, bareback, m = scan(models)
    assert m.classes == bare.classes == ("zero", "one", "two")
    assert bareback.classes == ()


def test_model_toml_wins_over_a_file_that_it_does_not_mention(models):
    put(models, "m/model.h5")
    put(models, "m/classes.txt", text="a\nb\n")
    put(models, "m/classes.json", text="no json")
    assert only(models).classes == ("a", "b")
    put(models, "m/model.toml", text="classes = ['yes', 'no']")
    assert only(models).classes == ("yes", "no")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        '"zero"',
        "[[1]]",
        "[null]",
        '{"0": []}',
        '{"0": null}',
        '{"0": "a", "2": "c"}',
        '{"x": "a"}',
        '{"a": 0, "b": 0}',
        '{"a": 1}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_class_names_that_make_no_sense_are_told(models, text):
    put(models, "m/model.h5", "bare.h5")
    put(models, "m/classes.json", "bare.classes.json", text=text)
    for entry in scan(models):
        assert "Expected class names in " in entry.error
        assert "classes.json: one a line, or JSON" in entry.error


def test_a_file_of_class_names_that_is_missing_or_no_text_is_told(models):
    put(models, "m/model.h5")
    put(models, "m/model.toml", text="classes = 'gone.txt'")
    assert "FileNotFoundError" in only(models).error
    (models / "m/gone.txt").write_bytes(b"\xff\xfe")
    assert "UnicodeDecodeError" in only(models).error


def test_what_keras_writes_is_read(models):
    names = [f"name {i}" for i in range(30)]
    put(models, "m/model.h5")
    put(
        models,
        "m/class_indices.json",
        text=json.dumps({name: i for i, name in enumerate(names)}, sort_keys=True),
    )
    assert only(models).classes == tuple(names)


def test_labels_name_versions_that_are_there(models):
    put(models, "m/1/model.h5", "m/2/model.h5")
    put(models, "m/model.toml", text="labels = { stable = 1, canary-2 = 2 }")
    assert only(models).config.labels == {"stable": 1, "canary-2": 2}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{ stable = 3 }", "[1, 2]. Received: stable = 3."),
        ('{ "a/b" = 1 }', "Received: 'a/b'."),
        ("{ stable = -1 }", "at least 0"),
        ('{ stable = "one" }', "a table (a whole number each)"),
        ("[1]", "a table (a whole number each)"),
    ],
)
def test_labels_that_make_no_sense_are_told(models, labels, said):
    put(models, "m/1/model.h5", "m/2/model.h5")
    put(models, "m/model.toml", text=f"labels = {labels}")
    assert said in only(models).error
