"""Owns JSON with NaN, Infinity and -Infinity, which TensorFlow Serving and Triton read though they are no JSON.

Sources: tensorflow_serving/util/json_tensor.cc and triton-inference-server/common/include/triton/common/triton_json.h,
both of which parse with RapidJSON's kParseNanAndInfFlag. NVIDIA's perf_analyzer sends such numbers.
"""

from __future__ import annotations

import json
import math
from typing import Any

from service.payloads.codecs import pay_for_objects

_TOKENS = (b"NaN", b"Infinity")
_TIMES = 3  # the text is written again
_MAX_DIGITS = 20  # of whole numbers in 64 bits, a sign included
_WHOLE = range(-(2**63), 2**64)  # others make a float, as orjson has it


def may_have_tokens(body: bytes) -> bool:
    """Whether the tokens are anywhere in a text, be it in a string."""
    return any(token in body for token in _TOKENS)


def loads_with_tokens(body: bytes) -> Any:
    """The value of a JSON text in which the tokens may stand for numbers; else as strict as usual.

    Raises:
        ValueError, RecursionError: it is none.
    """
    pay_for_objects(body, _TIMES)
    value = json.loads(body.decode("utf-8-sig"), parse_int=_whole, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return value


def _whole(digits: str) -> int | float:
    number = int(digits) if len(digits) <= _MAX_DIGITS else _WHOLE.stop
    return number if number in _WHOLE else _finite(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large for a double")
    return number
