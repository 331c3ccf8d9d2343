"""Reader: packages that AMD built, and what older installs left in apt, ld.so and /opt."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from typing import Any

from strixbox.box._openpgp import BEGIN, fingerprints
from strixbox.box._regular import regular

FORM = "${Package}\t${Architecture}\t${db:Status-Abbrev}\t${Version}\t${Maintainer}\n"
AMDS = re.compile(r"@amd\.com(?![\w.-])")  # amd.com.example.org is somebody else's
DISTRIBUTIONS = re.compile(r"@(?:[\w.-]+\.)?(?:ubuntu\.com|debian\.org)(?![\w.-])")
# As AMD's build machines number a version; strixbox/rocm_versions.py knows it exactly.
NUMBERED = re.compile(r"\d{5}-\d+(?:[~.]\d\d\.\d\d)?$")


def architecture(query: str) -> str:
    """The box's own, which is dpkg's; from the same table."""
    lines = (line.split("\t") for line in query.splitlines())
    return next((line[1] for line in lines if line[0] == "dpkg"), "")


def packages(query: str, native: str) -> list[dict[str, Any]]:
    """Packages that may be AMD's, in any state dpkg knows, ``rc`` included; none of Ubuntu's.

    One of another architecture keeps it in its name, as apt writes it: hsa-rocr:i386.
    ``maintained`` are those of AMD's people; rocprofiler-systems has an address on GitHub there.
    """
    found = []
    for line in query.splitlines():
        package, built_for, status, version, maintainer = line.split("\t", 4)
        maintained = bool(AMDS.search(maintainer))
        if DISTRIBUTIONS.search(maintainer) or status.strip() in ("un", ""):
            continue
        if maintained or NUMBERED.search(version):
            foreign = built_for not in (native, "all", "")
            found.append(
                {
                    "package": f"{package}:{built_for}" if foreign else package,
                    "status": status.strip(),
                    "version": version,
                    "maintained": maintained,
                }
            )
    return found


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
    """/opt/rocm*: links with where they lead, directories with AMD's version file."""
    found: list[dict[str, Any]] = []
    for path in sorted(glob.glob(pattern)):
        if path.endswith(".strixbox-new"):
            continue  # its copy is in the backups; leftovers.py clears it
        if os.path.islink(path):
            found.append(
                {
                    "path": path,
                    "link": True,
                    "dangling": not os.path.exists(path),
                    # Mostly through /etc/alternatives/rocm, so the last target counts.
                    "target": os.path.realpath(path),
                }
            )
        elif os.path.isdir(path):
            version = _texts(os.path.join(glob.escape(path), ".info", "version"))
            text = next(iter(version.values()), "").strip()
            found.append({"path": path, "link": False, "version": text or None})
    return found


def loader(pattern: str) -> list[dict[str, Any]]:
    """Entries of ld.so with their directories, and whether those are there."""
    found = []
    for path, text in _texts(pattern).items():
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        directories = [line for line in lines if line.startswith("/")]
        found.append(
            {
                "path": path,
                "directories": [
                    {"there": os.path.isdir(d), "real": os.path.realpath(d)} for d in directories
                ],
            }
        )
    return found


def keyrings(*patterns: str) -> dict[str, list[str]]:
    """Fingerprints of the keys in apt's keyrings; what is not read to its end is not told."""
    found = {}
    for path in (p for pattern in patterns for p in sorted(glob.glob(pattern))):
        try:
            content = b"" if os.path.islink(path) else regular(path)[0]
            # apt reads every armoured block of a file.
            blocks = [BEGIN.encode() + part for part in content.split(BEGIN.encode())[1:]]
            found[path] = [key for block in blocks or [content] for key in fingerprints(block)]
        except (OSError, ValueError, IndexError):
            continue
    return found


def output(*words: str) -> str:
    """What a program of dpkg's says."""
    return subprocess.run(
        words, capture_output=True, text=True, errors="replace", check=False
    ).stdout


def main(query: dict[str, Any]) -> dict[str, Any]:
    """No settings: everything that may be AMD's is told, and decided elsewhere."""
    known = output("dpkg-query", "--show", f"--showformat={FORM}")
    native = architecture(known)
    return {
        "packages": packages(known, native),
        "sources": _texts(
            "/etc/apt/sources.list",
            "/etc/apt/sources.list.d/*.list",
            "/etc/apt/sources.list.d/*.sources",
        ),
        "preferences": _texts("/etc/apt/preferences", "/etc/apt/preferences.d/*"),
        "loader": loader("/etc/ld.so.conf.d/*rocm*"),
        "trees": trees("/opt/rocm*"),
        "keyrings": keyrings(
            "/etc/apt/keyrings/*",
            "/etc/apt/trusted.gpg.d/*.asc",
            "/etc/apt/trusted.gpg.d/*.gpg",
            "/usr/share/keyrings/*",
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
