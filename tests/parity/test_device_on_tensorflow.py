"""Device settings against the real TensorFlow, one fresh process a test: they act before its first op."""

import json
import os
import subprocess
import sys

PRELUDE = """
import json, os
from service.device import DeviceOptions, apply, enact, plan
from service.errors import SettingsError
"""

# TensorFlow's own code turns device settings into a ConfigProto, and that needs no card: two pretended ones
# are enough to see what the C++ runtime would be handed.
PRETENDED_CARDS = """
import tensorflow as tf
from tensorflow.python.eager import context
from service.cards import MIB, Gpu

inner = context.context()
inner._initialize_physical_devices()
real = list(inner._physical_devices)
pretended = [context.PhysicalDevice(f"/physical_device:GPU:{index}", "GPU") for index in range(2)]
inner._physical_devices = real + pretended
CARDS = [Gpu(0, "A", total_bytes=16_384 * MIB), Gpu(1, "B", total_bytes=8_192 * MIB)]

def configured(**options):
    inner._visible_device_list = real + pretended
    inner._memory_growth_map = dict.fromkeys(pretended, False)
    inner._virtual_device_map = {}
    enact(plan(DeviceOptions(**options), CARDS, 4), tf.config)
    config = inner.config
    return {
        "count": config.device_count["GPU"],
        "visible": config.gpu_options.visible_device_list,
        "growth": config.gpu_options.allow_growth,
        "limits": [
            list(part.memory_limit_mb) for part in config.gpu_options.experimental.virtual_devices
        ],
    }
"""


def answer(code, prelude=PRELUDE):
    """What the code prints as JSON in a process of its own that sees no card."""
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_threads_are_in_force_before_and_after_the_first_operation():
    seen = answer("""
report = apply(DeviceOptions(intra_op_threads=3, inter_op_threads=2))
import tensorflow as tf
total = int(tf.reduce_sum(tf.range(5)))
threading = tf.config.threading
print(json.dumps([
    total, report.as_dict(),
    threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads(),
]))
""")

    expected = {"kind": "cpu", "gpus": [], "intra_op_threads": 3, "inter_op_threads": 2, "notes": []}
    assert seen == [10, expected, 3, 2]


def test_the_thread_settings_reach_the_pools_of_the_process():
    code = """
apply(DeviceOptions(intra_op_threads={0}, inter_op_threads={0}))
import tensorflow as tf
tf.linalg.matmul(tf.ones((512, 512)), tf.ones((512, 512))).numpy()
print(len(os.listdir("/proc/self/task")))
"""

    # Both pools grow by eight threads each.
    assert answer(code.format(9)) - answer(code.format(1)) >= 16


def test_by_default_the_workers_share_the_usable_cores():
    seen = answer("""
from service.cores import usable_cores
print(json.dumps([apply(DeviceOptions(workers=2)).intra_op_threads, max(1, usable_cores() // 2)]))
""")

    assert seen[0] == seen[1]


def test_gpu_settings_on_a_machine_without_a_gpu_are_noted():
    seen = answer("""
report = apply(DeviceOptions(gpu_memory_fraction=0.5, visible_gpus=()))
import tensorflow as tf
print(json.dumps([report.as_dict()["notes"], report.kind, float(tf.add(1.0, 2.0))]))
""")

    assert seen == [["gpu_memory_fraction has no effect: no GPU is visible"], "cpu", 3.0]


def test_a_gpu_that_does_not_exist_is_refused():
    message = answer("""
try:
    apply(DeviceOptions(visible_gpus=(0,)))
except SettingsError as error:
    print(json.dumps(error.message))
""")

    assert "sees no GPU" in message


def test_settings_after_the_first_operation_are_refused():
    message = answer("""
import tensorflow as tf
tf.add(1, 2)
try:
    apply(DeviceOptions())
except SettingsError as error:
    print(json.dumps(error.message))
""")

    assert "before TensorFlow's first operation" in message


def test_tensorflow_makes_the_planned_configuration_for_pretended_cards():
    seen = answer(
        """
print(json.dumps([
    configured(),
    configured(gpu_allow_growth=False),
    configured(gpu_memory_fraction=0.5, workers=2),
    configured(gpu_memory_fraction=0.25, visible_gpus=(1,), gpu_allow_growth=True),
    configured(visible_gpus=(1,)),
    configured(visible_gpus=()),
]))
""",
        PRELUDE + PRETENDED_CARDS,
    )

    assert seen == [
        {"count": 2, "visible": "0,1", "growth": True, "limits": []},
        {"count": 2, "visible": "0,1", "growth": False, "limits": []},
        {"count": 2, "visible": "0,1", "growth": False, "limits": [[4096.0], [2048.0]]},
        {"count": 1, "visible": "1", "growth": False, "limits": [[2048.0]]},
        {"count": 1, "visible": "1", "growth": True, "limits": []},
        {"count": 0, "visible": "", "growth": False, "limits": []},
    ]
