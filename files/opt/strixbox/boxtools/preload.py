"""Models into the page cache, so that ComfyUI's first load of each is a copy within the RAM."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtools import pagecache
from boxtools.catalogue import ModelFile
from boxtools.errors import Trouble
from boxtools.host import Memory

LIST = Path("/etc/strixbox/preload.txt")  # written by the deploy, one path a line
# Of the RAM; below it, what runs needs the memory more than what may run next.
FLOOR = 1 / 32


@dataclass(frozen=True)
class Loaded:
    """What came of one file; sizes in bytes."""

    path: Path
    size: int
    before: int | None  # in the page cache; None where the kernel does not tell
    resident: int | None  # and afterwards
    problem: str | None = None  # the operating system's words


def listed(path: Path) -> list[Path] | None:
    """The paths of the deploy's list; None where there is none.

    Raises:
        Trouble: where it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}; see its owner and mode") from None
    return list(dict.fromkeys(Path(line) for line in lines if line.startswith("/")))


def most_used(models: Sequence[ModelFile], count: int) -> list[Path]:
    """The models of the active tier that were used last, the last one first."""
    known = [model for model in models if model.tier == "active" and model.used is not None]
    known.sort(key=lambda model: -(model.used or 0))
    return [model.path for model in known[:count]]


def status(paths: Sequence[Path]) -> list[Loaded]:
    """What of each file is in the page cache; reads nothing."""
    return [_status(path) for path in paths]


def _status(path: Path) -> Loaded:
    try:
        size = path.stat().st_size
    except OSError as error:
        return Loaded(path, 0, None, None, error.strerror or "not there")
    there = pagecache.resident(path)
    return Loaded(path, size, there, there)


def preload(
    paths: Sequence[Path],
    room: int,
    memory: Callable[[], Memory],
    seen: Callable[[int], None] = lambda _: None,
) -> tuple[list[Loaded], str | None]:
    """Bring files into the page cache, in their order, at most ``room`` bytes of them.

    What is there already counts too: more than that, and the last would push out the first. Stops
    where less than a 32nd of the RAM is available. ``seen`` is told how many bytes are there in
    all. Returns what came of each file, and why it stopped early.
    """
    results: list[Loaded] = []
    stopped: str | None = None
    total = 0

    def go_on() -> bool:
        now = memory()
        return now.available >= now.total * FLOOR

    for path in paths:
        first = _status(path)
        if first.problem or stopped:
            results.append(first)
            continue
        length = min(first.size, room - total)
        if length < first.size:
            stopped = "the share of the memory is used up"
        try:
            came = _load(path, length, _after(total, seen), go_on)
        except OSError as error:
            results.append(Loaded(path, first.size, first.before, None, error.strerror))
            continue
        if came < length:
            stopped = "little memory is available any more"
        total += came
        results.append(Loaded(path, first.size, first.before, pagecache.resident(path)))
    return results, stopped


def _after(base: int, seen: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: seen(base + done)


def _load(path: Path, length: int, seen: Callable[[int], None], go_on: Callable[[], bool]) -> int:
    descriptor = pagecache.open_quietly(path)
    try:
        return pagecache.Loader(descriptor).load(length, seen, go_on)
    finally:
        os.close(descriptor)
