"""Reader: the custom nodes that the user put into ComfyUI's directory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any


def main(query: dict[str, Any]) -> dict[str, str]:
    """``{"directory": ...}`` -> sha256 of requirements.txt by node, for nodes that have one.

    Names that ComfyUI itself skips (hidden ones and ``.disabled``) are left out.
    """
    found: dict[str, str] = {}
    try:
        nodes = sorted(os.listdir(query["directory"]))
    except OSError:
        return found
    for node in nodes:
        if node.startswith((".", "__")) or node.endswith(".disabled"):
            continue
        try:
            path = os.path.join(query["directory"], node, "requirements.txt")
            with open(path, "rb") as stream:
                found[node] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            continue
    return found


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
