"""Owns the golden files: requests, and the very bytes that answer them.

`PYTHONPATH=.:tests python tests/contract/golden.py` writes the answers of every file again. To add a case, write
its `request` into a file and run that. Bodies are text where they are UTF-8 and base64 where they are not.
"""

import json
from base64 import b64decode, b64encode
from pathlib import Path

from drivers import open_site

FOLDER = Path(__file__).parent / "golden"


def files():
    return sorted(FOLDER.glob("*.json"))


def read(path):
    """The cases of a file: name, request, reply."""
    return json.loads(path.read_text())


def send(driver, request):
    """The answer as a golden file holds it."""
    headers = request.get("headers", {})
    answer = driver.send(
        request["method"],
        request["path"],
        request.get("query", ""),
        headers,
        to_bytes(request.get("body", "")),
    )
    return {"status": answer.status, "content_type": answer.content_type, "body": from_bytes(answer.body)}


def to_bytes(written):
    return b64decode(written["b64"]) if isinstance(written, dict) else written.encode()


def from_bytes(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(data).decode()}


def rewrite():
    with open_site() as site:
        for path in files():
            cases = [case | {"reply": send(site.flask, case["request"])} for case in read(path)]
            path.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    rewrite()
