"""Owns the output shapes of the usual layers, told from their configs; `None` where that takes Keras itself.

Shapes have the batch axis first; `None` in one is a free axis.

Source: `compute_output_shape` of the classes in keras/src/layers of Keras 3.15.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from service.tools.doctor.graph import Node, Shape, as_shape, ends, entry_of, is_model, nodes

Rule = Callable[[dict[str, Any], list[Shape]], Shape | None]

_PASSES = 8
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_SAME = (
    *(
        "Activation",
        "ActivityRegularization",
        "AlphaDropout",
        "BatchNormalization",
        "Dropout",
        "ELU",
        "Softmax",
    ),
    *("GaussianDropout", "GaussianNoise", "Identity", "LayerNormalization", "LeakyReLU", "Masking", "PReLU"),
    *("ReLU", "Rescaling", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ThresholdedReLU"),
    *("Normalization", "UnitNormalization", "GroupNormalization", "InputLayer"),
)


def output_shapes(model: dict[str, Any], given: Shape | None = None, depth: int = 0) -> dict[str, Shape]:
    """Layer name -> output shape at its first use, for the layers where it can be told.

    Args:
        model: a model's config.
        given: the shape that a nested model is called with.
        depth: of nesting.
    """
    layers = nodes(model)
    found: dict[str, Shape] = {}
    for _ in range(_PASSES):  # the order of a config is nearly always that of computation
        before = len(found)
        for node in layers:
            if node.name not in found and (shape := _shape(node, found, given, depth)) is not None:
                found[node.name] = shape
        if len(found) in {before, len(layers)}:
            break
    return found


def _shape(node: Node, known: Mapping[str, Shape], given: Shape | None, depth: int) -> Shape | None:
    inputs = [known[name] for name in node.feeds if name in known]
    if len(inputs) != len(node.feeds) or not inputs:
        own = node.input_shape or (given if not node.feeds else None)
        if own is None:
            return None
        inputs = [own]
    try:
        if is_model(node) and depth < 20:
            inner = entry_of(node)
            shapes = output_shapes(inner, inputs[0], depth + 1)
            return shapes.get(ends(inner, "output_layers", nodes(inner))[0])
        return _of_layer(node, inputs)
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
    ):  # arguments that are not what they should be
        return None


def _of_layer(node: Node, inputs: list[Shape]) -> Shape | None:
    if node.class_name == "TimeDistributed" and (inner := node.inner):
        step = _of_layer(inner, [(inputs[0][0], *inputs[0][2:])])
        return step and (step[0], inputs[0][1], *step[1:])
    if node.class_name == "Bidirectional" and (inner := node.inner):
        return _both_ways(node.config, _of_layer(inner, inputs))
    rule = _RULES.get(node.class_name)
    return rule(node.config, inputs) if rule else None


def _both_ways(config: dict[str, Any], one: Shape | None) -> Shape | None:
    twice = config.get("merge_mode", "concat") == "concat"
    return one and ((*one[:-1], 2 * (one[-1] or 0)) if twice else one)


def _dense(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    return (*inputs[0][:-1], int(config["units"]))


def _recurrent(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    units = int(config["units"])
    return (*inputs[0][:2], units) if config.get("return_sequences") else (inputs[0][0], units)


def _windows(filters: str | None) -> Rule:
    """Convolutions and pooling; `filters` is the argument that tells the channels."""

    def rule(config: dict[str, Any], inputs: list[Shape]) -> Shape:
        batch, *spatial, channels = _channels_last(config, inputs[0])
        sizes = _each(config["kernel_size" if "kernel_size" in config else "pool_size"], len(spatial))
        steps = _each(config.get("strides") or (sizes if "pool_size" in config else 1), len(spatial))
        spread = _each(config.get("dilation_rate", 1), len(spatial))
        causal = config.get("padding", "valid") in {"same", "causal"}
        reach = [(size - 1) * gap + 1 for size, gap in zip(sizes, spread, strict=True)]
        moved = [
            axis and (math.ceil(axis / step) if causal else (axis - window) // step + 1)
            for axis, step, window in zip(spatial, steps, reach, strict=True)
        ]
        if filters is not None:
            channels = int(config[filters])
        elif "depth_multiplier" in config:
            channels = channels and channels * int(config["depth_multiplier"])
        return _as_ordered(config, (batch, *moved, channels))

    return rule


def _channels_last(config: dict[str, Any], shape: Shape) -> Shape:
    first = config.get("data_format") == "channels_first"
    return (shape[0], *shape[2:], shape[1]) if first else shape


def _as_ordered(config: dict[str, Any], shape: Shape) -> Shape:
    first = config.get("data_format") == "channels_first"
    return (shape[0], shape[-1], *shape[1:-1]) if first else shape


def _each(value: Any, count: int) -> list[int]:
    return [int(item) for item in value] if isinstance(value, list | tuple) else [int(value)] * count


def _global_pooling(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    batch, *spatial, channels = _channels_last(config, inputs[0])
    if config.get("keepdims"):
        return _as_ordered(config, (batch, *(1 for _ in spatial), channels))
    return (batch, channels)


def _flatten(_: dict[str, Any], inputs: list[Shape]) -> Shape:
    sizes = inputs[0][1:]
    return (inputs[0][0], None if None in sizes else math.prod(size for size in sizes if size is not None))


def _reshape(config: dict[str, Any], inputs: list[Shape]) -> Shape | None:
    target = as_shape(config["target_shape"])
    if target is None or -1 not in target:
        return target and (inputs[0][0], *target)
    total = _flatten(config, inputs)[1]
    known = math.prod(size for size in target if size not in {-1, None} and size is not None)
    return (inputs[0][0], *(total and total // known if size == -1 else size for size in target))


def _concatenate(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    axis = int(config.get("axis", -1)) % len(inputs[0])
    sizes = [shape[axis] for shape in inputs]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return (*inputs[0][:axis], total, *inputs[0][axis + 1 :])


def _embedding(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    return (*inputs[0], int(config["output_dim"]))


def _repeat(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    return (inputs[0][0], int(config["n"]), *inputs[0][1:])


def _upsampling(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    batch, *spatial, channels = _channels_last(config, inputs[0])
    factors = _each(config["size"], len(spatial))
    return _as_ordered(
        config, (batch, *(a and a * f for a, f in zip(spatial, factors, strict=True)), channels)
    )


def _padding(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    batch, *spatial, channels = _channels_last(config, inputs[0])
    pairs = (
        [_each(pair, 2) for pair in config["padding"]] if len(spatial) > 1 else [_each(config["padding"], 2)]
    )
    return _as_ordered(
        config, (batch, *(a and a + sum(p) for a, p in zip(spatial, pairs, strict=True)), channels)
    )


def _permute(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    return (inputs[0][0], *(inputs[0][axis] for axis in _each(config["dims"], 0)))


def _cropping(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    batch, *spatial, channels = _channels_last(config, inputs[0])
    pairs = [_each(p, 2) for p in config["cropping"]] if len(spatial) > 1 else [_each(config["cropping"], 2)]
    return _as_ordered(
        config, (batch, *(a and a - sum(p) for a, p in zip(spatial, pairs, strict=True)), channels)
    )


def _recurrent_pictures(config: dict[str, Any], inputs: list[Shape]) -> Shape:
    first = inputs[0]
    picture = _windows("filters")(config, [(first[0], *first[2:])])
    if picture is None or not config.get("return_sequences"):
        return picture or ()
    return (first[0], first[1], *picture[1:])


def _same(_: dict[str, Any], inputs: list[Shape]) -> Shape:
    return inputs[0]


_RULES: dict[str, Rule] = {
    **dict.fromkeys((*_SAME, *_MERGES), _same),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _recurrent),
    **dict.fromkeys(
        (f"{kind}{n}D" for kind in ("Conv", "SeparableConv") for n in (1, 2, 3)), _windows("filters")
    ),
    **dict.fromkeys(
        (f"{k}{n}D" for k in ("MaxPooling", "AveragePooling") for n in (1, 2, 3)), _windows(None)
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _windows(None)),
    **dict.fromkeys(
        (f"Global{k}Pooling{n}D" for k in ("Max", "Average") for n in (1, 2, 3)), _global_pooling
    ),
    **dict.fromkeys(("UpSampling2D", "UpSampling3D"), _upsampling),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"), _padding),
    **dict.fromkeys(("Cropping1D", "Cropping2D", "Cropping3D"), _cropping),
    "ConvLSTM2D": _recurrent_pictures,
    "Permute": _permute,
    "Dense": _dense,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Concatenate": _concatenate,
    "Embedding": _embedding,
    "RepeatVector": _repeat,
}
