"""Reader: a tmpfs as fstab has it and as it is mounted."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import sys
from typing import Any

from strixbox.box._fstab import ours, unescape
from strixbox.box._units import unit_of


def fstab_lines(text: str, path: str) -> list[str]:
    """Lines of fstab, as they stand, that mount something at ``path`` or are ours for another."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        here = len(fields) > 1 and not fields[0].startswith("#") and unescape(fields[1]) == path
        if here or ours(line.encode(errors="surrogateescape")):
            found.append(line)
    return found


def mounted(mountinfo: str, path: str) -> dict[str, Any] | None:
    """The topmost mount at ``path``: file system, flags, and size in bytes (None: no limit)."""
    found = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if unescape(fields[4]) != path:
            continue
        size = re.search(r"(?:^|,)size=(\d+)k", tail[2] if len(tail) > 2 else "")
        found = {
            "fstype": tail[0],
            "flags": sorted(fields[5].split(",")),
            "size": int(size.group(1)) * 1024 if size else None,
        }
    return found


def stale(path: str) -> bool:
    """Whether systemd has not read the fstab entry of ``path`` as it stands now."""
    # systemctl knows the unit of a path (systemctl(1), "Parameter Syntax").
    unit = unit_of(path, "NeedDaemonReload", "LoadState")
    return unit["NeedDaemonReload"] == "yes" or unit["LoadState"] != "loaded"


def place(path: str) -> dict[str, Any]:
    """What stands where nothing is mounted: its kind, and what a mount would hide."""
    if os.path.islink(path):
        return {"kind": "link", "holds": []}
    try:
        return {"kind": "directory", "holds": sorted(os.listdir(path))}
    except FileNotFoundError:
        return {"kind": "absent", "holds": []}
    except NotADirectoryError:
        return {"kind": "file", "holds": []}


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"path", "user"}``."""
    path = query["path"]
    # The kernel and systemd know a mount point by where the links on the way to it lead.
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        account = pwd.getpwnam(query["user"])
        ids: list[int] | None = [account.pw_uid, account.pw_gid]
    except KeyError:
        ids = None
    try:
        with open("/etc/fstab", encoding="utf-8", errors="surrogateescape") as stream:
            lines = fstab_lines(stream.read(), path)
    except FileNotFoundError:
        lines = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        mount = mounted(stream.read(), real)
    root = None
    if mount is not None:
        info = os.stat(path)
        root = {"mode": format(stat.S_IMODE(info.st_mode), "o"), "ids": [info.st_uid, info.st_gid]}
    return {
        "fstab": lines,
        "mount": mount,
        "root": root,
        "place": None if mount else place(path),
        "ids": ids,
        "stale": stale(real),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
