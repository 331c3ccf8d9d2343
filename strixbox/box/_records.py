"""Part of programs: the files that installed Python packages have by their RECORDs."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Iterable

from strixbox.box._atomic import put

NOTED = "sizes.json"  # in an environment


def recorded(info: str) -> dict[str, int]:
    """Size by path, relative to site-packages, of the files of one distribution.

    From its RECORD (PyPA, "Recording installed projects"), without byte code: that is made anew,
    also where a wheel has some (numpy 1.26). Some wheels list directories too.
    """
    try:
        with open(os.path.join(info, "RECORD"), encoding="utf-8", newline="") as stream:
            text = stream.read()
        # The csv module is for the few that need it: there are thousands of lines.
        if '"' in text:
            rows: Iterable[list[str]] = csv.reader(io.StringIO(text, newline=""))
        else:
            rows = (line.removesuffix("\r").split(",") for line in text.split("\n"))
        found = [row for row in rows if len(row) == 3 and row[2].isdecimal()]
    except (OSError, ValueError, csv.Error):
        return {}
    return {path: int(size) for path, _, size in found if not path.endswith((".pyc", "/"))}


def wrong_files(
    site: str, records: dict[str, dict[str, int]], noted: dict[str, int]
) -> dict[str, list[str]]:
    """By distribution the files that are gone or have another size than was installed.

    A file that two distributions have may be the one's or the other's. ``noted`` are sizes that
    files had when they were installed, whatever their RECORD says.
    """
    found = {}
    directory = os.open(site, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, record in records.items():
            wrong = {}
            for path, size in record.items():
                now = size_of(path, directory)
                if now != size:
                    wrong[path] = now
            others = (noted, *records.values()) if wrong else ()
            left = [p for p, now in wrong.items() if all(o.get(p) != now for o in others)]
            if left:
                found[name] = left
    finally:
        os.close(directory)
    return found


def size_of(path: str, directory: int | None = None) -> int:
    """Bytes of a file, at a path from an open directory; -1 where there is none."""
    try:
        return os.stat(path, dir_fd=directory).st_size
    except OSError:
        return -1


def sites(environment: str) -> list[str]:
    """Directories of packages."""
    return glob.glob(os.path.join(glob.escape(environment), "lib", "python3.*", "site-packages"))


def noted_sizes(environment: str) -> dict[str, int]:
    """What ``note_sizes`` left; empty where every file is as its RECORD says."""
    try:
        with open(os.path.join(environment, NOTED), encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_sizes(environment: str) -> None:
    """Note what differs from the RECORDs as it was installed: a wheel's own mistake.

    pip and uv install a wheel whose RECORD is wrong; without a note it would be damaged for ever.
    """
    found: dict[str, int] = {}
    for site in sites(environment):
        infos = glob.glob(os.path.join(glob.escape(site), "*.dist-info"))
        records = {info: recorded(info) for info in infos}
        for paths in wrong_files(site, records, {}).values():
            found |= {path: size_of(os.path.join(site, path)) for path in paths}
    place = os.path.join(environment, NOTED)
    if not found:
        if os.path.lexists(place):
            os.unlink(place)
        return
    put(place, json.dumps(found, indent=1).encode(), 0o644)
