"""Writer: one entry of fstab; every other line stays byte for byte what it was.

The new text is verified by findmnt before it replaces the old one, and the old one is kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import Any


def _mount_point(line: bytes) -> str | None:
    fields = line.split()
    if len(fields) < 2 or fields[0].startswith(b"#"):
        return None
    text = fields[1].decode(errors="surrogateescape")
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def with_entry(text: bytes, path: str, entry: str) -> bytes:
    """``text`` with ``entry`` as the only one for ``path``: in its place, or at the end."""
    lines = text.splitlines(keepends=True)
    ours = entry.encode() + b"\n"
    result: list[bytes] = []
    placed = False
    for line in lines:
        if _mount_point(line) != path:
            result.append(line)
        elif not placed:
            result.append(ours)
            placed = True
    if not placed:
        if result and not result[-1].endswith(b"\n"):
            result[-1] += b"\n"
        result.append(ours)
    return b"".join(result)


def errors(fstab: str) -> list[str]:
    """What findmnt finds wrong with a file, without its name."""
    command = ["findmnt", "--verify", "--tab-file", fstab]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
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
    aside = f"{fstab}.strixbox-new"
    try:
        with open(aside, "wb") as stream:
            stream.write(after)
            stream.flush()
            os.fsync(stream.fileno())
        os.chown(aside, info.st_uid, info.st_gid)
        os.chmod(aside, info.st_mode & 0o7777)
        new = [line for line in errors(aside) if line not in errors(fstab)]
        if new:
            os.unlink(aside)
            raise SystemExit(f"{fstab} was left alone: findmnt says {new[0]} of the new entry")
        os.makedirs(order["backups"], mode=0o700, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S")
        shutil.copy2(fstab, os.path.join(order["backups"], f"fstab-{stamp}"))
        os.replace(aside, fstab)
    except OSError as error:
        raise SystemExit(
            f"{fstab} was left alone: {error.strerror}; mend that and run again"
        ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
