"""Reader: the text of one file, for comparing it with what it shall be."""

from __future__ import annotations

import json
import sys
from typing import Any


def main(query: dict[str, Any]) -> str:
    """``{"path": ...}`` -> its text; empty where there is no such file."""
    try:
        with open(query["path"], encoding="utf-8", errors="replace", newline="") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
