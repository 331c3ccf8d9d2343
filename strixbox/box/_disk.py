"""Part of programs: the disk that something is or will be on."""

from __future__ import annotations

import os


def disk(path: str) -> dict[str, int]:
    """Device and free bytes of the disk that ``path`` is or will be on; links are followed."""
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    state = os.statvfs(path)
    return {"device": os.stat(path).st_dev, "free": state.f_bavail * state.f_frsize}
