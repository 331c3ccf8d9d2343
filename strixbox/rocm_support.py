"""AMD's table for this chip, which ROCm release works with which kernel, and what breaks anyhow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Standing = Literal["supported", "unstable", "unsupported"]


@dataclass(frozen=True)
class Row:
    """Releases from ``first`` to ``last``, on kernels with the two commits and without them.

    One of two numbers stands for all patch releases, as AMD writes 6.4.x.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    fixed: Standing
    older: Standing

    def __contains__(self, release: tuple[int, ...]) -> bool:
        return self.first <= release[: len(self.first)] and release[: len(self.last)] <= self.last


# AMD's RDNA 3.5 page (ROCm/rocm-docs, docs/reference/system-optimization/rdna3-5.rst at 70b8d6e0).
# Of Ubuntu 24.04's kernels without the two commits it says besides that they are not supported at
# all.
AMDS_TABLE = (
    Row((6, 4), (6, 4), fixed="unsupported", older="unstable"),
    Row((7, 1), (7, 1), fixed="unsupported", older="unstable"),
    Row((7, 2, 0), (7, 2, 0), fixed="supported", older="unsupported"),
    Row((7, 2, 1), (7, 2, 4), fixed="supported", older="unstable"),
    Row((7, 9, 0), (7, 10, 0), fixed="unsupported", older="unstable"),
    Row((7, 11, 0), (7, 13, 0), fixed="supported", older="unstable"),
    Row((7, 14, 0), (7, 14, 1), fixed="supported", older="unstable"),
)
# hipMalloc ends in a segmentation fault on this chip, tried with each of them (warpfront/hipfire
# PR 81; there 7.2.0 passed). Not tried and so not named: the releases between them.
BREAKS = frozenset({"6.4.1", "7.0.2", "7.1.0"})


def row_of(release: str) -> Row | None:
    """AMD's row of a release; None where the table has none. 7.2 without a patch is 7.2.0."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])", release)
    if not found:
        return None
    numbers = tuple(int(part or 0) for part in found.groups())
    return next((row for row in AMDS_TABLE if numbers in row), None)


def release_of_wheel(version: str) -> str:
    """ROCm release that a torch was built for: 2.6.0+rocm6.4.2.git76481f7c is of 6.4.2.

    PyTorch's own wheels name no patch release (2.9.1+rocm7.1); empty where none is named.
    """
    found = re.search(r"\+rocm(\d+\.\d+(?:\.\d+)?)", version)
    return found.group(1) if found else ""
