"""What the README tells people to type is typed here: its curl and Python blocks, against the models that ship."""

import re
import subprocess
import sys

import pytest
from serving import ROOT

_BLOCK = re.compile(
    r"(?P<skip><!-- not run -->\s*\n)?^```(?P<kind>bash|python)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_DOCUMENTED = re.compile(r"\b(localhost|127\.0\.0\.1):8080\b")


def blocks(kind):
    """The blocks of a kind that are meant to be run: of bash those whose first command is curl."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [match for match in _BLOCK.finditer(text) if match["kind"] == kind and not match["skip"]]
    return [match["text"] for match in found if kind == "python" or match["text"].lstrip().startswith("curl")]


def numbered(kind):
    return [pytest.param(text, id=f"{kind}-{place}") for place, text in enumerate(blocks(kind), 1)]


@pytest.mark.parametrize("kind", ["bash", "python"])
def test_the_readme_has_blocks_to_run(kind):
    assert blocks(kind)


@pytest.mark.parametrize("text", numbered("bash"))
def test_a_curl_block_works(shipped, text):
    script = text.replace("curl ", "curl --fail-with-body --silent --show-error ")
    done = run(["bash", "-euo", "pipefail", "-c", at(shipped, script)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("text", numbered("python"))
def test_a_python_block_works(shipped, text):
    done = run([sys.executable, "-W", "error", "-c", at(shipped, text)])
    assert done.returncode == 0, done.stdout + done.stderr


def at(service, text):
    """The block, with the address of the running service."""
    return _DOCUMENTED.sub(f"127.0.0.1:{service.port}", text)


def run(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
