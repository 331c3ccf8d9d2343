"""Writer: gives files of others back as they were found, before strixbox was here.

fstab and .bashrc get the very bytes of the copy that was made before the first edit, unless their
owner has edited them since: then only our line or block goes, and what it had replaced returns.
Files that were moved away or replaced return to their places where nothing else stands there now.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._atomic import beside, mend
from strixbox.box._backups import entries, keep
from strixbox.box._bashrc import BEGIN, END, parted, strange
from strixbox.box._fstab import mount_point, ours
from strixbox.box._moving import move
from strixbox.box._regular import regular


def fstab_before(now: bytes, original: bytes | None, path: str) -> bytes:
    """fstab without our entries; ``original`` itself where nothing else changed.

    An entry for ``path`` that its owner wrote since is theirs, and stays as they wrote it.
    """
    lines = now.splitlines(keepends=True)
    if not any(map(ours, lines)):
        return now
    others = [line for line in lines if not ours(line)]
    # Ours is in the copy where tmpfs_path was changed to a mount point of its owner's.
    kept = [line for line in (original or b"").splitlines(keepends=True) if not ours(line)]
    rest = [line for line in kept if mount_point(line) != path]
    if original is not None and _joined(others) == _joined(rest):
        return b"".join(kept)
    theirs = [line for line in kept if mount_point(line) == path]
    if any(mount_point(line) == path for line in others):
        theirs = []
    result: list[bytes] = []
    for line in lines:
        if not ours(line):
            result.append(line)
        elif theirs:
            result += [part if part.endswith(b"\n") else part + b"\n" for part in theirs]
            theirs = []
    return b"".join(result)


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(lines).rstrip(b"\n")


def bashrc_before(now: bytes, original: bytes | None, ours: list[bytes]) -> bytes:
    """.bashrc without our block; ``original`` itself where nothing else changed."""
    before, after = parted(now, ours)
    rest = b"".join([*before, *after])
    if original is not None and rest.rstrip(b"\n") == original.rstrip(b"\n"):
        return original
    return rest


def replace(path: str, content: bytes) -> None:
    """Write ``path`` anew with its owner and mode, by one rename; a link's target, not the link."""
    path = os.path.realpath(path)
    info = os.stat(path)
    owner = (info.st_uid, info.st_gid) if os.geteuid() == 0 else None
    os.replace(beside(path, content, info.st_mode & 0o7777, owner), path)


def read(path: str) -> bytes | None:
    """Content of a file; None where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def original(backups: str, path: str) -> bytes | None:
    """The file as it was before it was edited last; None where no copy tells."""
    for entry in reversed(entries(backups)):
        if entry["path"] == path and entry.get("edited"):
            content = read(entry["copy"])
            if content is not None and BEGIN not in content and END not in content:
                return content
    return None


def give_back_fstab(order: dict[str, Any]) -> None:
    """Undo the edit of fstab."""
    now = read(order["fstab"])
    if now is None:
        return
    kept = original(order["backups"], os.path.realpath(order["fstab"]))
    before = fstab_before(now, kept, order["mount"])
    if before != now:
        replace(order["fstab"], before)
        print(f"{order['fstab']}: our entry is gone", flush=True)
        theirs = [x for x in before.splitlines() if mount_point(x) == order["mount"]]
        if theirs and b"noauto" not in theirs[0]:
            # What its owner had mounted there at boot is mounted again.
            subprocess.run(["mount", order["mount"]], check=False)


def give_back_bashrc(order: dict[str, Any]) -> None:
    """Undo the edit of .bashrc, as its owner: a link cannot lead root elsewhere.

    A block with lines that strixbox does not write now goes as well, and a copy of it stays.
    """
    ours = [line.encode() for line in order["lines"]]
    try:
        with acting_as(order["user"]):
            path = os.path.realpath(order["bashrc"])
            now, info = regular(path)
    except (OSError, KeyError):
        return  # nothing that a deploy could have edited, or the account is gone
    if not (BEGIN in now or END in now):
        return
    kept = original(order["backups"], path)
    if strange(now, ours):
        keep(path, now, info, order["backups"], edited=True)
        print(f"{path}: our block had other lines in it; see {order['backups']}", flush=True)
    with acting_as(order["user"]):
        before = bashrc_before(now, kept, ours)
        if before or kept is not None:
            replace(path, before)
        else:
            # There was none: an empty one would be a file that nobody made. Of a link that led
            # nowhere the deploy made the target.
            os.unlink(path)
    print(f"{order['bashrc']}: our block is gone", flush=True)


def give_back_files(order: dict[str, Any]) -> None:
    """Move what was taken away last to where it was, where nothing stands there now."""
    for entry in reversed(entries(order["backups"])):
        path, copy = entry["path"], entry["copy"]
        if entry.get("edited"):
            continue  # it was never taken away: where it is gone, its owner removed it
        ours = any(path == root or path.startswith(f"{root}/") for root in order["ours"])
        if ours or os.path.lexists(path) or not os.path.lexists(copy):
            continue
        if not os.path.isdir(os.path.dirname(path)):
            continue
        if "link" in entry:
            os.symlink(entry["link"], path)
            os.unlink(copy)
        else:
            move(copy, path)
        print(f"{path}: is back", flush=True)


def main(order: dict[str, Any]) -> None:
    """``{"fstab", "mount", "bashrc", "lines", "user", "backups", "ours"}``.

    ``lines`` are those between the markers in .bashrc. ``ours`` are directories of the toolkit:
    what an older toolkit had there does not return.
    """
    try:
        give_back_fstab(order)
        give_back_bashrc(order)
        give_back_files(order)
    except OSError as error:
        raise SystemExit(
            f"{error.filename}: {error.strerror}; nothing is lost: {mend(error)}, then run again"
        ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
