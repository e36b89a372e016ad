"""What a second start takes from the first: the same answers without TensorFlow, and nothing that is damaged or old."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serving import MODELS, ROOT, serve

from service.cache.vault import Vault

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], "float32")
NAMES = ("digits", "iris", "pairs")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def rows_for(inputs):
    generator = np.random.default_rng(1)
    rows = {}
    for item in inputs:
        shape = (2, *item["shape"][1:])
        integers = item["dtype"].startswith("int")
        rows[item["name"]] = (
            generator.integers(0, 2, shape) if integers else generator.random(shape)
        ).astype(item["dtype"])
    return next(iter(rows.values())) if len(rows) == 1 else rows


def all_answers(service):
    """Every layer of every model that ships, most of which are not warm."""
    answers = {}
    for name in NAMES:
        document = service.get(f"/models/{name}").json
        rows = rows_for(document["inputs"])
        predicted = service.post_rows(f"/predict?model={name}", rows, "application/x-npz").npz
        answers |= {(name, output): array for output, array in predicted.items()}
        for layer in service.get(f"/models/{name}/layers").json["layers"]:
            path = layer["name"]
            reply = service.post_rows(f"/features?model={name}&layer={path}", rows, "application/x-npz")
            [answers[name, path]] = reply.npz.values()
    return answers


def opened_from(service):
    return {name: service.get(f"/models/{name}").json["opened_from"] for name in NAMES}


def has_tensorflow(service):
    [worker] = service.workers()
    return "/site-packages/tensorflow/" in Path(f"/proc/{worker}/maps").read_text()


@pytest.fixture(scope="module")
def first(cache):
    """The answers of the start that fills the cache."""
    with serve(cache_dir=cache) as service:
        service.until_ready()
        assert opened_from(service) == dict.fromkeys(NAMES, "file")
        assert has_tensorflow(service)
        return all_answers(service)


def test_a_second_start_answers_the_same_for_every_layer_without_tensorflow(cache, first):
    with serve(cache_dir=cache) as service:
        service.until_ready()
        assert opened_from(service) == dict.fromkeys(NAMES, "cache")
        second = all_answers(service)
        assert second.keys() == first.keys()
        for key, expected in first.items():
            scale = max(np.abs(expected).max(), 1e-30)
            assert np.abs(second[key] - expected).max() <= 1e-6 * scale, key
        times = np.array([[1.7e9, 1.7e12, 1e20, 0]], "float32")  # in seconds and milliseconds since 1970
        assert service.post_rows("/predict?model=iris", times, "application/x-npy").npy.shape == (1, 3)
        assert not has_tensorflow(service)
        assert service.metric("layertap_engine_fallbacks_total") == 0
        copies = service.get("/models/iris").json["weight_copies"]
        assert copies == {"keras": 0, "openvino_graph": 1}


IN_PROCESS = """
import json, sys, threading
from service.settings import load_settings
from service.wiring import Service
service = Service(load_settings())
service.start()
service._thread.join()
from numpy import zeros
client = service.flask().test_client()
reply = client.post("/predict?model=iris", json={"instances": [[0, 0, 0, 0]]})
heavy = {"tensorflow", "keras", "h5py", "tf_keras", "pynvml"}
print(json.dumps([reply.status_code, sorted({name.partition(".")[0] for name in sys.modules} & heavy)]))
service.stop()
"""


def test_nothing_of_tensorflow_or_keras_is_even_imported(cache, first):
    environ = {"LAYERTAP_CACHE_DIR": str(cache), "PATH": "/usr/bin:/bin", "LAYERTAP_MODELS_DIR": str(MODELS)}
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert first
    assert json.loads(done.stdout) == [200, []]


HUGE = np.array([[3e38, 0, 0, 0], [-3e38, 3e38, 2, 3]], "float32")
NOT_NUMBERS = '{"instances": [[NaN, 0, 0, 0], [Infinity, 1, 2, 3]]}'


def test_rows_that_openvino_does_not_compute_wait_for_tensorflow_and_hold_up_nobody(cache, first):
    """They are answered in their own time, with what TensorFlow gives; others do not wait with them."""

    def ask(rows):
        return service.post_rows("/predict?model=iris", rows, "application/x-npy")

    def ask_not_numbers():
        return service.post("/v1/models/iris:predict", NOT_NUMBERS)

    with serve(cache_dir="", engine="tensorflow") as service:
        service.until_ready()
        huge, not_numbers = ask(HUGE), ask_not_numbers()
        assert (huge.status, not_numbers.status) == (200, 200)
    with ThreadPoolExecutor(8) as pool, serve(cache_dir=cache) as service:
        service.until_ready()
        assert not has_tensorflow(service)
        odd = [pool.submit(ask, HUGE) for _ in range(4)]
        odd_too = [pool.submit(ask_not_numbers) for _ in range(4)]
        late = service.post_rows("/predict?model=iris&timeout_ms=1", HUGE)
        # Refused where a batch of rows like these is under way: it is known to take longer than that.
        assert (late.status, late.json["code"]) in [(504, "deadline_exceeded"), (429, "queue_full")]
        assert ask(IRIS).status == 200
        for reply in odd:
            # They share a batch. On some processors one of more rows takes another kernel: other last bits, and NaN's sign.
            np.testing.assert_allclose(reply.result().npy, huge.npy, rtol=1e-6)
        assert [reply.result().json for reply in odd_too] == [not_numbers.json] * 4
        assert has_tensorflow(service)
        assert service.get("/models/iris").json["weight_copies"]["keras"] == 1
        assert service.log.count("loading TensorFlow for what OpenVINO does not compute") == 1
        assert ask(HUGE).body == huge.body
        assert service.metric("layertap_failed_batches_total") == 0
    assert first


@pytest.fixture
def iris(tmp_path):
    """A models folder with iris alone, and its cache."""
    models = tmp_path / "models"
    shutil.copytree(MODELS / "iris", models / "iris")
    with serve(models, cache_dir=tmp_path / "cache", default_model="iris") as service:
        service.until_ready()
    [entry] = (tmp_path / "cache" / "models").iterdir()
    return models, tmp_path / "cache", entry


def start(models, cache):
    with serve(models, cache_dir=cache, default_model="iris") as service:
        service.until_ready()
        facts = service.get("/models/iris").json
        predictions = service.post_rows("/predict", IRIS, "application/x-npy").npy
        return facts["opened_from"], predictions, service.log


def test_a_damaged_entry_is_said_so_and_made_again(iris):
    models, cache, entry = iris
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 255
    entry.write_bytes(content)
    origin, predictions, log = start(models, cache)
    assert (origin, predictions.shape) == ("file", (2, 3))
    assert "a cache entry is of no use and is made again" in log
    origin, again, _ = start(models, cache)
    assert origin == "cache"
    np.testing.assert_allclose(again, predictions, rtol=1e-6)


def test_an_intact_entry_with_other_numbers_is_not_believed(iris):
    """As if OpenVINO computed something else than it did: whoever forged the checksum still fails the comparison."""
    models, cache, entry = iris
    vault = Vault(entry.parent, 2**30)
    parts = {name: bytes(part) for name, part in vault.read(entry.stem).items()}
    parts["graph.bin"] = bytes(reversed(parts["graph.bin"]))
    vault.write(entry.stem, parts)
    origin, predictions, log = start(models, cache)
    assert (origin, predictions.shape) == ("file", (2, 3))
    assert "to equal TensorFlow's" in log


def test_settings_of_no_matter_leave_it_and_others_do_not(iris):
    models, cache, _ = iris
    settings = models / "iris" / "model.toml"
    settings.write_text(settings.read_text() + 'layers = "listed"\n')
    assert start(models, cache)[0] == "cache"
    settings.write_text(settings.read_text() + "max_batch_size = 8\n")
    assert start(models, cache)[0] == "file"


def test_another_file_is_not_served_from_the_old_entry(iris):
    models, cache, _ = iris
    before = start(models, cache)[1]
    change = (
        "import sys, h5py\n"
        "with h5py.File(sys.argv[1], 'a') as file:\n"
        "    file.visititems(lambda _, item: item.write_direct(-item[...]) if isinstance(item, h5py.Dataset)"
        " and item.ndim == 2 else None)\n"
    )
    [model] = models.glob("iris/1/*.h5")
    subprocess.run([sys.executable, "-c", change, str(model)], check=True)
    origin, after, _ = start(models, cache)
    assert origin == "file"
    assert np.abs(after - before).max() > 0.01


def test_float32_instead_of_bfloat16_is_said_at_both_starts(tmp_path):
    """On an x86 processor that is held back to AVX2; on another one what is right there."""
    held_back = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    shutil.copytree(MODELS / "iris", tmp_path / "models" / "iris")
    tell = "from service.engines.openvino_library import capabilities; print(*capabilities())"
    told = subprocess.run(
        [sys.executable, "-c", tell],
        cwd=ROOT,
        env=os.environ | held_back,
        capture_output=True,
        text=True,
        check=True,
    )
    lacking = "BF16" not in told.stdout.split()
    reasons = []
    for origin in ("file", "cache"):
        settings = {"cache_dir": tmp_path / "cache", "precision": "bfloat16"}
        with serve(tmp_path / "models", environ=held_back, **settings) as service:
            service.until_ready()
            facts = service.get("/models/iris").json
        warnings = [
            record["message"]
            for record in service.records
            if record["level"] == "warning" and "bfloat16" in record["message"]
        ]
        assert (facts["engine"], facts["opened_from"]) == ("openvino", origin)
        assert facts["precision"] == ("float32" if lacking else "bfloat16")
        assert warnings == ([f"model 'iris' version 1: {facts['precision_reason']}"] if lacking else [])
        reasons.append(facts["precision_reason"])
    assert reasons[0] == reasons[1]
    assert (reasons[0] or "").startswith("Asked for bfloat16, gives float32, because: ") == lacking
