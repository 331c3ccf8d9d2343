"""Holds the box's run lock until its standard input ends, and logs what the run changes.

The kernel gives the lock back when this process ends, and the process ends with the ssh channel it
was started in: a controller that was killed leaves no stale lock behind. What that controller had
started may work on, though: every command that writes holds a second lock, shared with its
children, and a new run waits for it.

The same channel brings a line for each operation that changed the box. It is logged here and not by
the controller's own commands, so that a run that is cut is logged as well.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any


def taken(descriptor: int) -> bool:
    """Take the lock alone; False where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def users(path: str) -> str:
    """Programs that have the file open, with their process numbers."""
    found: dict[str, str] = {}
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        pid = descriptor.split("/")[2]
        try:
            if os.readlink(descriptor) != path or int(pid) == os.getpid():
                continue
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                found[pid] = stream.read().strip()
        except OSError:
            continue
    # flock(1) only waits for the program that it started.
    working = {pid: name for pid, name in found.items() if name != "flock"} or found
    return ", ".join(f"{name} (process {pid})" for pid, name in working.items()) or "a program"


def say(**answer: Any) -> None:
    """One line for the controller."""
    print(json.dumps(answer), flush=True)


class Log:
    """An append-only file of JSON lines, each of which can be read alone.

    A log that cannot be written stops no run: the controller is told so, once.
    """

    def __init__(self, path: str, about: dict[str, Any]) -> None:
        self.path = path
        self.about = about  # what every line tells of the run
        self.told = False

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line and have it on the disk."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": stamp} | self.about | entry) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            if not self.told:
                say(unlogged=error.strerror)
            self.told = True

    def _append(self, line: bytes) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a full disk or a power cut tore the line before
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def record(log: Log, told: Iterable[bytes]) -> None:
    """Log what the controller tells, one JSON line each, until it tells no more.

    ``{"begun": operation}`` is logged only if nothing follows it; ``{"done": entry}`` is logged at
    once; ``{"end": outcome}`` is logged where the run changed anything. A run that tells no end was
    cut.
    """
    begun, changed = {}, False
    for text in told:
        try:
            line = json.loads(text)
        except ValueError:
            break  # cut in the middle of a line
        if "end" in line:
            if changed:
                log.add({"outcome": line["end"]})
            return
        if "begun" in line:
            begun = {"operation": line["begun"]}
        else:
            begun = {}
            log.add(line["done"])
        changed = True
    if changed:
        log.add(begun | {"outcome": "cut"})


def main(order: dict[str, Any]) -> int:
    """``{"run", "writing", "holder", "patience"}``: two lock files, who takes the lock, seconds.

    ``{"log", "about"}``: the file that changes are logged in, and what each line tells of the run.

    Prints one JSON line each: ``{"waiting": programs}`` while an earlier run's work is awaited,
    then ``{"held": true}``, or ``{"held": false}`` with the ``holder`` or who is ``working``; later
    ``{"unlogged": reason}`` where the log cannot be written.
    """
    os.makedirs(os.path.dirname(order["run"]), mode=0o711, exist_ok=True)
    run = os.open(order["run"], os.O_RDWR | os.O_CREAT, 0o600)
    if not taken(run):
        holder = os.pread(run, 500, 0).decode(errors="replace").strip()
        say(held=False, holder=holder)
        return 75
    os.ftruncate(run, 0)
    os.pwrite(run, order["holder"].encode(), 0)
    writing = os.open(order["writing"], os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + order["patience"]
    told = False
    while not taken(writing):
        if time.monotonic() > end:
            say(held=False, working=users(order["writing"]))
            return 75
        if not told:
            say(waiting=users(order["writing"]))
            told = True
        time.sleep(0.2)
    os.close(writing)
    say(held=True)
    record(Log(order["log"], order["about"]), sys.stdin.buffer)
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
