"""Judges: each check turns facts into findings, and reads nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boxtools.doctor.checks import box, gpu, installed, logs, running, variables
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    *gpu.CHECKS,
    *installed.CHECKS,
    *variables.CHECKS,
    *running.CHECKS,
    *box.CHECKS,
    *logs.CHECKS,
)
WORST_FIRST = ("wrong", "warn", "unknown", "ok")


def examine(facts: Facts) -> list[Finding]:
    """All findings, the worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: WORST_FIRST.index(finding.verdict))
