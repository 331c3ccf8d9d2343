"""Writer: one marked block at the end of the user's .bashrc; all other lines stay as they are.

The file is read and written as the user, so a link cannot lead root elsewhere; a link stays a link.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any

BEGIN = b"# >>> strixbox >>>"
END = b"# <<< strixbox <<<"


def with_block(text: bytes, block: bytes) -> bytes:
    """``text`` with the one block: in its place where there is one, else at the end.

    Raises:
        ValueError: where a begin has no end, so that it is unknown whose lines follow.
    """
    lines = text.splitlines(keepends=True)
    result: list[bytes] = []
    inside = False
    placed = False
    for line in lines:
        if line.strip() == BEGIN:
            if inside:
                raise ValueError("a block begins within a block")
            inside = True
            if not placed:
                result.append(block)
                placed = True
        elif line.strip() == END and inside:
            inside = False
        elif not inside:
            result.append(line)
    if inside:
        raise ValueError(f"the line {END.decode()!r} is missing")
    if not placed:
        if result and not result[-1].endswith(b"\n"):
            result[-1] += b"\n"
        result.append(block)
    return b"".join(result)


def main(order: dict[str, Any]) -> None:
    """``{"path", "user", "lines": [text], "backup"}``; the backup is made once, before any edit."""
    account = pwd.getpwnam(order["user"])
    body = "".join(f"{line}\n" for line in order["lines"]).encode()
    block = BEGIN + b"\n" + body + END + b"\n"
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    path = os.path.realpath(order["path"])
    try:
        with open(path, "rb") as stream:
            before = stream.read()
        mode = os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        before, mode = b"", 0o644
    try:
        after = with_block(before, block)
    except ValueError as error:
        raise SystemExit(
            f"{path}: {error}; mend the strixbox block by hand and run again"
        ) from None
    if after == before:
        return
    aside = f"{path}.strixbox-new"
    try:
        with open(aside, "wb") as stream:
            stream.write(after)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(aside, mode)
    except OSError as error:
        raise SystemExit(f"{path} was left alone: {error.strerror}; mend that, run again") from None
    os.seteuid(0)
    os.setegid(0)
    backup = order["backup"]
    if BEGIN not in before and not os.path.exists(backup):
        os.makedirs(os.path.dirname(backup), mode=0o700, exist_ok=True)
        with open(backup, "wb") as stream:
            stream.write(before)
        os.chmod(backup, 0o600)
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    os.replace(aside, path)


if __name__ == "__main__":
    main(json.load(sys.stdin))
