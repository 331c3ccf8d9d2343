"""Part of programs: what living processes have open, so that it is not taken from under them."""

from __future__ import annotations

import glob
import os


def open_paths() -> set[str]:
    """Files and directories that other processes have open, stand in or have in their memory."""
    found: set[str] = set()
    for process in glob.glob("/proc/[0-9]*"):
        if process == f"/proc/{os.getpid()}":
            continue
        for link in (f"{process}/cwd", f"{process}/exe", *glob.glob(f"{process}/fd/*")):
            try:
                found.add(os.readlink(link))
            except OSError:
                continue
        try:
            with open(f"{process}/maps", encoding="utf-8", errors="surrogateescape") as stream:
                found.update(line[line.index("/") :].rstrip("\n") for line in stream if "/" in line)
        except OSError:
            continue
    return found


def is_busy(path: str, opened: set[str]) -> bool:
    """Whether somebody has ``path``, or anything below it, open."""
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return any(found == real or found.startswith(f"{real}/") for found in opened)
