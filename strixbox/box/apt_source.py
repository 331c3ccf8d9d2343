"""Reader: whether apt's index of one source has been fetched, and for which text of the source."""

from __future__ import annotations

import glob
import json
import os
import sys
from typing import Any
from urllib.parse import quote, urlsplit


def index_pattern(uri: str, suite: str) -> str:
    """Glob of the files that apt keeps of a source; it writes ``/`` as ``_``."""
    parts = urlsplit(uri)
    name = f"{parts.netloc}{parts.path}".rstrip("/") + f"/dists/{suite}"
    return "/var/lib/apt/lists/" + glob.escape(quote(name, safe="/:~._-").replace("/", "_"))


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"uri", "suite", "stamp"}``: the stamp tells for which source the index was fetched last.

    apt gives its lists the server's times and leaves them alone when nothing is new, so their age
    says nothing.
    """
    pattern = index_pattern(query["uri"], query["suite"])
    indexed = bool(glob.glob(pattern + "_*Packages*")) and bool(glob.glob(pattern + "_*Release"))
    stamp = ""
    if os.path.exists(query["stamp"]):
        with open(query["stamp"], encoding="utf-8") as stream:
            stamp = stream.read().strip()
    return {"indexed": indexed, "stamp": stamp}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
