"""What the measured times say: median, spread, and the ratio to ours of the same round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "strixbox"
# What benchmarks/counted.py says at its end, which the harness must not import: it patches the
# standard library of whoever does.
CHANNELS = "channels opened:"


@dataclass(frozen=True)
class Cell:
    """All runs of one contender in one case; the runs of a round follow one another."""

    case: str
    boxes: int
    latency_ms: int
    contender: str
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]  # of the controller, for all boxes
    received: tuple[int, ...]  # bytes, by all boxes
    sent: tuple[int, ...]
    commands: int | None = None  # to all boxes, in a run of its own
    peak_bytes: int | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it was measured; cells of one place are compared."""
        return self.case, self.boxes, self.latency_ms

    def data(self) -> dict[str, Any]:
        """The cell for the JSON of results."""
        return vars(self) | {"median_seconds": statistics.median(self.seconds)}


def ratio(others: Sequence[float], ours: Sequence[float]) -> float:
    """Median of the rounds' ratios: what slows the machine for a while slows both of a round."""
    return statistics.median(a / b for a, b in zip(others, ours, strict=True))


def spread(values: Sequence[float]) -> str:
    """Median, and the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def table(cells: Iterable[Cell]) -> str:
    """All cells as a Markdown table, those of one case together."""
    cells = list(cells)
    ours = {cell.place: cell for cell in cells if cell.contender == OURS}
    rows = [_row(cell, ours.get(cell.place)) for cell in cells]
    return markdown(_HEAD, rows)


_HEAD = (
    *("case", "boxes", "latency", "what", "seconds", f"x {OURS}", "CPU s/box", "commands/box"),
    *("KiB to box", "KiB from box", "peak MiB"),
)


def _row(cell: Cell, ours: Cell | None) -> tuple[str, ...]:
    return (
        cell.case,
        str(cell.boxes),
        f"{cell.latency_ms} ms",
        cell.contender,
        spread(cell.seconds),
        f"{ratio(cell.seconds, ours.seconds):.1f}" if ours else "-",
        f"{statistics.median(cell.cpu_seconds) / cell.boxes:.2f}",
        "-" if cell.commands is None else f"{cell.commands / cell.boxes:.0f}",
        f"{statistics.median(cell.received) / cell.boxes / 1024:.0f}",
        f"{statistics.median(cell.sent) / cell.boxes / 1024:.0f}",
        "-" if cell.peak_bytes is None else f"{cell.peak_bytes / 2**20:.0f}",
    )


def relations(cells: Iterable[Cell]) -> list[str]:
    """Ours beside itself: other cases beside the no-op, and many boxes beside one."""
    ours = {cell.place: statistics.median(cell.seconds) for cell in cells if cell.contender == OURS}
    told = []
    for (case, boxes, latency), seconds in ours.items():
        noop = ours.get(("no-op", boxes, latency))
        if case not in ("no-op", "first deploy") and noop:
            told.append(f"{case}, {_where(boxes, latency)}: {seconds / noop:.2f} x its no-op")
        single = ours.get((case, 1, latency))
        if boxes > 1 and single:
            told.append(f"{case}, {_where(boxes, latency)}: {seconds / single:.2f} x one box")
    return told


def _where(boxes: int, latency: int) -> str:
    return f"{boxes} box{'es' if boxes > 1 else ''}{f', {latency} ms' if latency else ''}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_json(about: Mapping[str, Any], cells: Iterable[Cell]) -> dict[str, Any]:
    """Results with what they were measured on."""
    return {**about, "cells": [cell.data() for cell in cells]}
