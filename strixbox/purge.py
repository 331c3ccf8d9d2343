"""What of an older ROCm has to go, decided from where things come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from strixbox.config import Rocm
from strixbox.dpkg import is_on_disk
from strixbox.keyrings import Keyrings, entries, named, needs_any_key
from strixbox.rocm_versions import release_of, releases, revision_of

# Never wanted on this chip: its kernel module shadows the kernel's own amdgpu and its firmware
# (AMD: "we recommend using OEM kernel in-tree modules, NOT amdgpu-dkms"); the installer would
# bring both back.
UNWANTED = frozenset({"amdgpu-dkms", "amdgpu-dkms-firmware", "amdgpu-install"})
# What the names of ROCm's packages begin with, and those of nothing else of AMD's. TheRock's, which
# is ROCm from 7.9 on, are like amdrocm-core7.11-gfx94x (ROCm/TheRock, build_tools/packaging/linux);
# ROCm 6.2 called two of its profilers omniperf and omnitrace.
ROCM_NAMES = ("amdrocm", "hip", "hsa-", "omniperf", "omnitrace", "roc")
OURS = "strixbox"
AMD_HOSTS = frozenset({"repo.radeon.com", "repo.amd.com"})


@dataclass(frozen=True)
class PurgePlan:
    """Packages to purge, those of them that are held, and files to take out of the way.

    ``sources`` are apt's files of AMD's, ``leftovers`` what no package owns.
    """

    packages: tuple[str, ...]
    held: tuple[str, ...]
    sources: tuple[str, ...]
    leftovers: tuple[str, ...]
    mixed: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is taken out of the way."""
        return (*self.sources, *self.leftovers)

    def __bool__(self) -> bool:
        return bool(self.packages or self.files or self.mixed)


def plan(remains: dict[str, Any], wanted: Rocm) -> PurgePlan:
    """What has to go for ``wanted`` to stand alone; empty on a box that is already there.

    + remains: the fact RocmRemains, and by path the ``owners`` of what is ``contested``

    ``mixed`` are files that hold lines of AMD's and of others: they are the owner's to edit.
    """
    packages = _old_packages(remains["packages"], wanted.version)
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
    staying = {path: text for path, text in texts.items() if path not in stale}
    keyrings = Keyrings(
        remains["keyrings"],
        amds=wanted.key_fingerprint,
        named=named(staying.values()),
        any_key=needs_any_key(text for path, text in staying.items() if path in remains["sources"]),
    )
    doomed = [p for p in keyrings.of_amds(texts[path] for path in stale) if OURS not in p]
    unowned = (
        path
        for path in keyrings.unused()
        if OURS not in path and path not in doomed and not remains["owners"].get(path)
    )
    held = {p["package"] for p in remains["packages"] if p["status"].startswith("h")}
    return PurgePlan(
        packages,
        tuple(p for p in packages if p in held),
        # Keyrings first: killed after the sources, nothing would tell any more which they were.
        (*doomed, *sorted(stale)),
        tuple(sorted((*_leftovers(remains, wanted.version, frozenset(packages)), *unowned))),
        tuple(sorted(mixed)),
    )


def contested(remains: dict[str, Any], wanted: Rocm) -> tuple[str, ...]:
    """Paths whose owners the plan has to know; empty on a box that is already there."""
    paths = tuple(entry["path"] for entry in (*remains["loader"], *remains["trees"]))
    todo = plan(remains | {"owners": {}}, wanted)
    keyrings = (path for path in todo.leftovers if path in remains["keyrings"])
    return (*paths, *keyrings) if todo.packages or todo.leftovers else ()


def _old_packages(packages: list[dict[str, Any]], wanted: str | None) -> tuple[str, ...]:
    """AMD's packages that are of another release, of none, not whole, or never wanted here."""
    amds = [package for package in packages if _is_amds(package)]
    known = releases({p["package"]: p["version"] for p in amds})
    old = set()
    for package in amds:
        name = package["package"]
        there = is_on_disk(package["status"])
        unwanted = name.partition(":")[0] in UNWANTED
        if unwanted or known[name] != wanted or not known[name] or not there:
            old.add(name)
    return tuple(sorted(old))


def _is_amds(package: Mapping[str, Any]) -> bool:
    """Whether a package is AMD's ROCm or its graphics driver; two things have to tell so.

    AMD's people maintain more (XRT for the NPU, tools for the CPU), so the maintainer alone says
    too little. TheRock's packages and those that somebody built (rocm-core 1.0.0-local) have no
    build number, but the maintainer and the name. rocprofiler-systems names no maintainer of AMD's,
    but has the name and the build number; a name alone anybody may give.
    """
    version, name = package["version"], package["package"]
    if package["maintained"]:
        built = release_of(version) or revision_of(version)
        return bool(built) or name.startswith(("amdgpu-", *ROCM_NAMES))
    return bool(release_of(version)) and name.startswith(ROCM_NAMES)


def _shares(text: str, hosts: frozenset[str]) -> tuple[int, int]:
    """How many entries of a sources or preferences file are AMD's, and how many others'."""
    amd = others = 0
    for entry in entries(text):
        if any(
            re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", entry) for host in hosts if host
        ):
            amd += 1
        else:
            others += 1
    return amd, others


def _leftovers(
    remains: dict[str, Any], wanted: str | None, packages: frozenset[str]
) -> tuple[str, ...]:
    """What no package owns: trees of other releases, links into them, entries of the loader's."""
    owners = remains["owners"]
    doomed = []
    for tree in remains["trees"]:
        if tree["link"] or owners.get(tree["path"]):
            continue
        release = _release_of_tree(tree)
        if release and release != wanted:
            doomed.append(tree["path"])
    links = [
        tree["path"]
        for tree in remains["trees"]
        if tree["link"]
        and not owners.get(tree["path"])
        and (tree["dangling"] or _is_below(tree["target"], doomed))
    ]
    entries = []
    for entry in remains["loader"]:
        owner = owners.get(entry["path"], [])
        # dpkg keeps an entry as long as its package is known, and purges it with the package.
        if owner and not packages.issuperset(owner):
            continue
        gone = all(not d["there"] or _is_below(d["real"], doomed) for d in entry["directories"])
        if owner or (entry["directories"] and gone):
            entries.append(entry["path"])
    return tuple(sorted((*doomed, *links, *entries)))


def _release_of_tree(tree: Mapping[str, Any]) -> str | None:
    """Release of a tree below /opt: AMD's version file, else the name that AMD gives it."""
    told = tree["version"] or PurePosixPath(tree["path"]).name.removeprefix("rocm-")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])", told)
    return ".".join(part or "0" for part in found.groups()) if found else None


def _is_below(path: str, trees: Iterable[str]) -> bool:
    return any(path == tree or path.startswith(tree + "/") for tree in trees)
