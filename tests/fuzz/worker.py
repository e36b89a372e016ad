"""A process that opens one model file after another as the service does, told on standard input.

Each line in is a path; each line out is JSON: "loaded", "refused", or "raised" with what was raised.
"""

import json
import resource
import sys
import traceback
from pathlib import Path

MEMORY_BYTES = 16 * 2**30


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
            result, reason = "refused", error.message
        except BaseException:  # noqa: BLE001 -- anything else is a finding
            result, reason = "raised", traceback.format_exc()
        sys.__stdout__.write(json.dumps([result, reason]) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
