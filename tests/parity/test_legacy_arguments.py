"""The arguments that Keras' layers take, as the repairs know them, are those of the installed Keras.

`python tests/parity/test_legacy_arguments.py` writes the table anew.
"""

import inspect
import json
from pathlib import Path

import keras

TABLE = Path(__file__).parents[2] / "service" / "loading" / "legacy" / "keras3_arguments.json"


def constructor_arguments(kind):
    names = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if base is keras.layers.Layer or not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return sorted(names - {"self"})


def installed():
    return {
        name: constructor_arguments(kind)
        for name, kind in sorted(vars(keras.layers).items())
        if inspect.isclass(kind) and issubclass(kind, keras.layers.Layer)
    }


def test_the_table_is_that_of_the_installed_keras():
    assert json.loads(TABLE.read_text()) == installed()


if __name__ == "__main__":
    lines = (f"  {json.dumps(name)}: {json.dumps(arguments)}" for name, arguments in installed().items())
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
