"""Writer: one marked block at the end of the user's .bashrc; all other lines stay as they are.

The file is read and written as the user, so a link cannot lead root elsewhere; a link stays a link.
What stood there before the first edit is kept, and so is a block that somebody wrote into.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._atomic import beside, mend
from strixbox.box._backups import keep
from strixbox.box._bashrc import BEGIN, END, parted, strange
from strixbox.box._regular import regular


def with_block(text: bytes, block: bytes) -> bytes:
    """``text`` with the one block: in its place where there is one, else at the end."""
    before, after = parted(text, [line.strip() for line in block.splitlines()[1:-1]])
    if before and not before[-1].endswith(b"\n"):
        before[-1] += b"\n"
    return b"".join([*before, block, *after])


def main(order: dict[str, Any]) -> None:
    """``{"path", "user", "lines": [text], "backups"}``."""
    body = "".join(f"{line}\n" for line in order["lines"]).encode()
    block = BEGIN + b"\n" + body + END + b"\n"
    path = order["path"]
    try:
        with acting_as(order["user"]):
            path = os.path.realpath(path)
            before, info = found(path)
            after = with_block(before, block)
            if after == before:
                return
            aside = beside(path, after, 0o644 if info is None else info.st_mode & 0o7777)
        marked = BEGIN in before or END in before
        if info is not None and (not marked or strange(before, body.splitlines())):
            keep(path, before, info, order["backups"], edited=True)
        with acting_as(order["user"]):
            os.replace(aside, path)
    except KeyError:
        raise SystemExit(
            f"There is no account {order['user']} on the box; create it or set box_user"
        ) from None
    except OSError as error:
        raise SystemExit(
            f"{path} was left alone: {error.strerror}; {mend(error)}, then run again"
        ) from None


def found(path: str) -> tuple[bytes, os.stat_result | None]:
    """Content of the file, and what is known of it; nothing where there is none."""
    try:
        return regular(path)
    except FileNotFoundError:
        return b"", None


if __name__ == "__main__":
    main(json.load(sys.stdin))
