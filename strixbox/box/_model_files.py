"""Part of programs: what a file is called until it is whole, and what is known of whole ones.

The box's own commands bring models too, by the same names (boxtools/copyfile.py).
"""

from __future__ import annotations

import json
import os
from typing import Any

# A name that no other program gives: browsers and download managers call theirs .part.
PART = ".strixbox-part"
TAG = f"{PART}.etag"  # says which version of the file the part is of


def identity(info: os.stat_result) -> list[int]:
    """What changes when a file is written or replaced."""
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def recorded(path: str) -> dict[str, dict[str, Any]]:
    """``files``, verified hashes by path, and ``urls``, hashes of first use by URL.

    What is damaged of the records is as if it was not there: it is made anew.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except (OSError, ValueError):
        data = None
    found = data if isinstance(data, dict) else {}
    tables = {name: found.get(name) for name in ("files", "urls")}
    return {name: table if isinstance(table, dict) else {} for name, table in tables.items()}
