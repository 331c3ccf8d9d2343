"""Reader: which packages own paths."""

from __future__ import annotations

import json
import sys
from typing import Any

from strixbox.box._output import ran


def owners(answer: str, native: str) -> dict[str, list[str]]:
    """Packages by path, from ``dpkg-query --search``; one of another architecture says so."""
    found: dict[str, list[str]] = {}
    for line in answer.splitlines():
        names, _, path = line.rpartition(": ")
        if names and not names.startswith(("diversion ", "local diversion ")):
            found[path] = [name.removesuffix(f":{native}") for name in names.split(", ")]
    return found


def main(query: dict[str, Any]) -> dict[str, list[str]]:
    """``{"paths": [...]}`` -> packages by path; dpkg reads the lists of all packages for that."""
    native = ran(["dpkg", "--print-architecture"]).stdout.strip()
    # It ends with 1 where it knows only some of the paths.
    known = owners(ran(["dpkg-query", "--search", *query["paths"]]).stdout, native)
    return {path: known.get(path, []) for path in query["paths"]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
