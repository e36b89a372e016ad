"""Damaged and made-up files: each is loaded or refused; no crash, no code run, no endless load."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutations
import pytest

ROOT = Path(__file__).parents[2]
WORKERS = 2
PATIENCE_S = 90  # for one file; most take a quarter of a second
FILES = 200
MANY_FILES = int(os.environ.get("FUZZ_FILES", "10000"))
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))


class Worker:
    """A process that loads what it is told to; a new one takes its place when it dies or hangs."""

    def __init__(self, errors):
        self._errors = errors
        self._process = None
        self._replies = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def load(self, path):
        """`[result, reason]`; a death or a hang of the process is a result of its own."""
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
            reply = self._replies.get(timeout=PATIENCE_S)
        except queue.Empty:
            self._end()
            return ["hung", f"no answer within {PATIENCE_S} s"]
        except BrokenPipeError:
            reply = ""
        if not reply:
            code = self._process.wait()
            self._end()
            return ["died", f"exit status {code}: {self._errors.read_text(errors='replace')[-2000:]}"]
        return json.loads(reply)

    def _start(self):
        path = [str(ROOT), str(ROOT / "tests")]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py"))],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": ""},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._replies = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout, self._replies), daemon=True).start()

    @staticmethod
    def _read(stream, replies):
        with stream:
            for line in stream:
                replies.put(line)
        replies.put("")

    def _end(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process = None


def fuzz(seeds, folder):
    """Seed, damage and reply for every seed, by as many workers as there are cores here."""
    marker = folder / "marker"

    def run(place):
        found = []
        with Worker(folder / f"errors{place}.txt") as worker:
            for seed in seeds[place::WORKERS]:
                path = folder / f"{seed}.h5"
                done = mutations.damage(seed, path, marker)
                found.append((seed, done, worker.load(path)))
                path.unlink()
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        results = [item for part in pool.map(run, range(WORKERS)) for item in part]
    assert not marker.exists(), "code of a file ran"
    return results


def judge(results):
    counts = Counter(reply[0] for _, _, reply in results)
    print(dict(counts))
    findings = [
        f"seed {seed}: {done}: {result}: {reason}"
        for seed, done, (result, reason) in results
        if result not in {"loaded", "refused"}
    ]
    assert not findings, "\n\n".join(findings[:20])
    assert counts["loaded"] > 0
    assert counts["refused"] > counts["loaded"] / 10


def test_hundreds_of_damaged_files_are_loaded_or_refused(tmp_path):
    judge(fuzz(range(FILES), tmp_path))


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_loaded_or_refused(tmp_path):
    judge(fuzz(range(1000 + FIRST_SEED, 1000 + FIRST_SEED + MANY_FILES), tmp_path))
