"""Damage to model files: flipped bits, changed HDF5 structure, changed configs. The same seed gives the same file."""

import json
import random
import shutil
from pathlib import Path

import h5py
import hostile
import numpy as np

CORPUS = Path(__file__).parents[1] / "corpus"

_WORDS = (
    "",
    "Dense",
    "Lambda",
    "os",
    "keras.layers",
    "__lambda__",
    "x" * 3000,
    "\u0000",
    "a/b",
    "../x",
    "float99",
)
_NUMBERS = (-1, 0, 1, 2, 7, 2**31, 2**63, 10**30, -(2**40), 0.5, float("inf"), float("nan"))
_CLASSES = (
    *(
        "Dense",
        "Conv2D",
        "LSTM",
        "Embedding",
        "Lambda",
        "Flatten",
        "Reshape",
        "Merge",
        "TFOpLambda",
        "InputLayer",
    ),
    *(
        "Sequential",
        "Model",
        "Functional",
        "TimeDistributed",
        "Bidirectional",
        "RepeatVector",
        "UpSampling2D",
    ),
    *("TFSMLayer", "StringLookup", "function", "__numpy__", "__lambda__", "system", "Nonsense"),
)


def corpus_files():
    """Every file of the corpus, whole models and weights alone."""
    return sorted(CORPUS.rglob("*.h5"))


def damage(seed, target, marker):
    """Writes a damaged file of the corpus to `target`; says what was done to it."""
    draw = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    source = draw.choice(corpus_files())
    change = draw.choice(
        (flip_bits, flip_bits, overwrite_block, cut, change_structure, change_config, change_config)
    )
    shutil.copyfile(source, target)
    try:
        change(draw, target, marker)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        # h5py itself may refuse to write the damage; what is left on the disk is damaged enough
        return f"{source.name} {change.__name__} ({type(error).__name__})"
    return f"{source.name} {change.__name__}"


def flip_bits(draw, path, _):
    data = bytearray(path.read_bytes())
    for _flip in range(draw.choice((1, 2, 8, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def overwrite_block(draw, path, _):
    data = bytearray(path.read_bytes())
    start, size = draw.randrange(len(data)), draw.choice((4, 8, 64, 512))
    fill = draw.choice((b"\x00", b"\xff", None))
    data[start : start + size] = draw.randbytes(size) if fill is None else fill * size
    path.write_bytes(data)


def cut(draw, path, _):
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))] + draw.choice((b"", b"\x00" * 4096)))


def change_structure(draw, path, _):
    with h5py.File(path, "r+") as file:
        items = []
        file.visititems(lambda _, item: items.append(item))
        for _change in range(draw.choice((1, 1, 3))):
            draw.choice((_drop_item, _change_attribute, _change_dtype, _change_shape, _add_link))(
                draw, file, items
            )


def _drop_item(draw, file, items):
    del file[draw.choice(items).name]


def _change_attribute(draw, file, items):
    item = draw.choice([file, *(item for item in items if len(item.attrs))])
    name = draw.choice(sorted(item.attrs) or ["model_config"])
    value = draw.choice(
        (None, 5, "text", np.arange(4), np.array([b"a", b"\xff"]), np.void(b"raw"), ["x"] * 50)
    )
    if value is None:
        del item.attrs[name]
    else:
        item.attrs[name] = value


def _change_dtype(draw, file, items):
    item = draw.choice([item for item in items if isinstance(item, h5py.Dataset)])
    name, values = item.name, item[()]
    del file[name]
    kind = draw.choice(("f2", "f8", "i4", "u1", "c8", "bool", "S3"))
    file[name] = np.asarray(values).astype(kind)


def _change_shape(draw, file, items):
    item = draw.choice([item for item in items if isinstance(item, h5py.Dataset)])
    name = item.name
    del file[name]
    shape = draw.choice(((), (0,), (1,), (3, 3), (7, 1, 2), (2,) * 20))
    file[name] = np.ones(shape, "f4")


def _add_link(draw, file, items):
    name = f"{draw.choice(items).parent.name}/linked"
    file[name] = draw.choice((h5py.SoftLink("/"), h5py.ExternalLink("/etc/passwd", "/"), file))


def change_config(draw, path, marker):
    with h5py.File(path, "r+") as file:
        text = file.attrs.get("model_config")
        if text is None:
            change_structure_of_weights(draw, file)
            return
        config = json.loads(text)
        for _change in range(draw.choice((1, 1, 2, 5))):
            places = list(_places(config))
            holder, key = draw.choice(places)
            holder[key] = _other(draw, holder[key], key, marker, places)
        file.attrs["model_config"] = json.dumps(config)
        if draw.random() < 0.3:
            file.attrs["keras_version"] = draw.choice(("1.0.0", "2.2.4", "2.15.0", "3.15.1", "9", "", "x.y"))


def change_structure_of_weights(draw, file):
    names = list(file.attrs.get("layer_names", []))
    draw.shuffle(names)
    file.attrs["layer_names"] = np.array(names[: draw.randrange(len(names) + 1)] or [b"none"])


def _places(value):
    """Every place in a config as (container, key)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from _places(item)


def _other(draw, value, key, marker, places):
    if key == "class_name" and draw.random() < 0.7:
        return draw.choice(_CLASSES)
    if key in {"function", "activation"} and draw.random() < 0.5:
        return draw.choice(([hostile.payload(marker), None, None], hostile.payload(marker)))
    if isinstance(value, int | float) and draw.random() < 0.7:
        return draw.choice(_NUMBERS)
    if isinstance(value, list) and draw.random() < 0.5:
        return draw.choice(([], value + value, value[::-1], value[:-1], [[value]], value * 20))
    if isinstance(value, dict) and draw.random() < 0.5:
        return draw.choice(({}, [value], {**value, "extra": 1}, {"class_name": "Dense", "config": {}}))
    holder, other = draw.choice(places)
    return draw.choice((*_NUMBERS[:6], *_WORDS, None, True, [], {}, holder[other]))
