"""Holds the box's run lock until its standard input ends.

The kernel gives the lock back when this process ends, and the process ends with the ssh channel it
was started in: a controller that was killed leaves no stale lock behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys


def main(path: str, holder: str) -> int:
    """Print one JSON line: ``{"held": true}``, or who holds the lock; then wait or end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
        print(json.dumps({"held": False, "holder": other}), flush=True)
        return 75
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    print(json.dumps({"held": True}), flush=True)
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
