"""How often the numbers of a large body are copied on their way to the model, and those of a result on their way back.

Told in two ways: by whether the arrays lie in the body's own memory, and by how much memory was taken at most, in units
of the tensor's bytes. The table of copies in ARCHITECTURE.md says who makes them and why.
"""

import io
import json
import tracemalloc

import numpy as np
import pytest
from scheduling import Desk

from service.api.bodies import InputReader
from service.api.http import HttpRequest
from service.api.intake import Intake
from service.api.openinference.inputs import read_inputs
from service.api.openinference.raw import read_raw
from service.api.openinference.requests import read_head, split_body
from service.payloads.codecs import encode_npy
from service.scheduling.scheduler import Job
from service.tensors import TensorSpec

ROWS = np.random.default_rng(7).random((8, 128, 128, 3)).astype("float32")
INTAKE = Intake("m", (TensorSpec("x", (None, 128, 128, 3), "float32"),), {}, 10**9, 10**9)
ROOM = 0.3  # what is looked at on the way (which numbers are finite) and small things, in units of the tensor


def of_zip(save):
    file = io.BytesIO()
    save(file, x=ROWS)
    return file.getvalue()


def of_numpy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def v2(askew):
    """A binary request whose numbers lie at an address that four divides, or askew."""
    head = {
        "name": "x",
        "shape": ROWS.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": ROWS.nbytes},
    }
    text = json.dumps({"inputs": [head]})
    while len(text) % 4 != askew:  # the text itself begins at an address that four divides
        text += " "
    return text.encode(), ROWS.tobytes()


def native(content_type, body):
    headers = {b"content-type": content_type.encode()}
    return body, lambda: InputReader(INTAKE).read(HttpRequest("POST", "/predict", b"", headers, body))


def binary(askew):
    head, numbers = v2(askew)
    body = head + numbers

    def read():
        text, rest = split_body(body, str(len(head)))
        return read_inputs(read_head(text).inputs, rest, INTAKE)

    return body, read


def raw():
    body = ROWS[:1].tobytes()
    return body, lambda: read_raw(body, INTAKE)


FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="x"; filename="x.npy"\r\n\r\n%b\r\n--edge--\r\n'
    % encode_npy(ROWS)
)
BODIES = {  # and how many tensors' worth of memory is taken at most, beside the body
    "npy": (lambda: native("application/x-npy", of_numpy(ROWS)), 0),
    "npy of float64": (lambda: native("application/x-npy", of_numpy(ROWS.astype(float))), 1),
    "npy in Fortran order": (lambda: native("application/x-npy", of_numpy(np.asfortranarray(ROWS))), 1),
    "npz": (lambda: native("application/x-npz", of_zip(np.savez)), 1),
    "form": (lambda: native("multipart/form-data; boundary=edge", FORM), 3),
    "V2 binary": (lambda: binary(askew=0), 0),
    "V2 binary, askew": (lambda: binary(askew=1), 1),
    "V2 raw": (raw, 0),
}


def most_memory(work):
    """What came out, and how many bytes were taken at most meanwhile."""
    work()  # what is made once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        found = work()
        return found, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_copied_no_more_often_than_it_must_be(name):
    make, copies = BODIES[name]
    body, read = make()
    found, taken = most_memory(read)
    array = found["x"]
    assert array.tobytes() == ROWS[: len(array)].tobytes()
    assert np.shares_memory(array, np.frombuffer(body, "uint8")) == (copies == 0)
    assert taken <= (copies + ROOM) * array.nbytes


@pytest.mark.parametrize("name", ["npy", "V2 binary"])
def test_a_lone_request_reaches_the_model_and_comes_back_in_the_memory_that_it_came_in(name):
    body, read = BODIES[name][0]()
    desk = Desk(max_batch_size=8)
    given = []

    def echo(batch):
        given.append(batch["x"])
        return {"y": batch["x"]}

    job = Job(read(), len(ROWS), np.inf, desk.finished.append)
    desk.scheduler.submit(desk.new_lane(max_batch_size=8, run=echo), job)
    desk.run_all()
    memory = np.frombuffer(body, "uint8")
    assert np.shares_memory(given[0], memory)
    assert np.shares_memory(job.outputs["y"], memory)


def test_requests_of_one_batch_are_copied_once_to_it_and_share_what_comes_out():
    desk = Desk(max_batch_size=8)
    results = []

    def double(batch):
        results.append(batch["x"] * 2)
        return {"y": results[0]}

    lane = desk.new_lane(max_batch_size=8, run=double)
    jobs = [Job({"x": ROWS[place : place + 2]}, 2, np.inf, desk.finished.append) for place in (0, 2, 4)]
    for job in jobs:
        desk.scheduler.submit(lane, job)
    desk.run_all()
    assert all(np.shares_memory(job.outputs["y"], results[0]) for job in jobs)
    assert np.concatenate([job.outputs["y"] for job in jobs]).tobytes() == (ROWS[:6] * 2).tobytes()


def test_a_result_is_copied_once_into_a_binary_reply():
    body, taken = most_memory(lambda: encode_npy(ROWS))
    assert body == of_numpy(ROWS)
    assert taken <= (1 + ROOM) * ROWS.nbytes


def test_the_numbers_of_a_json_body_are_taken_out_of_the_text_with_one_copy_of_it():
    text = json.dumps({"inputs": {"x": ROWS.tolist()}}).encode()
    _, read = native("application/json", text)
    found, taken = most_memory(read)
    assert found["x"].tobytes() == ROWS.tobytes()
    # The text of the list, and as much again for a moment: `bytes.translate` asks for room before it knows the rest.
    assert taken <= 2 * len(text) + ROOM * ROWS.nbytes
