"""Reader: the directory of a model tier."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"path"}`` -> whether it exists, and whether it is on another disk than /."""
    path = query["path"]
    parent = path
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    own = os.stat(parent).st_dev != os.stat("/").st_dev
    return {"exists": os.path.isdir(path), "other_disk": own}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
