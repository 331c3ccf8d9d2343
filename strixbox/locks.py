"""Hashed requirement locks: which distributions they pin for a given Python."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from strixbox.digests import digest_of

TOOLS = "boxtools"  # the lock of the strixbox command's own environment
FOLDER = Path(__file__).parent.parent / "files" / "opt" / "strixbox" / "locks"


@cache
def lock_text(lock: str) -> str:
    """Text of the lock of that name.

    Raises:
        FileNotFoundError: where there is no such lock.
    """
    return (FOLDER / f"{lock}.txt").read_text(encoding="utf-8")


@cache
def lock_digest(lock: str) -> str:
    """Digest of its text."""
    return digest_of(lock_text(lock))


def known_locks() -> list[str]:
    """Names of the locks that a release can be built with."""
    return sorted(path.stem for path in FOLDER.glob("*.txt") if path.stem != TOOLS)


@cache
def pins(text: str, python: str) -> Mapping[str, str]:
    """Version by canonical project name, of the lines that apply to ``python`` on Linux x86_64."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line or line[0] in " #-":
            continue
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = specifier.version
    return MappingProxyType(found)
