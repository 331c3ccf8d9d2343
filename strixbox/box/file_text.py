"""Reader: the text of one file, for comparing it with what it shall be."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._regular import regular


def main(query: dict[str, Any]) -> str:
    """``{"path", "user"}`` -> its text; empty where there is no such file, or something else.

    A user's file is read as that user; user None: root's own.
    """
    try:
        with acting_as(query.get("user")):
            return regular(query["path"])[0].decode(errors="replace")
    except (OSError, KeyError):
        return ""


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
