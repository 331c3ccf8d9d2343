"""Reader: the release in use, the unit, the running process, and whether it answers."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
import time
from typing import Any

from strixbox.box._answering import unanswered
from strixbox.box._units import unit_of

PROPERTIES = (
    *("LoadState", "UnitFileState", "ActiveState", "MainPID", "NeedDaemonReload"),
    "DropInPaths",
)
COMMAND = re.compile(rb"^\s*ExecStart\s*=", re.MULTILINE)


def unit(service: str) -> dict[str, str]:
    """systemd's view of the unit."""
    return unit_of(service, *PROPERTIES)


def other_commands(drop_ins: str) -> list[str]:
    """Drop-ins, of systemd's list of them, that have the unit start something else."""
    found = []
    for path in drop_ins.split():
        try:
            with open(path, "rb") as stream:
                if COMMAND.search(stream.read()):
                    found.append(path)
        except OSError:
            continue  # removed since systemd read it
    return found


def _words(path: str) -> list[str]:
    try:
        with open(path, "rb") as stream:
            content = stream.read().rstrip(b"\0")
    except OSError:
        return []
    return [word.decode(errors="surrogateescape") for word in content.split(b"\0")]


def process(pid: int) -> dict[str, Any]:
    """Command line, environment and working directory of a process; empty where it is gone."""
    if not pid:
        return {"argv": [], "environment": {}, "directory": None}
    try:
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        directory = None
    pairs = (word.partition("=") for word in _words(f"/proc/{pid}/environ"))
    return {
        "argv": _words(f"/proc/{pid}/cmdline"),
        "environment": {name: value for name, _, value in pairs},
        "directory": directory,
    }


def answers_within(url: str, service: str, patience: float) -> bool:
    """Whether ``url`` is answered now, or, while the service runs, within ``patience`` seconds.

    A server that loads a large model or decodes a picture leaves a question unanswered for a while.
    """
    end = time.monotonic() + patience
    while unanswered(url) is not None:
        if time.monotonic() >= end or unit(service).get("ActiveState") != "active":
            return False
        time.sleep(0.5)
    return True


def releases(pattern: str) -> dict[str, int | None]:
    """When each release was sealed, in seconds since 1970, by name; None for an unsealed one."""
    paths = sorted(glob.glob(pattern))
    return {os.path.basename(path): _sealed(os.path.join(path, "release.json")) for path in paths}


def _sealed(path: str) -> int | None:
    try:
        return int(os.stat(path).st_mtime)
    except OSError:
        return None


def pins(current: str) -> dict[str, Any] | None:
    """Pins of the release in use, from its seal; None where there is none."""
    try:
        with open(os.path.join(current, "release.json"), encoding="utf-8") as stream:
            sealed = json.load(stream)
    except (OSError, ValueError):
        return None
    found = sealed.get("pins") if isinstance(sealed, dict) else None
    return found if isinstance(found, dict) else None


def generations(pattern: str) -> list[dict[str, Any]]:
    """``id``, ``release``, ``answered``, ``stack``, ``rocm``, ``url`` of every generation kept."""
    found = []
    for path in sorted(glob.glob(f"{pattern}/generation.json")):
        folder = os.path.dirname(path)
        if os.path.islink(folder):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                kept = json.load(stream)
            release = os.path.basename(kept["release"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        try:
            with open(os.path.join(folder, "answered"), encoding="ascii") as stream:
                when = int(stream.read())
        except (OSError, ValueError):
            when = None
        about = {word: kept.get(word) for word in ("stack", "rocm", "url")}
        found.append({"id": os.path.basename(folder), "release": release, "answered": when} | about)
    return found


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"service", "url", "current", "in_use", "releases", "generations", "patience"}``.

    ``releases`` and ``generations`` are patterns: what has another name there is somebody's.
    """
    answered = answers_within(query["url"], query["service"], query["patience"])
    shown = unit(query["service"])
    current = query["current"]
    in_use = query["in_use"]
    return {
        "loaded": shown.get("LoadState") == "loaded",
        "enabled": shown.get("UnitFileState") == "enabled",
        "active": shown.get("ActiveState") == "active",
        "stale": shown.get("NeedDaemonReload") == "yes",
        "other_commands": other_commands(shown.get("DropInPaths", "")),
        "process": process(int(shown.get("MainPID") or 0)),
        "answers": answered,
        "current": os.readlink(current) if os.path.islink(current) else None,
        "pins": pins(current),
        "releases": releases(query["releases"]),
        "generation": os.readlink(in_use) if os.path.islink(in_use) else None,
        "generations": generations(query["generations"]),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
