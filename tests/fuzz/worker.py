"""A process that opens one model file after another as the service does, told on standard input.

Each line in is a path; each line out is JSON: "loaded", "refused", or "raised" with what was raised. A refusal that
only repeats an exception which our own code stumbled into counts as raised.
"""

import json
import resource
import sys
import traceback
from pathlib import Path

MEMORY_BYTES = 16 * 2**30
SERVICE = str(Path(__file__).parents[2] / "service")
STUMBLES = (AttributeError, IndexError, KeyError, NameError, RecursionError, TypeError)


def stumbled(error):
    """The traceback of an exception of our own code that a refusal passes on, with no words of its own for it."""
    seen, waiting = set(), [error.__cause__, error.__context__]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        waiting += [cause.__cause__, cause.__context__]
        where = traceback.extract_tb(cause.__traceback__)[-1].filename
        told = f"can build. Received: {type(cause).__name__}: {cause}"[:200]
        if isinstance(cause, STUMBLES) and where.startswith(SERVICE) and told in error.message:
            return "".join(traceback.format_exception(cause))
    return None


def main():
    from service.errors import LoadError  # noqa: PLC0415 -- TensorFlow is imported under the limit
    from service.loading.loader import load  # noqa: PLC0415
    from service.model_config import ModelConfig  # noqa: PLC0415

    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        try:
            load(path, ModelConfig())
            result, reason = "loaded", ""
        except LoadError as error:
            found = stumbled(error)
            result, reason = ("raised", found) if found else ("refused", error.message)
        except BaseException:  # noqa: BLE001 -- anything else is a finding
            result, reason = "raised", traceback.format_exc()
        sys.__stdout__.write(json.dumps([result, reason]) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
