"""What this box was deployed with, from what the deploy left on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from boxtools import settings
from boxtools.errors import Trouble

CHANGES = Path("/var/log/strixbox/changes.jsonl")  # strixbox/layout.py
END = 64 << 10  # bytes of it; a line has some hundred


def version() -> list[str]:
    """Lines: the toolkit's commit of the last change, and the release in use with its stack."""
    commit, when = _last_change()
    told = f"strixbox {commit}" if commit else "strixbox, of an unknown commit of the toolkit"
    lines = [f"{told} (the last change of this box, {when})" if when else told]
    try:
        box = settings.load()
    except Trouble as trouble:
        return [*lines, f"release unknown: {trouble}"]
    release = box.current.resolve().name if box.current.exists() else "none"
    return [*lines, f"release {release}, stack {box.stack}, torch {box.torch}"]


def _last_change() -> tuple[str, str]:
    """Commit and time of the last line that names a commit; empty where none does."""
    try:
        with CHANGES.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - END))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return "", ""
    for line in reversed(lines):
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):  # the first one is cut
            continue
        commit = told.get("toolkit") if isinstance(told, dict) else None
        if isinstance(commit, str) and commit not in ("", "unknown"):
            when = told.get("time")
            return commit, when if isinstance(when, str) else ""
    return "", ""
