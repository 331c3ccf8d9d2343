"""What of an older ROCm has to go, decided from where things come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from strixbox.config import Rocm

# Never wanted on this chip: its kernel module shadows the kernel's own amdgpu and its firmware
# (AMD: "we recommend using OEM kernel in-tree modules, NOT amdgpu-dkms"); the installer would
# bring both back.
UNWANTED = frozenset({"amdgpu-dkms", "amdgpu-dkms-firmware", "amdgpu-install"})
OURS = "strixbox"
AMD_HOSTS = frozenset({"repo.radeon.com", "repo.amd.com"})


@dataclass(frozen=True)
class PurgePlan:
    """Packages to purge, those of them that are held, and files to take out of the way."""

    packages: tuple[str, ...]
    held: tuple[str, ...]
    files: tuple[str, ...]
    mixed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.packages or self.files or self.mixed)


def plan(remains: dict[str, Any], wanted: Rocm) -> PurgePlan:
    """What has to go for ``wanted`` to stand alone; empty on a box that is already there.

    ``mixed`` are files that hold lines of AMD's and of others: they are the owner's to edit.
    """
    packages = tuple(
        sorted(p["package"] for p in remains["packages"] if _is_old(p, wanted.version))
    )
    hosts = AMD_HOSTS | {urlsplit(wanted.repository).hostname or ""}
    texts = {**remains["sources"], **remains["preferences"]}
    stale: list[str] = []
    mixed: list[str] = []
    for path, text in texts.items():
        if OURS in path.rpartition("/")[2]:
            if wanted.version is None:
                stale.append(path)
            continue
        amd, others = _shares(text, hosts)
        if amd:
            (mixed if others else stale).append(path)
    keyrings = _keyrings(texts, frozenset(stale))
    leftovers = _leftovers(remains, wanted.version)
    return PurgePlan(
        packages,
        tuple(p for p in packages if p in remains["held"]),
        (*sorted(stale), *keyrings, *leftovers),
        tuple(sorted(mixed)),
    )


def _is_old(package: Mapping[str, Any], wanted: str | None) -> bool:
    installed = package["status"][1:2] in ("i", "U", "F", "H", "W", "t")
    return package["package"] in UNWANTED or package["release"] != wanted or not installed


def _shares(text: str, hosts: frozenset[str]) -> tuple[int, int]:
    """How many entries of a sources or preferences file are AMD's, and how many others'."""
    amd = others = 0
    # deb822 and preferences are stanzas; one-line sources are entries of a line each.
    one_line = re.search(r"^\s*deb(-src)?\s", text, re.MULTILINE)
    for entry in text.splitlines() if one_line else re.split(r"\n\s*\n", text):
        live = "\n".join(x for x in entry.splitlines() if x.strip() and x.strip()[0] != "#")
        if not live:
            continue
        if any(
            re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", live) for host in hosts if host
        ):
            amd += 1
        else:
            others += 1
    return amd, others


def _keyrings(texts: Mapping[str, str], stale: frozenset[str]) -> tuple[str, ...]:
    """Keyrings that only the stale sources use."""
    pattern = r"(?i)signed-by[=:]\s*(/[^\s\]]+)"
    used = {path: set(re.findall(pattern, text)) for path, text in texts.items()}
    doomed = set().union(*(used[path] for path in stale)) if stale else set()
    kept = set().union(*(keys for path, keys in used.items() if path not in stale), set())
    return tuple(sorted(key for key in doomed - kept if OURS not in key))


def _leftovers(remains: dict[str, Any], wanted: str | None) -> tuple[str, ...]:
    """What no package owns: trees with AMD's version file, dangling links, loader entries."""
    owned = set(remains["owned"])
    paths = []
    for tree in remains["trees"]:
        if tree["path"] in owned:
            continue
        if tree["link"]:
            paths += [tree["path"]] if tree["dangling"] else []
        elif tree["version"] and not (wanted and tree["version"].startswith(wanted)):
            paths.append(tree["path"])
    paths += [path for path in remains["loader"] if path not in owned]
    return tuple(sorted(paths))
