"""Reader: what Python environments hold, read from their files without starting them."""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import stat
import sys
from typing import Any

from strixbox.box._records import noted_sizes, recorded, sites, wrong_files


def _header(path: str) -> dict[str, str]:
    """Name and Version of a METADATA file; empty where it cannot be read."""
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not line.strip():
                    break
                key, _, value = line.partition(":")
                if key in ("Name", "Version"):
                    found[key] = value.strip()
    except OSError:
        return {}
    return found


def _canonical(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _python(path: str) -> str | None:
    """Version of the environment's interpreter, as 3.12; None where it is no environment of ours.

    That is one with an interpreter, and apart from the system's packages.
    """
    try:
        with open(os.path.join(path, "pyvenv.cfg"), encoding="utf-8", errors="replace") as stream:
            lines = (line.partition("=") for line in stream)
            settings = {name.strip(): value.strip() for name, _, value in lines}
    except OSError:
        return None
    # Without a home Python takes the system's packages instead (docs.python.org, library/site).
    works = os.access(os.path.join(path, "bin", "python"), os.X_OK) and "home" in settings
    if not works or settings.get("include-system-site-packages", "true") != "false":
        return None
    match = re.match(r"\d+\.\d+", settings.get("version_info", settings.get("version", "")))
    return match.group() if match else None


def _hip(site: str) -> str | None:
    """``torch.version.hip`` as its file says; None for a torch of another kind or none."""
    try:
        path = os.path.join(site, "torch", "version.py")
        with open(path, encoding="utf-8", errors="replace") as stream:
            match = re.search(r"^hip\b[^=]*=\s*['\"]([^'\"]+)", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return match.group(1) if match else None


def _owners(paths: list[str]) -> list[str]:
    """Names of the accounts that own these paths, and ``anyone`` where others may write to one."""
    found: set[str] = set()
    owners: set[int] = set()
    for path in paths:
        try:
            info = os.lstat(path)
        except OSError:
            continue
        owners.add(info.st_uid)
        if info.st_mode & 0o022 and not stat.S_ISLNK(info.st_mode):
            found.add("anyone")
    for owner in owners:
        try:
            found.add(pwd.getpwuid(owner).pw_name)
        except KeyError:
            found.add(str(owner))
    return sorted(found)


def environment(path: str) -> dict[str, Any]:
    """``python``, ``packages`` (version by canonical name), ``hip`` and ``owners`` of one.

    ``damaged`` has a file that is wrong for each package that is not whole any more; it is not
    among the ``packages``. Owners are those of the environment's own parts and of every package;
    not of each file in them.
    """
    packages: dict[str, str] = {}
    broken: dict[str, str] = {}
    hip = None
    parts = [path, *(os.path.join(path, name) for name in ("bin", "bin/python", "pyvenv.cfg"))]
    noted = noted_sizes(path)
    for site in sites(path):
        parts += [site, *(os.path.join(site, name) for name in os.listdir(site))]
        hip = hip or _hip(site)
        records: dict[str, dict[str, int]] = {}
        for info in glob.glob(os.path.join(glob.escape(site), "*.dist-info", "METADATA")):
            header = _header(info)
            # RECORD is written last: without it an install was cut short.
            whole = os.path.exists(os.path.join(os.path.dirname(info), "RECORD"))
            if whole and len(header) == 2:
                name = _canonical(header["Name"])
                packages[name] = header["Version"]
                records[name] = recorded(os.path.dirname(info))
        broken |= {name: wrong[0] for name, wrong in wrong_files(site, records, noted).items()}
    return {
        "python": _python(path),
        "packages": {n: version for n, version in packages.items() if n not in broken},
        "damaged": broken,
        "hip": hip,
        "owners": _owners(parts),
    }


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"paths": [...]}`` -> environment by path."""
    return {path: environment(path) for path in query["paths"]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
