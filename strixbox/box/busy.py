"""Reader: which of some directories a living process runs from, stands in or has open."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._living import is_busy, open_paths


def main(query: dict[str, Any]) -> list[str]:
    """``{"paths": [...]}`` -> those that are busy."""
    opened = open_paths()
    return [path for path in query["paths"] if is_busy(path, opened)]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
