"""Reader: a release's seal, which says what was proved of it."""

from __future__ import annotations

import json
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"path"}`` -> content of that release.json; empty where it is not there or not whole."""
    try:
        with open(query["path"], encoding="utf-8") as stream:
            seal = json.load(stream)
    except (OSError, ValueError):
        return {}
    return seal if isinstance(seal, dict) else {}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
