"""What is declared is what is computed and what is sent: every layer kind of Keras x dtype x dialect x format.

Keras declares float32 for most layers that pass integers on. Here models of many outputs, one for each dtype and
engine, are asked through the real runtime, by every driver, as other people's clients would ask, and once more as a
second start finds them in the cache.
"""

import io
import json
from dataclasses import dataclass
from functools import cache, partial

import binary_tensors
import numpy as np
import pytest
from drivers import open_site
from keras import layers
from typed_layers import KINDS, model_of, rows_of

from service.api.endpoint import Limits
from service.cache.vault import Vault
from service.engines.choice import EngineOptions
from service.engines.openvino import WHOLE_LIMIT
from service.payloads.codecs import JSON, NPY, NPZ
from service.repository import scan
from service.scheduling.scheduler import Scheduler
from service.serving.opening import open_model, open_tensorflow
from service.serving.reopening import ModelCache
from service.serving.runtime import Runtime, RuntimeOptions

DTYPES = ("int32", "int64", "uint8", "bool", "float32", "float16", "float64")
ON_OPENVINO = ("int32", "int64", "uint8", "bool", "float32")
ROWS = 3
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),  # Keras, of float16
    pytest.mark.xdist_group("types"),  # a case begins where the one before it left the cache
]
BINARY_ONLY = {"float16"}  # the Open Inference Protocol has no JSON for it
LIMITS = Limits(max_input_bytes=10_000_000, max_image_pixels=10_000, max_reply_bytes=10_000_000)
CALLS = {"buckets_to": None, "on_trace": lambda: None, "on_padding": lambda _: None}
DT = {"bool": "DT_BOOL", "uint8": "DT_UINT8", "int32": "DT_INT32", "int64": "DT_INT64", "float16": "DT_HALF",
      "float32": "DT_FLOAT", "float64": "DT_DOUBLE"}  # fmt: skip
APART = {
    *["InputLayer", "Layer", "Wrapper", "RNN", "StackedRNNCells", "LSTMCell", "GRUCell", "SimpleRNNCell"],
    *["TimeDistributed", "Bidirectional", "SpectralNormalization", "Pipeline"],  # of others
    *["Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"],  # of code
    *["StringLookup", "TextVectorization", "HashedCrossing"],  # of text, or of pairs
    *["STFTSpectrogram", "MelSpectrogram", "MaxNumBoundingBoxes"],
    *["ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"],
    # They change pictures at random, in training alone; RandomFlip stands for them.
    *[name for name in dir(layers) if name.startswith("Random")],
    *["AugMix", "AutoContrast", "CutMix", "Equalization", "MixUp", "RandAugment", "Solarization"],
    "ContrastLimitedAdaptiveHistogramEqualization",
    "GroupedQueryAttention",  # a file names it GroupQueryAttention, which the vetting of files refuses
}


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Args:
        site: where.
        name: of the model.
        rows: what is sent.
        expected: output -> what Keras gives for it.
        opened_from: `file`, or `cache`.
    """

    site: object
    name: str
    rows: dict
    expected: dict

    def ask(self, driver, path, headers, body, query="", *, status=200):
        answer = getattr(self.site, driver).send("POST", path, query, headers, body)
        assert answer.status == status, answer.body[:1000]
        return answer

    def look(self, path):
        answer = self.site.flask.send("GET", path)
        assert answer.status == 200, answer.body
        return answer.json()


class _Opener:
    """Opens models as the service does, from the cache where they are kept there."""

    def __init__(self, vault):
        self._cache = ModelCache(Vault(vault, 2**30))

    def __call__(self, entry, version):
        options = EngineOptions(threads=1, max_batch_size=4).of(entry.config)
        key_now = partial(self._cache.key, entry, version, options)
        key = key_now()
        late = partial(open_tensorflow, entry, version, **CALLS)
        found = self._cache.find(key, options, late)
        if found is not None:
            return found
        opened = open_model(entry, version, tolerance=1e-4, engine_options=options, **CALLS)
        if key is not None:
            self._cache.keep(key, opened, key_now)
        return opened


def start(folder, vault):
    scheduler = Scheduler(max_queue_rows=1024)
    runtime = Runtime(
        partial(scan, folder), _Opener(vault), scheduler, RuntimeOptions(None, 4, 8, 60.0, 600.0)
    )
    scheduler.start()
    runtime.load()
    return runtime


def names_of(dtype, engine):
    return [
        name for name, kind in KINDS.items() if kind.suits(dtype) and (engine == "tensorflow" or kind.moves)
    ]


def write(folder, dtype, engine):
    """Saves a model and tells what Keras gives."""
    model = model_of(dtype, names_of(dtype, engine))
    folder.mkdir(parents=True)
    model.save(folder / "model.h5")
    (folder / "model.toml").write_text(f'engine = "{engine}"\n')
    # Larger ones are computed by TensorFlow, which a second start does not load: see test_openvino_integers.
    rows = rows_of(dtype, ROWS, largest=2**40 + 1 if engine == "tensorflow" else WHOLE_LIMIT - 1)
    outputs = model.predict(list(rows.values()), verbose=0)
    return rows, dict(zip(model.output_names, outputs, strict=True))


CASES = [
    *((dtype, "tensorflow", "file") for dtype in DTYPES),
    *((dtype, "openvino", opened_from) for dtype in ON_OPENVINO for opened_from in ("file", "cache")),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a model once: its folder, rows, and what Keras gives for them."""

    @cache
    def write_once(dtype, engine):
        folder = tmp_path_factory.mktemp("types")
        return folder, *write(folder / "models" / f"{dtype}_{engine}", dtype, engine)

    return write_once


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def served(request, written):
    dtype, engine, opened_from = request.param
    folder, rows, expected = written(dtype, engine)
    name = f"{dtype}_{engine}"
    if opened_from == "cache" and not (folder / "vault").exists():  # as the case before leaves it
        start(folder / "models", folder / "vault").stop()
    runtime = start(folder / "models", folder / "vault")
    with open_site(runtime=runtime, limits=LIMITS, max_body_bytes=LIMITS.max_input_bytes) as site:
        served = Served(site, name, rows, expected)
        told = served.look(f"/models/{name}")
        assert (told["state"], told["engine"], told["opened_from"]) == ("ready", engine, opened_from)
        yield served


@pytest.fixture(params=["flask", "express", "direct"])
def driver(request):
    return request.param


# -- what is sent -----------------------------------------------------------------------------------------


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def columns(arrays):
    return json.dumps({"inputs": {name: array.tolist() for name, array in arrays.items()}}).encode()


def rows_by_name(arrays):
    rows = [{name: array[row].tolist() for name, array in arrays.items()} for row in range(ROWS)]
    return json.dumps({"instances": rows}).encode()


NATIVE = {"npz": (NPZ, npz), "columns": (JSON, columns), "rows": (JSON, rows_by_name)}


# -- what comes back --------------------------------------------------------------------------------------


def check_arrays(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        check_values(name, got[name], array)


def check_values(name, got, wanted):
    assert got.shape == wanted.shape, name
    if wanted.dtype.kind == "f":
        scale = np.abs(wanted.astype("float64")).max()
        tolerance = {2: 2e-3, 4: 1e-5, 8: 1e-5}[wanted.dtype.itemsize] * scale
        np.testing.assert_allclose(
            got.astype("float64"), wanted.astype("float64"), rtol=0, atol=tolerance, err_msg=name
        )
    else:
        np.testing.assert_array_equal(got, wanted, name)


def check_lists(got, expected):
    """Numbers of JSON: booleans, whole ones and others by what was computed, with all of their digits."""
    assert list(got) == list(expected)
    written = {"b": bool, "i": int, "u": int, "f": float}
    for name, array in expected.items():
        numbers = np.array(got[name], dtype=object)
        assert {type(number) for number in numbers.flat} == {written[array.dtype.kind]}, name
        check_values(name, numbers.astype(array.dtype), array)


# -- the tests --------------------------------------------------------------------------------------------


def test_every_layer_kind_of_keras_is_among_them():
    known = {
        name for name, value in vars(layers).items() if isinstance(value, type) and value.__name__ == name
    }
    tested = {type(KINDS[name].make()).__name__ for name in KINDS}
    assert known - tested - APART == {"InputSpec"}


def test_what_is_said_of_a_model_is_what_it_computes(served):
    wanted = {name: str(array.dtype) for name, array in served.expected.items()}
    name = served.name
    native = served.look(f"/models/{name}")
    assert {item["name"]: item["dtype"] for item in native["outputs"]} == wanted
    assert {item["dtype"] for item in native["inputs"]} == {str(served.rows["row"].dtype)}
    listed = {item["name"]: item for item in served.look(f"/models/{name}/layers")["layers"]}
    for path, dtype in wanted.items():
        values = np.prod(served.expected[path].shape[1:], dtype=int)
        assert (listed[path]["dtype"], listed[path]["row_bytes"]) == (
            dtype,
            values * np.dtype(dtype).itemsize,
        )
    v2 = served.look(f"/v2/models/{name}")
    datatypes = {path: binary_tensors.DATATYPES[dtype] for path, dtype in wanted.items()}
    assert {item["name"]: item["datatype"] for item in v2["outputs"]} == datatypes
    config = served.look(f"/v2/models/{name}/config")
    assert {item["name"]: item["data_type"].removeprefix("TYPE_") for item in config["output"]} == datatypes
    signature = served.look(f"/v1/models/{name}/metadata")["metadata"]["signature_def"]["signature_def"]
    told = {path: item["dtype"] for path, item in signature["serving_default"]["outputs"].items()}
    assert told == {path: DT[dtype] for path, dtype in wanted.items()}


@pytest.mark.parametrize("encoding", NATIVE)
def test_the_native_api_gives_arrays(served, driver, encoding):
    media, encode = NATIVE[encoding]
    headers = {"Content-Type": media, "Accept": NPZ}
    answer = served.ask(driver, "/predict", headers, encode(served.rows))
    with np.load(io.BytesIO(answer.body)) as arrays:
        check_arrays(dict(arrays), served.expected)


def test_the_native_api_gives_lists(served, driver):
    answer = served.ask(driver, "/predict", {"Content-Type": NPZ, "Accept": JSON}, npz(served.rows))
    check_lists(answer.json()["predictions"], served.expected)


def test_layers_are_what_outputs_are(served, driver):
    """Each alone as npy is a function of its own; together with others it is a lane of its own."""
    few = list(served.expected)[:: len(served.expected) // 4]
    body = npz(served.rows)
    for name in few:
        headers = {"Content-Type": NPZ, "Accept": NPY}
        answer = served.ask(driver, "/features", headers, body, f"layer={name}")
        check_arrays({name: np.load(io.BytesIO(answer.body))}, {name: served.expected[name]})
    query = "&".join(f"layer={name}" for name in few)
    answer = served.ask(driver, "/features", {"Content-Type": NPZ, "Accept": JSON}, body, query)
    check_lists(answer.json()["features"], {name: served.expected[name] for name in few})


@pytest.mark.parametrize("encode", [columns, rows_by_name])
def test_tensorflow_serving(served, driver, encode):
    answer = served.ask(driver, f"/v1/models/{served.name}:predict", {}, encode(served.rows))
    document = answer.json()
    found = document.get("outputs")
    if found is None:
        rows = document["predictions"]
        found = {name: [row[name] for row in rows] for name in rows[0]}
    check_lists(found, served.expected)


def test_tensorflow_serving_gives_one_layer(served, driver):
    name = next(iter(served.expected))
    body = b'{"signature_name": "layer:%b", ' % name.encode() + columns(served.rows)[1:]
    answer = served.ask(driver, f"/v1/models/{served.name}:predict", {}, body)
    check_lists({name: answer.json()["outputs"]}, {name: served.expected[name]})


@pytest.mark.parametrize("sent_binary", [True, False], ids=["from binary", "from JSON"])
def test_open_inference_binary(served, driver, sent_binary):
    sent = binary_tensors.encode(served.rows, binary=sent_binary, parameters={"binary_data_output": True})
    path = f"/v2/models/{served.name}/infer"
    if served.rows["row"].dtype == np.float16 and not sent_binary:
        refusal = served.ask(driver, path, sent.headers, sent.body, status=400)
        assert "FP16 has no form in JSON" in refusal.json()["error"]
        return
    answer = served.ask(driver, path, sent.headers, sent.body)
    check_arrays(binary_tensors.decode(answer)[1], served.expected)


def test_open_inference_json(served, driver):
    expected = {name: array for name, array in served.expected.items() if str(array.dtype) not in BINARY_ONLY}
    sent = binary_tensors.encode(served.rows, dict.fromkeys(expected))
    answer = served.ask(driver, f"/v2/models/{served.name}/infer", sent.headers, sent.body)
    document = answer.json()
    for output in document["outputs"]:
        array = expected[output["name"]]
        assert output["datatype"] == binary_tensors.DATATYPES[str(array.dtype)]
        assert output["shape"] == list(array.shape)
    check_lists(
        {
            item["name"]: np.reshape(np.array(item["data"], object), item["shape"])
            for item in document["outputs"]
        },
        expected,
    )
