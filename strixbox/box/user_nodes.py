"""Reader: the custom nodes that the user put into ComfyUI's directory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any

from strixbox.box._account import acting_as


def main(query: dict[str, Any]) -> dict[str, str]:
    """``{"directory", "user"}`` -> sha256 of requirements.txt by node, for nodes that have one.

    Names that ComfyUI itself skips (hidden ones and ``.disabled``) are left out.
    """
    try:
        with acting_as(query["user"]):
            return requirements(query["directory"])
    except KeyError:  # no such account: preflight tells of that
        return {}


def requirements(directory: str) -> dict[str, str]:
    """Those of the nodes in a directory; empty where there is none."""
    found: dict[str, str] = {}
    try:
        nodes = sorted(os.listdir(directory))
    except OSError:
        return found
    for node in nodes:
        if node.startswith((".", "__")) or node.endswith(".disabled"):
            continue
        try:
            path = os.path.join(directory, node, "requirements.txt")
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
    print(json.dumps(main(json.loads(sys.argv[1]))))
