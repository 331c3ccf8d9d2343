"""Writer: takes files and directories out of the way, into the backup directory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

from strixbox.box._atomic import mend
from strixbox.box._retiring import put_by


def sha256(path: str) -> str | None:
    """Hash of a file; None of anything else."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main(order: dict[str, Any]) -> None:
    """``{"paths", "backups", "why"}``; what is gone already is passed over."""
    for path in order["paths"]:
        try:
            if os.path.lexists(path):
                put_by(path, order["backups"], order["why"], sha256(path))
        except OSError as error:
            raise SystemExit(
                f"{path} could not be moved to {order['backups']}: {error.strerror or error};"
                f" {mend(error)}, then run again"
            ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
