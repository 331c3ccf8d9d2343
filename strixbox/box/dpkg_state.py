"""Reader: whether dpkg was stopped in the middle of its work, as by a power cut."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from typing import Any

ROOT = "/var/lib/dpkg"
LOCKS = ("lock-frontend", "lock")


def is_journal(name: str) -> bool:
    """Whether a file of dpkg's updates/ is a change that it has yet to write down (apt's test)."""
    return name.isdigit()


def holder(path: str) -> int | None:
    """Process that has the lock; asked without taking it, so that nobody else misses it."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with open(path, "rb") as stream:
            told = struct.unpack("hhqqi4x", fcntl.fcntl(stream, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return None if told[0] == fcntl.F_UNLCK else told[4]


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"root"}`` -> ``interrupted``: there is unfinished work and nobody at it."""
    updates = os.path.join(query["root"], "updates")
    names = os.listdir(updates) if os.path.isdir(updates) else []
    holders = [holder(os.path.join(query["root"], lock)) for lock in LOCKS]
    busy = next((pid for pid in holders if pid is not None), None)
    return {"interrupted": any(map(is_journal, names)) and busy is None, "busy": busy}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
