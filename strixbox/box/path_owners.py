"""Reader: which packages own paths."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def owners(answer: str, native: str) -> dict[str, list[str]]:
    """Packages by path, from ``dpkg-query --search``; one of another architecture says so."""
    found: dict[str, list[str]] = {}
    for line in answer.splitlines():
        names, _, path = line.rpartition(": ")
        if names and not names.startswith("diversion "):
            found[path] = [name.removesuffix(f":{native}") for name in names.split(", ")]
    return found


def output(*words: str) -> str:
    """What dpkg says; it ends with 1 where it knows only some of the paths."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def main(query: dict[str, Any]) -> dict[str, list[str]]:
    """``{"paths": [...]}`` -> packages by path; dpkg reads the lists of all packages for that."""
    native = output("dpkg", "--print-architecture").strip()
    known = owners(output("dpkg-query", "--search", *query["paths"]), native)
    return {path: known.get(path, []) for path in query["paths"]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
