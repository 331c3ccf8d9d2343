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
from strixbox.box._backups import keep
from strixbox.box._bashrc import BEGIN, END, parted, strange


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
    with acting_as(order["user"]):
        path = os.path.realpath(order["path"])
        try:
            with open(path, "rb") as stream:
                before = stream.read()
                info = os.fstat(stream.fileno())
        except FileNotFoundError:
            before, info = b"", None
        after = with_block(before, block)
        if after == before:
            return
        try:
            aside = written(path, after, 0o644 if info is None else info.st_mode & 0o7777)
        except OSError as error:
            raise SystemExit(
                f"{path} was left alone: {error.strerror}; mend that, run again"
            ) from None
    marked = BEGIN in before or END in before
    if info is not None and (not marked or strange(before, body.splitlines())):
        keep(path, before, info, order["backups"], edited=True)
    with acting_as(order["user"]):
        os.replace(aside, path)


def written(path: str, content: bytes, mode: int) -> str:
    """Write the new text beside its place; where."""
    aside = f"{path}.strixbox-new"
    with open(aside, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(aside, mode)
    return aside


if __name__ == "__main__":
    main(json.load(sys.stdin))
