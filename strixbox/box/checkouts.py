"""Reader: commit and local edits of git checkouts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def _git(path: str, *words: str) -> str | None:
    """Output of git in ``path``, None where it fails; the owner does not matter for reading."""
    command = ["git", "-c", "safe.directory=*", "-C", path, *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def checkout(path: str) -> dict[str, Any]:
    """``commit`` (None: no checkout here) and ``edited``: tracked files that were changed."""
    if not os.path.isdir(os.path.join(path, ".git")):
        return {"exists": os.path.lexists(path), "commit": None, "edited": []}
    edited = _git(path, "status", "--porcelain", "--untracked-files=no") or ""
    return {
        "exists": True,
        "commit": _git(path, "rev-parse", "--verify", "HEAD"),
        "edited": [line[2:].strip() for line in edited.splitlines()],
    }


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"paths": [...]}`` -> checkout by path."""
    return {path: checkout(path) for path in query["paths"]}


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
