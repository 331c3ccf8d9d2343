"""Part of programs: what processes have open and what is mounted, so that neither is taken away."""

from __future__ import annotations

import glob
import os

from strixbox.box._fstab import unescape


def used() -> set[str]:
    """What living processes have open, and mount points: all that must not be taken away."""
    return open_paths() | mount_points()


def mount_points() -> set[str]:
    """Where something is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        return {unescape(line.split()[4]) for line in stream}


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


def is_busy(path: str, taken: set[str]) -> bool:
    """Whether ``path``, or anything below it, is among what is taken."""
    return bool(within(path, taken))


def within(path: str, taken: set[str]) -> list[str]:
    """What of ``taken`` is ``path`` or below it."""
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return sorted(found for found in taken if found == real or found.startswith(f"{real}/"))
