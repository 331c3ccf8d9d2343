"""Reader: packages that AMD built, and what older installs left in apt, ld.so and /opt."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from typing import Any

# AMD's build number: 6.4.2.60402-120~24.04, 1:6.12.12.60402-2187269.24.04.
BUILD = re.compile(r"(?:^|[.:])(\d{5,6})-\d+[~.]\d\d\.\d\d$")
FORM = "${binary:Package}\t${db:Status-Abbrev}\t${Version}\t${Maintainer}\n"


def packages(query: str) -> list[dict[str, Any]]:
    """Packages of AMD's in any state dpkg knows, ``rc`` included."""
    found = []
    for line in query.splitlines():
        package, status, version, maintainer = line.split("\t", 3)
        build = BUILD.search(version)
        if build and "@amd.com" in maintainer and status.strip() not in ("un", ""):
            found.append(
                {
                    "package": package.partition(":")[0],
                    "status": status.strip(),
                    "version": version,
                    "release": release(build.group(1)),
                }
            )
    return found


def release(build: str) -> str:
    """ROCm release of a build number: 60402 is 6.4.2, 70001 is 7.0.1."""
    number = int(build)
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _texts(*patterns: str) -> dict[str, str]:
    texts = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            try:
                with open(path, encoding="utf-8", errors="replace") as stream:
                    texts[path] = stream.read()
            except OSError:
                continue
    return texts


def trees(pattern: str) -> list[dict[str, Any]]:
    """/opt/rocm*: links with whether they lead anywhere, directories with AMD's version file."""
    found: list[dict[str, Any]] = []
    for path in sorted(glob.glob(pattern)):
        if os.path.islink(path):
            found.append({"path": path, "link": True, "dangling": not os.path.exists(path)})
        elif os.path.isdir(path):
            version = _texts(os.path.join(glob.escape(path), ".info", "version"))
            text = next(iter(version.values()), "").strip()
            found.append({"path": path, "link": False, "version": text or None})
    return found


def owned(paths: list[str]) -> list[str]:
    """Those of ``paths`` that a package owns."""
    if not paths:
        return []
    command = ["dpkg-query", "--search", *paths]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.rpartition(": ")[2] for line in answer.stdout.splitlines()]


def main(query: dict[str, Any]) -> dict[str, Any]:
    """No settings: everything that may be AMD's is told, and decided elsewhere."""
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={FORM}"],
        capture_output=True,
        text=True,
        check=False,
    )
    held = subprocess.run(["apt-mark", "showhold"], capture_output=True, text=True, check=False)
    opt = trees("/opt/rocm*")
    loader = sorted(glob.glob("/etc/ld.so.conf.d/*rocm*"))
    return {
        "packages": packages(listed.stdout),
        "held": held.stdout.split(),
        "sources": _texts(
            "/etc/apt/sources.list",
            "/etc/apt/sources.list.d/*.list",
            "/etc/apt/sources.list.d/*.sources",
        ),
        "preferences": _texts("/etc/apt/preferences", "/etc/apt/preferences.d/*"),
        "loader": loader,
        "trees": opt,
        "owned": owned([*loader, *(tree["path"] for tree in opt)]),
    }


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
