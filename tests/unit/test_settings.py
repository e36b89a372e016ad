import dataclasses
import typing

import pytest

from service.errors import SettingsError
from service.settings import Settings, child_environ, drain_delay_s, load_settings, strange_variables

SAMPLES = {
    "models_dir": "elsewhere",
    "default_model": "iris",
    "bind": "127.0.0.1:9000",
    "engine": "openvino",
    "precision": "bfloat16",
    "batch_buckets": "on",
    "log_format": "text",
    "access_log": "all",
    "visible_gpus": "0,1",
    "gpu_memory_fraction": "0.5",
    "gpu_allow_growth": "false",
    "fail_on_load_error": "true",
    "admin": "true",
    "max_batch_delay_ms": "2.5",
    "max_head_bytes": "20000",
    "max_headers": "20",
    "max_target_bytes": "2000",
}


def load(tmp_path, environ=None, flags=None, toml=None):
    if toml is not None:
        (tmp_path / "layertap.toml").write_text(toml)
    return load_settings(environ or {}, flags, tmp_path)


def test_nothing_said_gives_the_defaults(tmp_path):
    assert load(tmp_path) == Settings()


def test_later_sources_win(tmp_path):
    toml = "workers = 2\nmax_batch_size = 2\nmax_queue_rows = 2\n"
    environ = {"LAYERTAP_MAX_BATCH_SIZE": "3", "LAYERTAP_MAX_QUEUE_ROWS": "3"}
    settings = load(tmp_path, environ, {"max_queue_rows": "4"}, toml)
    assert (settings.workers, settings.max_batch_size, settings.max_queue_rows) == (2, 3, 4)


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_reached_from_the_environment(tmp_path, field):
    text = SAMPLES.get(field.name, "7")
    settings = load(tmp_path, {f"LAYERTAP_{field.name.upper()}": text})
    changed = {f.name for f in dataclasses.fields(Settings) if getattr(settings, f.name) != f.default}
    assert changed == {field.name}
    assert field.metadata["doc"]


@pytest.mark.parametrize(
    ("said", "environ", "delay_s"),
    [
        ({}, {}, 0.0),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 5.0),
        ({"stop_timeout_s": "8"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 2.0),
        ({"drain_delay_s": "0"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 0.0),
        ({"drain_delay_s": "7"}, {}, 7.0),
    ],
)
def test_only_in_kubernetes_a_stop_waits_unless_it_is_told_to(tmp_path, said, environ, delay_s):
    assert drain_delay_s(load(tmp_path, environ, said), environ) == delay_s


def test_a_stop_cannot_wait_longer_than_it_may_take(tmp_path):
    with pytest.raises(SettingsError, match="'drain_delay_s' to be less than 'stop_timeout_s'"):
        load(tmp_path, flags={"drain_delay_s": "28"})


@pytest.mark.parametrize(
    "name",
    [name for name, hint in typing.get_type_hints(Settings).items() if type(None) in typing.get_args(hint)],
)
def test_an_empty_variable_unsets_what_may_be_unset(tmp_path, name):
    toml = {
        "default_model": '"iris"',
        "admin_key": '"k"',
        "visible_gpus": "[0]",
        "gpu_allow_growth": "true",
    }.get(name, "1")
    settings = load(tmp_path, {f"LAYERTAP_{name.upper()}": ""}, toml=f"{name} = {toml}\n")
    assert getattr(settings, name) == (() if name == "visible_gpus" else None)


@pytest.mark.parametrize(
    ("environ", "toml", "said"),
    [
        ({}, "workres = 2", "layertap.toml. Did you mean 'workers'?"),
        ({}, "[table]\nx = 1", "Unknown setting 'table'"),
        ({}, "workers = [", "Expected TOML"),
        ({}, "workers = 'two'", "a whole number"),
        ({"LAYERTAP_WORKERS": "0"}, None, "in the environment to be at least 1"),
        ({"LAYERTAP_GPU_MEMORY_FRACTION": "1.5"}, None, "from 0.01 to 1.0"),
        ({"LAYERTAP_MAX_BATCH_DELAY_MS": "nan"}, None, "a number"),
        ({"LAYERTAP_BATCH_BUCKETS": "maybe"}, None, "one of auto, on, off"),
        ({"LAYERTAP_BIND": "localhost"}, None, "address:port"),
        ({"LAYERTAP_BIND": "localhost:99999"}, None, "address:port"),
        ({"LAYERTAP_ADMIN_KEY": "two words"}, None, "'admin_key' to be printable ASCII"),
        ({"LAYERTAP_ADMIN_KEY": "key\n"}, None, "Received: 4 characters"),
        ({"LAYERTAP_ALLOWED_HOSTS": "a.example,http://b.example"}, None, "'http://b.example'"),
        ({}, 'allowed_hosts = ["a.example:80"]', "names without scheme and port"),
        ({"PORT": "http"}, None, "address:port"),
        ({"PORT": "9" * 5000}, None, "address:port"),
    ],
)
def test_what_is_wrong_is_told_with_its_source(tmp_path, environ, toml, said):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, environ, toml=toml)
    assert said in caught.value.message


def test_a_wrong_value_is_told_even_where_a_stronger_source_replaces_it(tmp_path):
    with pytest.raises(SettingsError):
        load(tmp_path, {"LAYERTAP_WORKERS": "2"}, toml="workers = 0")


def test_port_replaces_the_port_of_bind_but_not_a_flag(tmp_path):
    environ = {"PORT": "9001", "LAYERTAP_BIND": "[::1]:1"}
    assert load(tmp_path, environ).address == ("[::1]", 9001)
    assert load(tmp_path, environ, {"bind": "127.0.0.1:9002"}).address == ("127.0.0.1", 9002)
    assert load(tmp_path, {"PORT": ""}).address == ("0.0.0.0", 8080)


@pytest.mark.parametrize(
    "service", ["", "_METRICS", "_CANARY", "_HEADLESS", "_PREDICTOR", "_MODELS_DIR", "_2"]
)
def test_variables_that_kubernetes_makes_are_no_settings(tmp_path, service):
    environ = {
        f"LAYERTAP{service}_SERVICE_HOST": "10.0.0.7",
        f"LAYERTAP{service}_SERVICE_PORT": "80",
        f"LAYERTAP{service}_SERVICE_PORT_HTTP": "80",
        f"LAYERTAP{service}_PORT": "tcp://10.0.0.7:80",
        f"LAYERTAP{service}_PORT_80_TCP": "tcp://10.0.0.7:80",
        f"LAYERTAP{service}_PORT_80_TCP_PROTO": "tcp",
        f"LAYERTAP{service}_PORT_80_TCP_PORT": "80",
        f"LAYERTAP{service}_PORT_80_TCP_ADDR": "10.0.0.7",
        f"LAYERTAP{service}_PORT_53_UDP_ADDR": "10.0.0.7",
    }
    assert load(tmp_path, environ) == Settings()
    assert strange_variables(environ) == []


def test_a_setting_is_one_though_a_service_may_be_called_like_it(tmp_path, monkeypatch):
    monkeypatch.setattr("service.settings._NAMES", frozenset(["bind", "metrics_port"]))
    link = {"LAYERTAP_METRICS_PORT": "tcp://10.0.0.7:80"}
    assert load(tmp_path, link) == Settings()
    with pytest.raises(
        SettingsError, match="metrics_port"
    ):  # it reaches the settings, which have none of this name
        load(tmp_path, {"LAYERTAP_METRICS_PORT": "9100"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LAYERTAP_WORKRES", " Did you mean 'workers'?"),
        ("LAYERTAP_PORT", ""),
        ("LAYERTAP_", ""),
        ("LAYERTAP_SERVICE_HOSTS", ""),
        ("LAYERTAP_" + "X" * 100_000, ""),
    ],
)
def test_a_variable_that_is_no_setting_is_told_and_changes_nothing(tmp_path, name, hint):
    environ = {name: "2", "LAYERTAP_WORKERS": "3", "LAYERTAP_CONFIG": ""}
    assert load(tmp_path, environ) == Settings(workers=3)
    assert strange_variables(environ) == [f"{name[:89]} is no setting and changes nothing.{hint}"]


def test_the_file_may_lie_elsewhere_and_must_then_exist(tmp_path):
    elsewhere = tmp_path / "other.toml"
    elsewhere.write_text("workers = 5")
    assert load(tmp_path, {"LAYERTAP_CONFIG": str(elsewhere)}, toml="workers = 3").workers == 5
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {"LAYERTAP_CONFIG": str(tmp_path / "none.toml")})
    assert "LAYERTAP_CONFIG" in caught.value.message


def test_other_variables_and_the_process_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERTAP_WORKERS", "6")
    monkeypatch.setenv("PORT", "")
    assert load_settings(directory=tmp_path).workers == 6
    assert load(tmp_path, {"WORKERS": "x", "layertap_workers": "x"}) == Settings()


def test_flags_reach_a_child_process_unchanged(tmp_path):
    flags = {"bind": "127.0.0.1:9003", "workers": "2"}
    environ = child_environ(flags, {"PORT": "1", "OTHER": "kept"})
    assert environ["OTHER"] == "kept"
    assert load(tmp_path, environ) == load(tmp_path, {}, flags)
