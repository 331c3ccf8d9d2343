"""Writer: one entry of fstab; every other line stays byte for byte what it was.

The new text is verified by findmnt before it replaces the old one. What stood there before
the first edit is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from strixbox.box._atomic import beside, flush_directory, mend
from strixbox.box._backups import keep
from strixbox.box._fstab import mount_point, ours
from strixbox.box._output import ran


def with_entry(text: bytes, path: str, entry: str) -> bytes:
    """``text`` with ``entry`` as the only one for ``path``: in its place, or at the end.

    An entry of ours for another path goes: tmpfs_path was changed since.
    """
    lines = text.splitlines(keepends=True)
    wanted = entry.encode() + b"\n"
    result: list[bytes] = []
    placed = False
    for line in lines:
        if mount_point(line) != path and not ours(line):
            result.append(line)
        elif not placed:
            result.append(wanted)
            placed = True
    if not placed:
        if result and not result[-1].endswith(b"\n"):
            result[-1] += b"\n"
        result.append(wanted)
    return b"".join(result)


def is_kept(lines: list[bytes], path: str) -> bool:
    """Whether a copy is made: of what no deploy edited yet, or where a line of the owner's goes."""
    return not any(map(ours, lines)) or any(
        mount_point(line) == path and not ours(line) for line in lines
    )


def unmount(path: str) -> None:
    """Unmount an empty RAM disk that fstab had and has no more; one in use is told and stays."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--mountpoint", path]
    if "tmpfs" not in ran(command).stdout.split():
        return
    gone = not os.listdir(path) and not subprocess.run(["umount", path], check=False).returncode
    told = "is unmounted" if gone else "is in use, and goes at the next boot"
    print(f"{path}, the RAM disk until now, {told}", flush=True)


def errors(fstab: str) -> list[str]:
    """What findmnt finds wrong with a file, without its name."""
    command = ["findmnt", "--verify", "--tab-file", fstab]
    answer = ran(command)
    said = answer.stdout + answer.stderr
    return [line.strip() for line in said.splitlines() if line.strip().startswith("[E]")]


def main(order: dict[str, Any]) -> None:
    """``{"fstab", "path", "entry", "backups"}``."""
    fstab = os.path.realpath(order["fstab"])
    try:
        with open(fstab, "rb") as stream:
            before = stream.read()
        info = os.stat(fstab)
    except FileNotFoundError:
        raise SystemExit(f"{fstab} does not exist; create it (an empty file will do)") from None
    after = with_entry(before, order["path"], order["entry"])
    if after == before:
        return
    try:
        owner = (info.st_uid, info.st_gid)
        aside = beside(fstab, after, info.st_mode & 0o7777, owner)
        known = errors(fstab)
        new = [line for line in errors(aside) if line not in known]
        if new:
            os.unlink(aside)
            raise SystemExit(
                f"{fstab} was left alone: findmnt says {new[0]} of the new entry; set tmpfs_path to"
                " another directory, or mend what it names, then run again"
            )
        lines = before.splitlines()
        if is_kept(lines, order["path"]):
            keep(fstab, before, info, order["backups"], edited=True)
        os.replace(aside, fstab)
        flush_directory(os.path.dirname(fstab))
    except OSError as error:
        raise SystemExit(
            f"{fstab} was left alone: {error.strerror}; {mend(error)}, then run again"
        ) from None
    for line in lines:
        old = mount_point(line)
        if old and old != order["path"] and ours(line):
            unmount(old)


if __name__ == "__main__":
    main(json.load(sys.stdin))
