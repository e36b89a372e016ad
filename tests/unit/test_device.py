import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from service import device
from service.cards import MIB, Gpu, list_gpus, may_have_gpus
from service.device import DeviceOptions, DevicePlan, GpuPlan, enact, foresee, plan
from service.errors import SettingsError

A100 = Gpu(index=0, name="A100", total_bytes=40_960 * MIB)
T4 = Gpu(index=1, name="T4", total_bytes=15_360 * MIB)
UNKNOWN = Gpu(index=0, name="X1", total_missing="NVML is not available: Driver Not Loaded")


class RecordingConfig:
    """Answers like `tf.config` on a machine with cards, and keeps what was set."""

    def __init__(self, cards=(), refusal=None):
        self.cards = [SimpleNamespace(name=f"/physical_device:GPU:{i}", card=c) for i, c in enumerate(cards)]
        self.refusal = refusal
        self.calls = []
        self.threads = {"intra": 0, "inter": 0}
        self.threading = SimpleNamespace(
            set_intra_op_parallelism_threads=lambda count: self.set_threads("intra", count),
            set_inter_op_parallelism_threads=lambda count: self.set_threads("inter", count),
            get_intra_op_parallelism_threads=lambda: self.threads["intra"],
            get_inter_op_parallelism_threads=lambda: self.threads["inter"],
        )
        self.experimental = SimpleNamespace(
            set_memory_growth=lambda device, on: self.calls.append(("growth", device.card, on)),
            get_device_details=lambda device: {"device_name": device.card} if device.card else {},
        )
        self.LogicalDeviceConfiguration = SimpleNamespace

    def set_threads(self, kind, count):
        if self.refusal:
            raise self.refusal
        self.threads[kind] = count

    def list_physical_devices(self, kind):
        assert kind == "GPU"
        return list(self.cards)

    def set_visible_devices(self, devices, kind):
        self.calls.append(("visible", [device.card for device in devices], kind))

    def set_logical_device_configuration(self, device, parts):
        self.calls.append(("limit", device.card, [part.memory_limit for part in parts]))


def limits(device_plan):
    return [(part.gpu.name, part.memory_limit_mib, part.growth) for part in device_plan.gpus]


def test_gpus_grow_on_demand_by_default():
    assert limits(plan(DeviceOptions(), [A100, T4], 8)) == [("A100", None, True), ("T4", None, True)]
    assert plan(DeviceOptions(), [A100, T4], 8).notes == ()


def test_growth_can_be_switched_off():
    assert limits(plan(DeviceOptions(gpu_allow_growth=False), [A100], 8)) == [("A100", None, False)]


def test_several_workers_without_growth_or_fraction_are_warned():
    notes = plan(DeviceOptions(gpu_allow_growth=False, workers=2), [A100], 8).notes

    assert len(notes) == 1
    assert "the first of 2 workers" in notes[0]


@pytest.mark.parametrize(
    ("fraction", "workers", "expected"),
    [
        (0.5, 1, [20_480, 7_680]),
        (0.5, 2, [10_240, 3_840]),
        (1.0, 1, [40_960, 15_360]),
        (0.3, 7, [1_755, 658]),  # rounded down: the workers together never pass the fraction
    ],
)
def test_a_fraction_is_shared_by_the_workers_on_each_card(fraction, workers, expected):
    made = plan(DeviceOptions(gpu_memory_fraction=fraction, workers=workers), [A100, T4], 8)

    assert limits(made) == [("A100", expected[0], False), ("T4", expected[1], False)]


@pytest.mark.parametrize("growth", [None, True, False])
def test_a_fraction_switches_growth_off_and_says_so(growth):
    made = plan(DeviceOptions(gpu_memory_fraction=0.5, gpu_allow_growth=growth), [A100], 8)

    assert limits(made) == [("A100", 20_480, False)]
    assert made.notes == ("growth is off because gpu_memory_fraction is set",)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_an_impossible_fraction_is_refused_even_without_a_gpu(fraction):
    with pytest.raises(SettingsError) as caught:
        plan(DeviceOptions(gpu_memory_fraction=fraction), [], 8)
    assert "gpu_memory_fraction" in caught.value.message


def test_a_fraction_needs_the_total_and_says_why_it_is_missing():
    with pytest.raises(SettingsError) as caught:
        plan(DeviceOptions(gpu_memory_fraction=0.5), [UNKNOWN], 8)
    assert "X1" in caught.value.message
    assert "Driver Not Loaded" in caught.value.message


def test_an_unknown_total_does_not_matter_without_a_fraction():
    assert limits(plan(DeviceOptions(), [UNKNOWN], 8)) == [("X1", None, True)]


def test_an_unknown_total_of_a_hidden_card_does_not_matter():
    options = DeviceOptions(gpu_memory_fraction=0.5, visible_gpus=(1,))

    assert limits(plan(options, [UNKNOWN, T4], 8)) == [("T4", 7_680, False)]


def test_less_than_one_mib_a_worker_is_refused():
    with pytest.raises(SettingsError):
        plan(DeviceOptions(gpu_memory_fraction=0.00001, workers=8), [T4], 8)


def test_chosen_gpus_are_visible_and_no_others():
    assert limits(plan(DeviceOptions(visible_gpus=(1,)), [A100, T4], 8)) == [("T4", None, True)]
    assert limits(plan(DeviceOptions(visible_gpus=(1, 0)), [A100, T4], 8)) == [
        ("T4", None, True),
        ("A100", None, True),
    ]
    assert plan(DeviceOptions(visible_gpus=()), [A100, T4], 8).gpus == ()


def test_an_unknown_gpu_is_refused_with_those_that_exist():
    with pytest.raises(SettingsError) as caught:
        plan(DeviceOptions(visible_gpus=(0, 2, -1)), [A100, T4], 8)
    assert "0 (A100), 1 (T4)" in caught.value.message
    assert caught.value.message.endswith("Received: 2, -1.")


def test_a_gpu_asked_for_where_there_is_none_is_refused():
    with pytest.raises(SettingsError) as caught:
        plan(DeviceOptions(visible_gpus=(0,)), [], 8)
    assert "TensorFlow sees no GPU" in caught.value.message


def test_a_gpu_named_twice_is_refused():
    with pytest.raises(SettingsError):
        plan(DeviceOptions(visible_gpus=(0, 0)), [A100], 8)


@pytest.mark.parametrize("options", [{"visible_gpus": ()}, {}])
def test_gpu_settings_without_a_gpu_are_noted_not_failed(options):
    made = plan(
        DeviceOptions(gpu_memory_fraction=0.5, gpu_allow_growth=True, **options),
        [UNKNOWN] if options else [],
        8,
    )

    assert made.notes == (
        "gpu_memory_fraction has no effect: no GPU is visible",
        "gpu_allow_growth has no effect: no GPU is visible",
    )


@pytest.mark.parametrize(
    ("cores", "workers", "asked", "threads"),
    [(8, 1, None, 8), (8, 3, None, 2), (2, 4, None, 1), (8, 2, 16, 16)],
)
def test_workers_share_the_cores_unless_threads_are_asked_for(cores, workers, asked, threads):
    made = plan(DeviceOptions(workers=workers, intra_op_threads=asked), [], cores)

    assert made.intra_op_threads == threads
    assert made.inter_op_threads is None


def test_no_workers_are_refused():
    with pytest.raises(SettingsError):
        plan(DeviceOptions(workers=0), [], 8)


def test_a_limited_plan_sets_limits_and_leaves_growth_alone():
    config = RecordingConfig(["A100", "T4"])

    report = enact(plan(DeviceOptions(gpu_memory_fraction=0.5, workers=2), [A100, T4], 8), config)

    assert config.calls == [
        ("visible", ["A100", "T4"], "GPU"),
        ("limit", "A100", [10_240]),
        ("limit", "T4", [3_840]),
    ]
    assert report.kind == "gpu"
    assert [(g.name, g.total_bytes, g.memory_limit_bytes, g.growth) for g in report.gpus] == [
        ("A100", 40_960 * MIB, 10_240 * MIB, False),
        ("T4", 15_360 * MIB, 3_840 * MIB, False),
    ]


def test_an_unlimited_plan_sets_growth_on_every_visible_card_only():
    config = RecordingConfig(["A100", "T4"])

    enact(plan(DeviceOptions(visible_gpus=(1,)), [A100, T4], 8), config)

    assert config.calls == [("visible", ["T4"], "GPU"), ("growth", "T4", True)]


def test_a_plan_without_cards_hides_them():
    config = RecordingConfig(["A100"])

    report = enact(plan(DeviceOptions(visible_gpus=()), [A100], 8), config)

    assert config.calls == [("visible", [], "GPU")]
    assert report.kind == "cpu"


def test_threads_are_set_and_read_back():
    config = RecordingConfig()
    options = DeviceOptions(intra_op_threads=3, inter_op_threads=2)

    report = enact(plan(options, [], 8), config)

    assert config.threads == {"intra": 3, "inter": 2}
    assert (report.intra_op_threads, report.inter_op_threads) == (3, 2)
    assert enact(plan(DeviceOptions(), [], 8), RecordingConfig()).inter_op_threads is None


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_refusal_by_tensorflow_becomes_a_settings_error(error):
    config = RecordingConfig(refusal=error("cannot be modified after initialization"))

    with pytest.raises(SettingsError) as caught:
        enact(DevicePlan(gpus=(), intra_op_threads=1, inter_op_threads=None, notes=()), config)
    assert "cannot be modified after initialization" in caught.value.message


def test_the_report_is_json():
    config = RecordingConfig(["A100"])
    device_plan = DevicePlan((GpuPlan(A100, 1_024, growth=False),), 4, None, ("a note",))

    assert json.loads(json.dumps(enact(device_plan, config).as_dict())) == {
        "kind": "gpu",
        "gpus": [
            {
                "name": "A100",
                "total_bytes": 40_960 * MIB,
                "memory_limit_bytes": 1_024 * MIB,
                "growth": False,
            }
        ],
        "intra_op_threads": 4,
        "inter_op_threads": None,
        "notes": ["a note"],
    }


def test_a_card_that_nvml_does_not_know_has_no_total_but_a_reason():
    # Real NVML: on a machine without a driver it is absent, on one with cards none bears this name.
    gpus = list_gpus(RecordingConfig(["A card of no maker", None]))

    assert [(gpu.index, gpu.name) for gpu in gpus] == [
        (0, "A card of no maker"),
        (1, "/physical_device:GPU:1"),
    ]
    assert all(gpu.total_bytes is None and "NVML" in gpu.total_missing for gpu in gpus)


def test_no_card_is_no_reason_to_ask_nvml():
    assert list_gpus(RecordingConfig()) == ()


def test_importing_the_module_does_not_import_tensorflow():
    code = "import sys, service.device; sys.exit('tensorflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where device files tell of GPUs")
@pytest.mark.parametrize(
    ("file", "found"), [("null", False), ("nvidia0", True), ("nvidiactl", True), ("kfd", True), ("dxg", True)]
)
def test_device_files_tell_whether_there_may_be_a_card(tmp_path, file, found):
    (tmp_path / file).touch()
    assert may_have_gpus(tmp_path) is found


def test_without_cards_the_report_is_foreseen_and_is_what_carrying_it_out_reports(monkeypatch):
    monkeypatch.setattr(device, "may_have_gpus", lambda: False)
    options = DeviceOptions(intra_op_threads=3, inter_op_threads=2, gpu_allow_growth=True, visible_gpus=())
    assert foresee(options) == enact(plan(options, (), 8), RecordingConfig())


def test_where_there_may_be_cards_nothing_is_foreseen(monkeypatch):
    monkeypatch.setattr(device, "may_have_gpus", lambda: True)
    assert foresee(DeviceOptions()) is None


def test_options_that_no_machine_without_cards_can_meet_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(device, "may_have_gpus", lambda: False)
    with pytest.raises(SettingsError, match="visible_gpus"):
        foresee(DeviceOptions(visible_gpus=(0,)))
