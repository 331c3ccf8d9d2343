"""Holds the box's run lock until its standard input ends.

The kernel gives the lock back when this process ends, and the process ends with the ssh channel it
was started in: a controller that was killed leaves no stale lock behind. What that controller had
started may work on, though: every command that writes holds a second lock, shared with its
children, and a new run waits for it.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import sys
import time
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


def main(order: dict[str, Any]) -> int:
    """``{"run", "writing", "holder", "patience"}``: two lock files, who takes the lock, seconds.

    Prints one JSON line each: ``{"waiting": programs}`` while an earlier run's work is awaited,
    then ``{"held": true}``, or ``{"held": false}`` with the ``holder`` or who is ``working``.
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
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
