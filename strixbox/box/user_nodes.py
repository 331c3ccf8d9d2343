"""Reader: the custom nodes that the user put into ComfyUI's directory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any

from strixbox.box._account import become


def main(query: dict[str, Any]) -> dict[str, str]:
    """``{"directory", "user"}`` -> sha256 of requirements.txt by node, for nodes that have one.

    Names that ComfyUI itself skips (hidden ones and ``.disabled``) are left out.
    """
    found: dict[str, str] = {}
    try:
        become(query["user"])
        nodes = sorted(os.listdir(query["directory"]))
    except (OSError, KeyError):  # no directory, or no such account: preflight tells of that
        return found
    for node in nodes:
        if node.startswith((".", "__")) or node.endswith(".disabled"):
            continue
        try:
            path = os.path.join(query["directory"], node, "requirements.txt")
            # Not blocking: a pipe that stands there would never be answered.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    continue
                found[node] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            continue
    return found


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
