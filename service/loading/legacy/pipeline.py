"""Owns the order in which a config is repaired: which repair comes after which, and what each of them sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeAlias

from service.errors import LoadError
from service.loading.legacy import activations, keras1, keras2, lambdas, merging, operators, recurrent
from service.loading.legacy.arguments import custom_config, training_only, unknown_arguments
from service.loading.legacy.graph import calls, is_functional, is_model
from service.loading.legacy.naming import slashes
from service.loading.legacy.origin import Origin, Repaired
from service.loading.legacy.outline import refuse_misshapen
from service.loading.legacy.record import Entry, Record, layer_name
from service.loading.legacy.sequential import input_arguments, input_layer, listed_sequential
from service.loading.legacy.serialised import inner_entries, is_entry, module_keys
from service.loading.legacy.values import dtype_of_input, dtype_policy, plain
from service.loading.node_order import refuse_endless_graphs

_UNKNOWN = "2.15.0-tf"  # tf.keras' JSON does not say its version; its dialect changed little

Repair: TypeAlias = Callable[[Entry, Record], None]

MODEL_REPAIRS: tuple[Repair, ...] = (listed_sequential, merging.merged_sequential, input_layer, slashes)
"""For every model, before its layers; the outer model first."""

LAYER_REPAIRS: tuple[Repair, ...] = (
    keras1.from_keras1,
    merging.merge_modes,
    keras2.renamed_classes,
    keras2.dropped_classes,
    recurrent.cudnn,
    recurrent.gru_before_reset_after,
    recurrent.gates_before_sigmoid,
    activations.hard_sigmoid,
    activations.custom_activation,
    dtype_policy,
    dtype_of_input,
    input_arguments,
    keras2.leaky_slope,
    keras2.one_axis,
    keras2.bilinear_upsampling,
    keras2.causal_attention,
    keras2.category_encoding,
    keras2.masks_of_merged,
    lambdas.registered_function,
    lambdas.stored_function,
    operators.operator,
    training_only,
    recurrent.time_major,
    unknown_arguments,
)
"""For every layer of Keras, in this order: names first, then what they mean, then what is left over."""

CUSTOM_REPAIRS: tuple[Repair, ...] = (
    activations.hard_sigmoid,
    activations.custom_activation,
    dtype_policy,
    dtype_of_input,
    custom_config,
)
"""For layers that custom objects define: only what every layer's constructor meets."""


def repair(config: dict[str, Any], origin: Origin, custom: Collection[str] = ()) -> Repaired:
    """The config as Keras 3 reads it, and what was changed.

    Args:
        config: `{"class_name": ..., "config": ...}` as it stands in the file; it is not changed.
        origin: what the file says of its writer.
        custom: the names of custom objects; their configs stay as they are, save for what Keras itself would
            stumble over. A Lambda layer of one of these names runs that function.

    Raises:
        LoadError: the config asks for something that Keras 3 would silently compute differently, or is damaged.
    """
    refuse_misshapen(plain(config))
    refuse_endless_graphs(config)
    keras3 = origin.major >= 3 or "module" in config
    if origin.version is None and not keras3 and not keras1.wrote(config):
        origin = replace(origin, version=_UNKNOWN)
    record = Record(origin, custom)
    if keras3:
        entry = copy.deepcopy(config)
        _keras3(entry, record)
    else:
        entry = {key: plain(config[key]) for key in ("class_name", "config")}
        record.look_at(_everything(entry))
        _repaired(entry, record)
    return Repaired(entry, record.sentences(), record.names)


def _repaired(entry: Entry, record: Record) -> None:
    if is_model(entry):
        repairs: tuple[Repair, ...] = MODEL_REPAIRS
    else:
        repairs = CUSTOM_REPAIRS if record.is_custom(entry) else LAYER_REPAIRS
    for step in repairs:
        _apply(step, entry, record)
    for inner in inner_entries(entry):
        _repaired(inner, record)
    if is_functional(entry):
        _apply(calls, entry, record)
    _apply(module_keys, entry, record)


def _apply(step: Repair, entry: Entry, record: Record) -> None:
    """One repair of one entry; what a repair cannot read is told by the layer that has it."""
    kind, name = entry["class_name"], layer_name(entry)
    try:
        step(entry, record)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LoadError(
            f"Expected the {kind} '{name}' as Keras writes it. Received: one that the repair {step.__name__} "
            f"cannot read ({type(error).__name__}: {error}).",
            mend="Save the model again with model.save and copy the whole file.",
        ) from error


def _keras3(entry: Entry, record: Record) -> None:
    """Keras 3's own configs are right; only its reader of `.h5` files is passed by."""
    for inner in _everything(entry):
        lambdas.registered_function(inner, record)
        if is_entry(inner) and "module" not in inner:
            module_keys(inner, record)


def _everything(value: Any) -> list[Entry]:
    """Every serialised object with a config, wherever it stands."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("class_name"), str) and "config" in item:
                found.append(item)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found
