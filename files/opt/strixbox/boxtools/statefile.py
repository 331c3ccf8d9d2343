"""Small JSON files of the tools' own: read whatever is there, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from boxtools.errors import Trouble


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where it is absent, damaged or not to be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file by one rename; it is on the disk when this returns.

    Raises:
        Trouble: where it cannot be written.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        owner = path.parent.stat()
        if os.geteuid() == 0:  # the state is the user's, also where root ran the command
            os.chown(aside, owner.st_uid, owner.st_gid)
        aside.replace(path)
        flush(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise Trouble(
            f"{path} cannot be written: {error.strerror}; see the owner and the free room of"
            f" {path.parent}"
        ) from None


def flush(directory: Path) -> None:
    """Have a directory's entries on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
