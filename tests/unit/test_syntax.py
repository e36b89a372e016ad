"""Python text becomes trees and literals on many threads at once, and none of them notices the others."""

import gc
import io
import sys
import threading
import time

import numpy as np
import pytest
from serving import Answer

from service.cache import keys
from service.loading.old_code import find_old_lines
from service.payloads.codecs import decode_npy
from service.tools.doctor.definitions import definitions

THREADS = 6
SOURCE = "from keras import backend as K\n" + "x = K.dot(x, [1, (2, {3: -4})])\n" * 40


@pytest.fixture(autouse=True)
def _others_run_while_a_tree_is_built():
    """Every few objects garbage is collected, and the thread that does it lets the others run."""

    def let_go(phase, _):
        if phase == "start":
            time.sleep(0)

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(let_go)
    gc.freeze()  # what is there already need not be looked through each time
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(let_go)
    gc.unfreeze()


def odd_npy():
    """An npy file whose header is written as nobody writes it, so that Python has to evaluate it."""
    head = "{'descr': '<f4', 'fortran_order': (False), 'shape': (2, (2))}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(16)


def works(folder):
    path = folder / "custom_objects.py"
    path.write_text(SOURCE + "import nowhere_to_be_found\n")
    body, lines = odd_npy(), len(find_old_lines(SOURCE))
    assert lines == 41
    return {
        "a file is told line by line": lambda: len(find_old_lines(SOURCE)) == lines,
        "its imports are looked at": lambda: "nowhere_to_be_found" in keys._foreign_imports(path),
        "its definitions are listed": lambda: definitions([path]) == {"K": str(path)},
        "an odd npy header is read": lambda: decode_npy(body).shape == (2, 2),
    }


def beside_each_other(*works, turns):
    """What went wrong when the works were done over and over, each by several threads."""
    together, wrong = threading.Barrier(THREADS), []

    def work(number):
        together.wait()
        for turn in range(turns):
            try:
                if not works[(number + turn) % len(works)]():
                    wrong.append("another answer")
            except Exception as error:  # noqa: BLE001 whatever it is
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_nothing_goes_wrong_when_all_of_it_is_done_at_once(tmp_path):
    assert beside_each_other(*works(tmp_path).values(), turns=20) == []


def test_clients_of_the_tests_read_their_answers_at_once():
    rows = np.arange(12, dtype="float32").reshape(3, 4)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, rows)
    np.savez(npz, rows=rows)
    one, several = Answer(200, {}, npy.getvalue()), Answer(200, {}, npz.getvalue())
    reads = [
        lambda: np.array_equal(one.npy, rows),
        lambda: np.array_equal(several.npz["rows"], rows),
    ]
    assert beside_each_other(*reads, turns=200) == []
