"""Owns what a run of the peers benchmark says: medians and spread, ratios, and the tables that are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workloads import Workload

ALL = "all"
_OURS = "layertap"
Record = Mapping[str, Any]


def closed_rows(
    records: Sequence[Record], workloads: Sequence[Workload], limits: Mapping[str, float]
) -> list[Record]:
    """One row a workload and server, fastest first; a server that failed at it says why.

    Args:
        records: a closed loop's `rate`, or a `problem`, with `server` and `workload` (`ALL`: of a server that did not start).
        workloads: in the order of the table.
        limits: workload -> requests a second in-process.
    """
    rows: list[Record] = [_failure(record) for record in records if record["workload"] == ALL]
    for workload in workloads:
        found = []
        for server in dict.fromkeys(record["server"] for record in records):
            mine = [
                each
                for each in records
                if each["server"] == server and each["workload"] in (workload.name, "*")
            ]
            if mine:
                found.append(_summary(workload, server, mine, limits.get(workload.name)))
        best = max(
            (row["rate"] for row in found if _is_peer(row["server"]) and not row["problems"]), default=0.0
        )
        fastest_first = sorted(found, key=lambda row: -row["rate"])
        rows += [row | {"of_best_peer": row["rate"] / best if best else None} for row in fastest_first]
    return rows


def _summary(
    workload: Workload, server: str, records: Sequence[Record], limit: float | None
) -> dict[str, Any]:
    rates = [record["rate"] for record in records if "rate" in record]
    problems = list(dict.fromkeys(record["problem"] for record in records if "problem" in record))
    rate = statistics.median(rates) if rates else 0.0
    return {
        "workload": workload.name,
        "title": workload.title,
        "server": server,
        "rate": rate,
        "low": min(rates, default=0.0),
        "high": max(rates, default=0.0),
        "rounds": len(rates),
        "p99_ms": statistics.median(record["p99_ms"] for record in records if "rate" in record)
        if rates
        else None,
        "limit": limit,
        "of_limit": rate / limit if limit else None,
        "problems": problems,
    }


def _failure(record: Record) -> dict[str, Any]:
    nothing = dict.fromkeys(("p99_ms", "limit", "of_limit", "of_best_peer"))
    what = {"workload": ALL, "title": f"round {record['round'] + 1}", "server": record["server"]}
    numbers = {"rate": 0.0, "low": 0.0, "high": 0.0, "rounds": 0}
    return what | numbers | nothing | {"problems": [record["problem"]]}


def _is_peer(server: str) -> bool:
    """Whether the goals compare with it: neither ours, nor the no-op server, nor a peer with our function in it."""
    return not server.startswith(_OURS) and server != "no-op" and "+" not in server


def print_closed(rows: Iterable[Record]) -> None:
    print(
        "\n| workload | server | req/s, median (low-high) | of best peer | of the limit in-process | p99 ms | |"
    )
    print("|---|---|--:|--:|--:|--:|---|")
    for row in rows:
        digits = 0 if row["rate"] >= 1000 else 1
        rate = (
            f"{row['rate']:,.{digits}f} ({row['low']:,.{digits}f}-{row['high']:,.{digits}f})"
            if row["rounds"]
            else "-"
        )
        limit = (
            f"{row['of_limit']:.2f} of {row['limit']:,.{digits}f}"
            if row["of_limit"] and row["rounds"]
            else "-"
        )
        cells = [
            row["title"],
            row["server"],
            rate,
            _number(row["of_best_peer"]),
            limit,
            _number(row["p99_ms"]),
        ]
        print(
            f"| {' | '.join([row['workload'] + ': ' + cells[0], *cells[1:]])} | {'; '.join(row['problems'])} |"
        )


def print_open(records: Iterable[Record]) -> None:
    """The open loops: times count from the intended send time, p99 with the count that it rests on."""
    print(
        "\n| workload | server | load | offered/s | goodput/s | p50 ms | p99 ms (of) | not answered well | Retry-After |"
    )
    print("|---|---|--:|--:|--:|--:|--:|---|--:|")
    for record in records:
        refused = ", ".join(f"{status}: {count}" for status, count in record["statuses"].items()) or "-"
        if record["waited"]:
            refused += f" ({record['waited']} waited for a connection)"
        if record["late_ms"] > 5:
            refused += f" (the client was {record['late_ms']:.0f} ms late)"
        cells = [
            record["workload"], record["server"], f"{record['load']:.0%}", f"{record['offered']:,.0f}",
            f"{record['goodput']:,.1f}", _number(record["p50_ms"]), f"{record['p99_ms']:,.2f} ({record['answered']:,})",
            refused, str(sum(record["retry_after_s"].values())),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
