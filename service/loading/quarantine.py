"""Owns the first look at a model file, in a process of its own: libhdf5 can crash or hang on a damaged one.

The child reads everything that loading will read: the config, every attribute and every array. What it survives,
the service survives. It imports h5py and nothing of Keras, so it takes a quarter of a second.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

from service.errors import LoadError
from service.loading import archive, hdf5

_ROOT = Path(__file__).parents[2]
_MEND = "The file is damaged: copy or save it again."
_REFUSED = 3
_PATIENCE_S = 30.0
_BYTES_PER_S = 20e6  # slower than any disk that models lie on
_MEMORY_BYTES = 4 * 2**30


def first_look(path: Path, patience_s: float = _PATIENCE_S) -> None:
    """Reads a whole model file in a child process.

    Args:
        path: the file.
        patience_s: how long the child may take, besides the time for the file's size.

    Raises:
        LoadError: the file is refused, or reading it crashed, hung or took too much memory.
    """
    size = path.stat().st_size
    command = [sys.executable, "-m", "service.loading.quarantine", str(path.resolve())]
    try:
        child = subprocess.run(  # noqa: S603 this very interpreter, and a path that is no shell's
            command,
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=patience_s + size / _BYTES_PER_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(
            f"Expected to read the file within {error.timeout:.0f} s. Received: no end.", mend=_MEND
        ) from error
    if child.returncode == _REFUSED:
        told = json.loads(child.stdout)
        raise LoadError(told["message"], mend=told["mend"])
    if child.returncode != 0:
        raise LoadError(f"Expected an intact file. Received: reading it {_ending(child)}.", mend=_MEND)


def _ending(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode < 0:
        return f"crashed with {signal.Signals(-child.returncode).name}"
    last = child.stderr.strip().splitlines()[-1:] or ["no word"]
    return f"failed: {last[0]}"


def read_all(path: Path) -> None:
    """Reads a whole model file in this process, which a damaged one may crash.

    Raises:
        LoadError: the file is refused.
    """
    if archive.is_archive(path):
        archive.read_config(path)
        for _ in archive.read_arrays(path):
            pass
        return
    contents = hdf5.look(path)
    for _ in hdf5.read(path, contents.arrays):
        pass


def _main(path: Path) -> int:
    limit = _MEMORY_BYTES + 2 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        read_all(path)
    except LoadError as error:
        sys.stdout.write(json.dumps({"message": error.message, "mend": error.mend}))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
