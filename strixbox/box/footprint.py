"""Reader: what strixbox has on the box, and what of others it has moved or edited."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._backups import MARK, entries
from strixbox.box._bashrc import BEGIN, END
from strixbox.box._fstab import ours, unescape
from strixbox.box._living import mount_points, within
from strixbox.box._output import ran
from strixbox.box._regular import regular
from strixbox.box._units import shown


def _read(path: str) -> bytes:
    try:
        return regular(path)[0]
    except OSError:
        return b""


def _read_as(user: str, path: str) -> bytes:
    """What the account itself can read: a link of its own leads it no further than it may go."""
    try:
        with acting_as(user):
            return _read(path)
    except KeyError:  # it is gone, and with it what was edited for it
        return b""


def is_foreign(path: str) -> bool:
    """Whether a unit of one of our names is somebody else's: a deploy marks what it writes."""
    return os.path.lexists(path) and (os.path.islink(path) or MARK not in _read(path)[:512])


def waiting(backups: str, ours: list[str], going: list[str]) -> list[str]:
    """Places of others that are empty, or will be, and whose content lies in the backups."""
    found = []
    for entry in entries(backups):
        path, copy = entry["path"], entry["copy"]
        if entry.get("edited"):
            continue
        if any(path == root or path.startswith(f"{root}/") for root in ours):
            continue
        empty = path in going or not os.path.lexists(path)
        if os.path.lexists(copy) and empty and path not in found:
            found.append(path)
    return found


def holding(paths: list[str]) -> list[str]:
    """Directories of these in which there is a file."""
    return [path for path in paths if any(files for _, _, files in os.walk(path))]


def around(path: str, kept: list[str]) -> list[str]:
    """What of ``path`` goes: all of it, or what is beside the way to something that is kept.

    A link on that way stays; what lies behind it is asked about by itself.
    """
    if not any(f"{one}/".startswith(f"{path}/") for one in kept):
        return [path]
    if path in kept or os.path.islink(path):
        return []
    return [each for name in sorted(os.listdir(path)) for each in around(f"{path}/{name}", kept)]


def strangers(known: dict[str, str]) -> list[str]:
    """What lies in directories of ours under a name that nothing of ours has.

    ``known`` is the pattern of our names by directory.
    """
    found = []
    for folder, pattern in known.items():
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        found += [f"{folder}/{name}" for name in names if not re.fullmatch(pattern, name)]
    return found


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"paths", "inside", "known", "kept", "units", "mount", "fstab", "bashrc", "user",
    "backups", "packages"}``.

    ``kept`` are directories below ``paths`` that stay where they hold anything. ``units`` has the
    unit files, by their paths: of somebody else they are no part of the answer.
    """
    mine = [path for path in query["units"] if not is_foreign(path)]
    known = shown([os.path.basename(path) for path in mine], "LoadState")
    units = [name for name, unit in known.items() if unit["LoadState"] == "loaded"]
    held = ran(["apt-mark", "showhold"])
    mount = os.path.realpath(query["mount"])
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        # One that its owner had there is not private to the account.
        mounts = [unescape(line.split()[4]) for line in stream if "mode=700,uid=" in line]
    others = mount_points() - ({mount} if mount in mounts else set())
    # Where a directory of ours is a link, its removal would leave all that is behind it.
    behind = [path for path in query["inside"] if os.path.islink(os.path.dirname(path))]
    kept = holding(query["kept"])
    there = [path for path in (*behind, *query["paths"], *mine) if os.path.lexists(path)]
    paths = [each for path in there for each in around(path, kept)]
    bashrc = _read_as(query["user"], query["bashrc"])
    return {
        "paths": paths,
        "kept": kept,
        "strangers": strangers(query["known"]),
        "links": {
            path: os.path.realpath(path)
            for path in (*query["inside"], *query["paths"])
            if os.path.islink(path) and os.path.isdir(path)
        },
        "units": units,
        "held": sorted(set(held.stdout.split()) & set(query["packages"])),
        "mounted": mount in mounts,
        "mounts": sorted({found for path in paths for found in within(path, others)}),
        "fstab": any(ours(line) for line in _read(query["fstab"]).splitlines()),
        "bashrc": any(mark in bashrc for mark in (BEGIN, END)),
        "waiting": waiting(query["backups"], query["paths"], paths),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
