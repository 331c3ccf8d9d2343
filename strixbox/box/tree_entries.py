"""Reader: what stands below directories of ours, byte code left out."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def entries(root: str) -> dict[str, list[str]]:
    """``directories`` and ``files``, which is all else; both empty where there is no ``root``."""
    found: dict[str, list[str]] = {"directories": [], "files": []}
    for folder, directories, names in os.walk(root):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in (*directories, *sorted(names)):
            path = os.path.join(folder, name)
            plain = os.path.isdir(path) and not os.path.islink(path)
            found["directories" if plain else "files"].append(path)
    return found


def main(query: dict[str, Any]) -> dict[str, list[str]]:
    """``{"roots": [...]}`` -> ``directories`` and ``files``."""
    found = [entries(root) for root in query["roots"]]
    return {kind: [p for part in found for p in part[kind]] for kind in ("directories", "files")}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
