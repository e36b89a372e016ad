"""Padding to buckets, and layers compiled while others are served."""

import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import odd_models
import pytest
from keras_references import assert_equal_to_keras, predict
from serving import NPY, serve

BUCKETS = (1, 2, 4, 8, 16, 32)


def padding_of(rows):
    return next(bucket for bucket in BUCKETS if bucket >= rows) - rows


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    models = tmp_path_factory.mktemp("padded")
    odd_models.copy_shipped("iris", models)
    with serve(models, engine="tensorflow", batch_buckets="on", default_model="iris") as service:
        yield service.until_ready()


def test_padded_rows_are_never_seen_and_counted(padded, shipped_models):
    rows = np.random.default_rng(17).uniform(0, 8, (32, 4)).astype("float32")
    wanted = predict(shipped_models["iris"], rows)
    traces = padded.metric("layertap_traces_total", model="iris")
    padding = padded.metric("layertap_padding_rows_total", model="iris")
    for count in range(1, 33):
        got = padded.post_rows("/predict", rows[:count], NPY).npy
        assert_equal_to_keras(got, wanted[:count], f"{count} rows")
    assert padded.metric("layertap_traces_total", model="iris") == traces
    grown = padded.metric("layertap_padding_rows_total", model="iris") - padding
    assert grown == sum(padding_of(count) for count in range(1, 33))


def test_rows_beyond_a_batch_are_padded_in_the_last_one_only(padded, shipped_models):
    rows = np.random.default_rng(19).uniform(0, 8, (70, 4)).astype("float32")
    padding = padded.metric("layertap_padding_rows_total", model="iris")
    got = padded.post_rows("/predict", rows, NPY).npy
    assert_equal_to_keras(got, predict(shipped_models["iris"], rows), "70 rows")
    assert padded.metric("layertap_padding_rows_total", model="iris") - padding == padding_of(70 - 64)


@pytest.mark.alone
def test_requests_for_warm_outputs_do_not_wait_for_a_layer_being_compiled(tmp_path):
    """EfficientNetB0's last convolution takes seconds to trace; iris is answered all the while."""
    odd_models.copy_shipped("iris", tmp_path)
    keras.utils.set_random_seed(3)
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classes=10)
    (tmp_path / "efficientnet").mkdir()
    model.save(tmp_path / "efficientnet" / "model.h5")
    picture = np.zeros((1, 64, 64, 3), "float32")
    row = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")
    with serve(tmp_path) as service, service.connect() as connection:
        service.until_ready()

        def ask_for_a_cold_layer():
            begun = time.perf_counter()
            status = service.post_rows(
                "/features?model=efficientnet&layer=top_activation", picture, NPY
            ).status
            return status, time.perf_counter() - begun

        warm = []
        with ThreadPoolExecutor(1) as pool:
            cold = pool.submit(ask_for_a_cold_layer)
            while not cold.done():
                begun = time.perf_counter()
                reply = connection.post("/predict?model=iris", json_of(row))
                warm.append(time.perf_counter() - begun)
                assert reply.status == 200
    status, seconds = cold.result()
    usual = float(np.quantile(warm, 0.99))
    print(f"compiled in {seconds:.2f} s; {len(warm)} others: p99 {usual:.4f} s, max {max(warm):.3f} s")
    assert status == 200
    assert usual < seconds / 10
    assert max(warm) < seconds / 2  # nobody waited for its end


def json_of(rows):
    return b'{"instances": %s}' % str(rows.tolist()).encode()
