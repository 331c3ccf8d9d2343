"""The box's own memory and processors, from ``/proc``.

Fields and units: the kernel's Documentation/filesystems/proc.rst (meminfo, stat, loadavg).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from boxtools.errors import Trouble


@dataclass(frozen=True)
class Memory:
    """RAM and swap, all in bytes."""

    total: int  # what the kernel has; a carve-out for the GPU is not part of it
    available: int  # what programs can have without swapping, the kernel's estimate
    free: int  # used by nothing at all
    cached: int  # files in the page cache; given back where memory is wanted
    swap_total: int
    swap_used: int
    shared: int = 0  # shared memory and files on tmpfs; not given back

    @property
    def used(self) -> int:
        """What is not available."""
        return self.total - self.available


@dataclass(frozen=True)
class Ticks:
    """Clock ticks of all processors since the box started."""

    busy: int
    total: int

    def percent_since(self, earlier: Ticks) -> float | None:
        """Share of the time since ``earlier`` in which the processors worked, 0 to 100.

        None where no time went by. Idle time is known to run backwards a little (proc.rst).
        """
        total = self.total - earlier.total
        if total <= 0:
            return None
        return min(100.0, max(0.0, 100.0 * (self.busy - earlier.busy) / total))


def memory(root: Path = Path("/")) -> Memory:
    """RAM and swap now.

    Raises:
        Trouble: where there is no ``/proc/meminfo`` that can be understood.
    """
    fields = meminfo(text(root / "proc/meminfo"))
    total = fields.get("MemTotal", 0)
    if not total:
        raise Trouble(f"{root / 'proc/meminfo'} tells no MemTotal; is /proc mounted?")
    shared = fields.get("Shmem", 0)
    swap = fields.get("SwapTotal", 0)
    free = fields.get("MemFree", 0)
    return Memory(
        total,
        fields.get("MemAvailable", free),
        free,
        # The kernel counts tmpfs and shared memory as cached too, though it cannot drop them.
        max(0, fields.get("Cached", 0) - shared),
        swap,
        max(0, swap - fields.get("SwapFree", swap)),
        shared,
    )


def meminfo(content: str) -> dict[str, int]:
    """The fields of ``/proc/meminfo`` that are sizes, in bytes."""
    found = {}
    for line in content.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        # Fields without a unit are counts of huge pages.
        if len(words) == 2 and words[1] == "kB" and is_count(words[0]):
            found[name.strip()] = int(words[0]) * 1024
    return found


def ticks(root: Path = Path("/")) -> Ticks | None:
    """Where the time of all processors went; None where the kernel does not tell."""
    first = text(root / "proc/stat").partition("\n")[0].split()
    # user nice system idle iowait irq softirq steal; guest time is part of user and nice already.
    numbers = [int(word) for word in first[1:9] if is_count(word)]
    if first[:1] != ["cpu"] or len(numbers) < 4:
        return None
    total = sum(numbers)
    return Ticks(total - sum(numbers[3:5]), total)


def load(root: Path = Path("/")) -> tuple[float, float, float] | None:
    """Load averages over 1, 5 and 15 minutes; None where the kernel does not tell."""
    words = text(root / "proc/loadavg").split()[:3]
    try:
        one, five, fifteen = (float(word) for word in words)
    except ValueError:
        return None
    return one, five, fifteen


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def is_count(word: str) -> bool:
    """Whether a word is a decimal number as the kernel prints it; ``int`` takes far more."""
    return word.isascii() and word.isdigit() and len(word) <= 20


def text(path: Path) -> str:
    """Content of a file of the kernel's; empty where it cannot be read, for whatever reason."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
