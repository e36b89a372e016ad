"""Owns the metrics of several workers in one text: each sample carries the label `worker`.

Whichever worker is scraped tells of all of them, so counters do not seem to fall from one scrape to the next.
"""

from __future__ import annotations

from collections.abc import Mapping

_END = "# EOF"


def merged(texts: Mapping[int, str]) -> str:
    """One exposition of several, which `prometheus_client` has written.

    Args:
        texts: by worker; all of them in the same format.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    ends = False
    for worker, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line == _END:
                ends = True
            elif line.startswith("#"):
                _, kind, family, *_ = line.split(" ", 3)
                head = heads.setdefault(family, [])
                if not any(other.startswith(f"# {kind} ") for other in head):
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, worker))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    return "\n".join([*lines, *([_END] if ends else [])]) + "\n"


def _labelled(sample: str, worker: int) -> str:
    """A sample's name holds neither brace nor space, whatever stands in its labels."""
    name, space, value = sample.partition(" ")
    if "{" not in name:
        return f'{name}{{worker="{worker}"}}{space}{value}'
    name, _, rest = sample.partition("{")
    return f'{name}{{worker="{worker}",{rest}'
