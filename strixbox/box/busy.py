"""Reader: which of some directories a process runs from or has open, or a mount is in."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._living import is_busy, used


def main(query: dict[str, Any]) -> list[str]:
    """``{"paths": [...]}`` -> those that are busy."""
    taken = used()
    return [path for path in query["paths"] if is_busy(path, taken)]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
