"""One run of a program: its time, the CPU seconds of all its processes, and its memory."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class BenchError(RuntimeError):
    """A run that did not do what it was measured for; no number comes of it."""


@dataclass(frozen=True)
class Measured:
    """What a run took and said."""

    seconds: float
    cpu_seconds: float
    text: str
    peak_bytes: int | None = None


def run(
    words: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    stdin: str | None = None,
    sample: bool = False,
) -> Measured:
    """Run a program to its end.

    + sample: look at the memory of its processes meanwhile, which takes time from the run

    CPU is that of every process that was waited for; Ansible's ssh master, which outlives the run,
    is not among them.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(stdin or "")
        given.seek(0)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=given,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        sampler = Sampler(process.pid) if sample else None
        try:
            code = process.wait()
        except BaseException:  # a signal to the benchmark: nothing goes on without it
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = sampler.end() if sampler else None
        output.seek(0)
        text = output.read()
    if code != 0:
        raise BenchError(f"{' '.join(words)[:200]} ended with {code}:\n{text[-3000:]}")
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Measured(seconds, cpu, text, peak)


class Sampler:
    """Looks every 50 ms at what a process and its descendants have of the memory."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.05):
            self.peak = max(self.peak, sum(proportional(pid) for pid in descendants(self.pid)))

    def end(self) -> int:
        """Stop looking; the most that was seen, in bytes."""
        self.ended.set()
        self.thread.join()
        return self.peak


def descendants(pid: int) -> list[int]:
    """The process and all that it started and what these started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(_parent(entry), []).append(int(entry.name))
    found = [pid]
    for known in found:
        found.extend(children.get(known, ()))
    return found


def _parent(entry: Path) -> int:
    try:
        # pid (name) state ppid: the name may hold anything.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def proportional(pid: int) -> int:
    """Memory of a process, pages shared with others counted in parts (Pss)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
