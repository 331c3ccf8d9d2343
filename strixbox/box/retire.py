"""Writer: takes files and directories out of the way, into the backup directory."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any


def main(order: dict[str, Any]) -> None:
    """``{"paths", "backups", "why"}``; what is gone already is passed over."""
    backups = order["backups"]
    os.makedirs(backups, mode=0o700, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for path in order["paths"]:
        if not os.path.lexists(path):
            continue
        copy = os.path.join(backups, f"{stamp}{path.replace('/', '-')}")
        entry = {"path": path, "copy": copy, "why": order["why"], "time": int(time.time())}
        # The index comes first: an entry without a copy is harmless, a copy without one is lost.
        with open(os.path.join(backups, "index.jsonl"), "a", encoding="utf-8") as index:
            index.write(json.dumps(entry) + "\n")
            index.flush()
            os.fsync(index.fileno())
        shutil.move(path, copy)


if __name__ == "__main__":
    main(json.load(sys.stdin))
