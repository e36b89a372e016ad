"""Owns the compute device of a process: CPU threads, visible GPUs, and how much of a card it may take.

`plan` decides, from values alone; `apply` asks TensorFlow what there is, carries the plan out and reports it.
The module imports without TensorFlow.

GPU memory is limited as TensorFlow 2 allows it: `memory_limit` of a logical device, which bounds TensorFlow's
own allocator (a process's CUDA context and library handles, some hundred MiB, come on top), or growth on
demand; it forbids both at once. Every worker sees every visible card, so the workers on a card are all of
them. TensorFlow 1's `per_process_gpu_memory_fraction` has no effect in eager mode, hence the translation.

What no GPU has run: reading card names and NVML totals, and the limits, growth and visibility on real cards.
The plans, and the ConfigProto that TensorFlow's own code makes of them for pretended cards, are tested.

Source: tensorflow/python/eager/context.py in TensorFlow 2.21 (`set_logical_device_configuration`,
`set_memory_growth`, `_compute_device_options`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.cards import MIB, Gpu, list_gpus, may_have_gpus
from service.cores import usable_cores
from service.errors import SettingsError


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What the operator asks for; the fields are the settings of the same names.

    Args:
        gpu_memory_fraction: the service's share of each visible card's total memory, in (0, 1], divided by
            its workers; `None` sets no limit.
        gpu_allow_growth: take GPU memory on demand; `None` means yes, unless a fraction is set. TensorFlow's
            own TF_FORCE_GPU_ALLOW_GROWTH in the environment overrules it.
        visible_gpus: TensorFlow's indices of the cards to use; `()` hides every card, `None` uses every card.
        intra_op_threads: threads inside one operation; `None` takes this worker's share of the usable cores.
        inter_op_threads: operations at a time; `None` leaves it to TensorFlow.
        workers: processes that share the cores and the cards, at least 1.
    """

    gpu_memory_fraction: float | None = None
    gpu_allow_growth: bool | None = None
    visible_gpus: tuple[int, ...] | None = None
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """What one process does with one visible card; `memory_limit_mib` and growth exclude each other."""

    gpu: Gpu
    memory_limit_mib: int | None
    growth: bool


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What is to be applied to a process; `inter_op_threads` of `None` leaves that to TensorFlow."""

    gpus: tuple[GpuPlan, ...]
    intra_op_threads: int
    inter_op_threads: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuReport:
    """A card in use; `memory_limit_bytes` is this process's, not the service's."""

    name: str
    total_bytes: int | None
    memory_limit_bytes: int | None
    growth: bool


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What is in force in this process.

    Args:
        kind: "cpu" or "gpu".
        gpus: the visible cards.
        intra_op_threads: as TensorFlow answers.
        inter_op_threads: as TensorFlow answers; `None` is its own choice.
        notes: sentences for the operator: settings without effect, and what follows from the others.
    """

    kind: str
    gpus: tuple[GpuReport, ...]
    intra_op_threads: int
    inter_op_threads: int | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return dataclasses.asdict(self)


def apply(options: DeviceOptions) -> DeviceReport:
    """Set this process up; call it once, after fork and before the first TensorFlow operation.

    Raises:
        SettingsError: an option cannot be met, or TensorFlow is initialised already.
    """
    # Here and not above: whoever only plans or counts cores should not pay seconds and 550 MB for the import.
    import tensorflow as tf  # noqa: PLC0415 - see above

    return enact(plan(options, list_gpus(tf.config), usable_cores()), tf.config)


def foresee(options: DeviceOptions) -> DeviceReport | None:
    """What `apply` will report, without TensorFlow; `None` where only TensorFlow can tell which cards there are.

    Raises:
        SettingsError: an option cannot be met.
    """
    if may_have_gpus():
        return None
    planned = plan(options, (), usable_cores())
    return DeviceReport("cpu", (), planned.intra_op_threads, planned.inter_op_threads, planned.notes)


def plan(options: DeviceOptions, gpus: Sequence[Gpu], cores: int) -> DevicePlan:
    """What `options` mean on a machine with these cards and cores.

    A limit is `int(fraction * total / workers)` in MiB. Two workers with 0.5 of a 16 GiB card get 4 GiB each.

    Raises:
        SettingsError: an unknown or repeated GPU index, an impossible fraction, or a fraction of a card
            whose memory is unknown.
    """
    fraction = options.gpu_memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise SettingsError(
            f"Expected 'gpu_memory_fraction' to be over 0 and at most 1. Received: {fraction!r}."
        )
    if options.workers < 1:
        raise SettingsError(f"Expected 'workers' to be at least 1. Received: {options.workers}.")
    visible = _select(options.visible_gpus, gpus)
    growth = fraction is None and options.gpu_allow_growth is not False
    return DevicePlan(
        gpus=tuple(
            GpuPlan(
                gpu=gpu,
                memory_limit_mib=None if fraction is None else _limit_mib(gpu, fraction, options.workers),
                growth=growth,
            )
            for gpu in visible
        ),
        intra_op_threads=options.intra_op_threads or max(1, cores // options.workers),
        inter_op_threads=options.inter_op_threads,
        notes=tuple(_notes_with_gpus(options) if visible else _notes_without_gpus(options)),
    )


def enact(device_plan: DevicePlan, config: Any) -> DeviceReport:
    """Carry a plan out on `config`, which is the module `tf.config` or answers like it.

    Raises:
        SettingsError: TensorFlow is initialised already, so it refuses.
    """
    try:
        _configure(device_plan, config)
    except (RuntimeError, ValueError) as error:
        # RuntimeError: the context exists. ValueError: cards were split or set to grow by somebody before.
        raise SettingsError(
            "Expected the device settings to be applied before TensorFlow's first operation in this process. "
            f"Received: a TensorFlow that is configured already ({error})."
        ) from error
    return DeviceReport(
        kind="gpu" if device_plan.gpus else "cpu",
        gpus=tuple(_report(part) for part in device_plan.gpus),
        intra_op_threads=config.threading.get_intra_op_parallelism_threads(),
        inter_op_threads=config.threading.get_inter_op_parallelism_threads() or None,
        notes=device_plan.notes,
    )


def _select(wanted: tuple[int, ...] | None, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    if wanted is None:
        return tuple(gpus)
    by_index = {gpu.index: gpu for gpu in gpus}
    known = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or "none, TensorFlow sees no GPU"
    if unknown := [index for index in wanted if index not in by_index]:
        raise SettingsError(
            f"Expected 'visible_gpus' to hold indices of GPUs that exist: {known}. "
            f"Received: {', '.join(map(str, unknown))}."
        )
    if len(set(wanted)) != len(wanted):
        raise SettingsError(
            f"Expected 'visible_gpus' to name each GPU once. Received: {', '.join(map(str, wanted))}."
        )
    return tuple(by_index[index] for index in wanted)


def _limit_mib(gpu: Gpu, fraction: float, workers: int) -> int:
    if gpu.total_bytes is None:
        raise SettingsError(
            f"Expected to learn from the NVIDIA driver (NVML) how much memory GPU {gpu.index} ({gpu.name}) "
            f"has, because 'gpu_memory_fraction' is set. Received: {gpu.total_missing or 'no answer'}. "
            "Without that setting memory grows on demand."
        )
    limit = int(fraction * gpu.total_bytes / workers / MIB)
    if limit < 1:
        raise SettingsError(
            f"Expected 'gpu_memory_fraction' to give each worker at least 1 MiB of GPU {gpu.index} "
            f"({gpu.name}). Received: {fraction} of {gpu.total_bytes} bytes for {workers} workers."
        )
    return limit


def _notes_with_gpus(options: DeviceOptions) -> list[str]:
    if options.gpu_memory_fraction is not None:
        return ["growth is off because gpu_memory_fraction is set"]
    if options.gpu_allow_growth is False and options.workers > 1:
        note = (
            f"gpu_allow_growth is off and no gpu_memory_fraction is set: the first of {options.workers} "
            "workers takes nearly all of each card's memory and leaves little to the others"
        )
        return [note]
    return []


def _notes_without_gpus(options: DeviceOptions) -> list[str]:
    return [
        f"{name} has no effect: no GPU is visible"
        for name in ("gpu_memory_fraction", "gpu_allow_growth")
        if getattr(options, name) is not None
    ]


def _configure(device_plan: DevicePlan, config: Any) -> None:
    config.threading.set_intra_op_parallelism_threads(device_plan.intra_op_threads)
    if device_plan.inter_op_threads is not None:
        config.threading.set_inter_op_parallelism_threads(device_plan.inter_op_threads)
    devices = config.list_physical_devices("GPU")
    config.set_visible_devices([devices[part.gpu.index] for part in device_plan.gpus], "GPU")
    for part in device_plan.gpus:
        device = devices[part.gpu.index]
        if part.memory_limit_mib is None:
            config.experimental.set_memory_growth(device, part.growth)
        else:
            limit = config.LogicalDeviceConfiguration(memory_limit=part.memory_limit_mib)
            config.set_logical_device_configuration(device, [limit])


def _report(part: GpuPlan) -> GpuReport:
    return GpuReport(
        name=part.gpu.name,
        total_bytes=part.gpu.total_bytes,
        memory_limit_bytes=None if part.memory_limit_mib is None else part.memory_limit_mib * MIB,
        growth=part.growth,
    )
