"""Writer: takes files and directories out of the way, into the backup directory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any

from strixbox.box._backups import note
from strixbox.box._moving import move


def sha256(path: str) -> str | None:
    """Hash of a file; None of anything else."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main(order: dict[str, Any]) -> None:
    """``{"paths", "backups", "why"}``; what is gone already is passed over."""
    backups = order["backups"]
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for path in order["paths"]:
        if not os.path.lexists(path):
            continue
        copy = os.path.join(backups, f"{stamp}{path.replace('/', '-')}")
        note(backups, path, copy, sha256(path), why=order["why"])
        move(path, copy)


if __name__ == "__main__":
    main(json.load(sys.stdin))
