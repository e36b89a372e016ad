"""The README's tables against the code they are made from, and the command that writes them."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import LayertapError
from service.model_config import ModelConfig, PreprocessConfig
from service.settings import PREFIX, Settings, load_settings
from service.telemetry import Telemetry
from service.tools.docs import main, rewrite, tables

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def rows(name):
    """The cells of a table's lines, without its head; `\\|` is no border."""
    lines = tables()[name].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def first_column(name):
    return [row[0].strip("`") for row in rows(name)]


def test_the_readme_is_fresh():
    assert rewrite(README.read_text(encoding="utf-8")) == README.read_text(encoding="utf-8"), (
        "run `make docs`: a table of README.md is older than the code"
    )


def test_the_readme_holds_every_table():
    assert set(re.findall(r"<!-- table:(\w+) -->", README.read_text(encoding="utf-8"))) == set(tables())


@pytest.mark.parametrize("name", tables())
def test_every_line_of_a_table_has_as_many_cells_as_its_head(name):
    head = tables()[name].splitlines()[0].count("|") - 1
    assert {len(row) for row in rows(name)} == {head}
    assert all(cell for row in rows(name) for cell in row)


def test_every_setting_can_be_set_by_the_variable_in_its_row():
    names = [field.name for field in dataclasses.fields(Settings)]
    assert first_column("settings") == names
    for name, row in zip(names, rows("settings"), strict=True):
        variable = row[3].strip("`")
        assert variable == f"{PREFIX}{name.upper()}"
        default = getattr(Settings(), name)
        if isinstance(default, int | float | str):
            settings = load_settings({variable: str(default)}, directory=ROOT / "service")
            assert getattr(settings, name) == default


def test_every_setting_of_a_model_has_its_row():
    own = [field.name for field in dataclasses.fields(ModelConfig) if field.name != "preprocess"]
    pictures = [f"preprocess.{field.name}" for field in dataclasses.fields(PreprocessConfig)]
    assert first_column("model_settings") == own + pictures


def test_every_code_has_its_row():
    def codes(cls):
        return {cls.code}.union(*map(codes, cls.__subclasses__()))

    never_sent = {"setup_error"}
    assert set(first_column("errors")) == codes(LayertapError) - never_sent


def test_every_metric_that_is_exposed_has_its_row():
    exposed = re.findall(r"^# TYPE (layertap_\w+) (\w+)$", Telemetry().render().decode(), re.MULTILINE)
    assert exposed == [(row[0].strip("`"), row[1]) for row in rows("metrics")]


def test_prose_is_left_alone_and_a_pipe_does_not_end_a_cell():
    text = "before | x\n<!-- table:errors -->\nold\n<!-- /table -->\nafter\n"
    fresh = rewrite(text)
    assert fresh == text.replace("old\n", tables()["errors"])
    assert rewrite(fresh) == fresh


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table:weather -->\n<!-- /table -->\n",
        "<!-- table:errors -->\n",
        "<!-- table:errors -->\n<!-- table:metrics -->\n<!-- /table -->\n",
    ],
)
def test_a_wrong_block_is_refused(text):
    with pytest.raises(ValueError, match="Expected"):
        rewrite(text)


def test_check_tells_a_stale_file_and_changes_nothing(tmp_path, capsys):
    stale = "<!-- table:metrics -->\nold\n<!-- /table -->\n"
    path = tmp_path / "page.md"
    path.write_text(stale, encoding="utf-8")
    assert main([str(path), "--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == stale
    assert main([str(path)]) == 0
    assert main([str(path), "--check"]) == 0
    assert "layertap_requests_total" in path.read_text(encoding="utf-8")


def test_the_command_runs_as_the_makefile_runs_it():
    command = [sys.executable, "-m", "service.tools.docs", "README.md", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
