"""Reader: commit and local edits of git checkouts."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from strixbox.box._git import foreign, git, loose


def checkout(path: str) -> dict[str, Any]:
    """``commit`` (None: no checkout here) and ``edited``: tracked files that were changed.

    Also the repository's own files, and what others may write to or the service cannot read.
    """
    if not os.path.isdir(os.path.join(path, ".git")):
        return {"exists": os.path.lexists(path), "commit": None, "edited": []}
    commit = _head(path)
    edited = foreign(path)
    if not edited:  # else git may be told to run anything
        status = git(path, "status", "--porcelain", "--untracked-files=no")
        if status.returncode != 0:
            commit = None  # half of it is gone
        edited = [line[2:].strip() for line in status.stdout.splitlines()]
        # H is a file that is looked at; others are taken for unchanged (git-ls-files, -v).
        listed = git(path, "ls-files", "-v").stdout.splitlines()
        edited += [line[2:] for line in listed if not line.startswith("H ")]
    edited += [os.path.relpath(place, path) for place in loose(path)]
    return {"exists": True, "commit": commit, "edited": list(dict.fromkeys(edited))}


def _head(path: str) -> str | None:
    """The commit that is checked out; None where it is a branch's, which ours never is."""
    try:
        with open(f"{path}/.git/HEAD", encoding="ascii") as stream:
            head = stream.read().strip()
    except (OSError, ValueError):
        return None
    return None if head.startswith("ref:") else head


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"paths": [...]}`` -> checkout by path."""
    return {path: checkout(path) for path in query["paths"]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
