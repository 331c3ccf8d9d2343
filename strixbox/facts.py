"""Questions to a box; each is one command, answered in JSON by a program of ``strixbox/box``."""

from __future__ import annotations

import json
from typing import Any, ClassVar, TypeVar, cast

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from strixbox.programs import Question, read

T = TypeVar("T")


class BoxFact(FactBase[T]):
    """A fact whose program prints one JSON value; None only where the box did not answer."""

    # The argument that names what is asked about, where the answer is a table by those names.
    table: ClassVar[str | None] = None

    def process(self, output: list[str]) -> T:
        """Parse the program's answer."""
        try:
            return cast(T, json.loads("\n".join(output)))
        except ValueError as error:
            raise FactProcessError(f"{self.name}: the box answered no JSON: {error}") from error


class FileStates(BoxFact[dict[str, dict[str, Any]]]):
    """For each path: kind, mode, owner, group, sha256 or target; ``{"kind": "absent"}`` else.

    A link to a directory tells of that as ``directory``. Without ``content`` no file is read.
    """

    table = "paths"

    def command(
        self, paths: tuple[str, ...], content: bool = True, user: str | None = None
    ) -> Question:
        """Ask about ``paths`` as ``user`` (None: root); none is followed where it is a link."""
        return read("file_states", {"paths": list(paths), "content": content, "user": user})


class TreeEntries(BoxFact[dict[str, list[str]]]):
    """``directories`` and ``files`` below directories; byte code is left out."""

    def command(self, roots: tuple[str, ...]) -> Question:
        """Ask about the directories ``roots``."""
        return read("tree_entries", {"roots": list(roots)})


class FileText(BoxFact[str]):
    """Text of a file, empty where there is none; bytes that are no UTF-8 are replaced."""

    def command(self, path: str, user: str | None = None) -> Question:
        """Ask for the text of ``path``, which ``user`` can read (None: root)."""
        return read("file_text", {"path": path, "user": user})


class Checkouts(BoxFact[dict[str, dict[str, Any]]]):
    """For each path: ``commit`` (None where there is no checkout) and the ``edited`` files."""

    table = "paths"

    def command(self, paths: tuple[str, ...]) -> Question:
        """Ask git about ``paths``."""
        return read("checkouts", {"paths": list(paths)})


class Environments(BoxFact[dict[str, dict[str, Any]]]):
    """For each Python environment: ``python``, ``packages``, ``damaged``, ``hip``, ``owners``."""

    table = "paths"

    def command(self, paths: tuple[str, ...]) -> Question:
        """Ask about the environments at ``paths``."""
        return read("environments", {"paths": list(paths)})


class UserNodes(BoxFact[dict[str, str]]):
    """Digest of requirements.txt by custom node of the user's."""

    def command(self, directory: str, user: str) -> Question:
        """Ask about the nodes in ``directory``, which ``user`` owns."""
        return read("user_nodes", {"directory": directory, "user": user})


class Service(BoxFact[dict[str, Any]]):
    """A unit, its process, whether ``url`` is answered, the releases and the generations."""

    def command(
        self,
        service: str,
        url: str,
        current: str,
        in_use: str,
        releases: str,
        generations: str,
        patience: int = 0,
    ) -> Question:
        """Ask systemd, /proc and the server itself, the last for up to ``patience`` seconds."""
        query = {
            "service": service,
            "url": url,
            "current": current,
            "in_use": in_use,
            "releases": releases,
            "generations": generations,
            "patience": patience,
        }
        return read("service", query)


class Units(BoxFact[dict[str, dict[str, bool]]]):
    """For each unit: whether it is ``enabled``, and ``stale``: not read as it is written."""

    table = "units"

    def command(self, units: tuple[str, ...]) -> Question:
        """Ask systemd about ``units``."""
        return read("units", {"units": list(units)})


class Seal(BoxFact[dict[str, Any]]):
    """release.json of a release; empty where it was not proved."""

    def command(self, path: str) -> Question:
        """Ask for the seal at ``path``."""
        return read("seal", {"path": path})


class Footprint(BoxFact[dict[str, Any]]):
    """What strixbox has on the box, and what of others waits in the backups."""

    def command(
        self,
        paths: tuple[str, ...],
        inside: tuple[str, ...],
        known: dict[str, str],
        kept: tuple[str, ...],
        units: tuple[str, ...],
        mount: str,
        bashrc: str,
        user: str,
        backups: str,
        packages: tuple[str, ...],
    ) -> Question:
        """Ask the file system, systemd and apt."""
        query = {
            "paths": list(paths),
            "inside": list(inside),
            "known": known,
            "kept": list(kept),
            "units": list(units),
            "mount": mount,
            "fstab": "/etc/fstab",
            "bashrc": bashrc,
            "user": user,
            "backups": backups,
            "packages": list(packages),
        }
        return read("footprint", query)


class Leftovers(BoxFact[list[dict[str, Any]]]):
    """What dead runs may have left; see strixbox/leftovers.py for what of it goes."""

    def command(self, query: dict[str, Any]) -> Question:
        """Ask in the places of ``query``."""
        return read("leftovers", query)


class Busy(BoxFact[list[str]]):
    """Which of some directories a process runs from or has open, or something is mounted in."""

    def command(self, paths: tuple[str, ...]) -> Question:
        """Ask /proc about ``paths``."""
        return read("busy", {"paths": list(paths)})


class TmpfsMount(BoxFact[dict[str, Any]]):
    """fstab's lines and the mount at a path, and ids of the account that shall own it."""

    def command(self, path: str, user: str) -> Question:
        """Ask about the RAM disk at ``path``."""
        return read("tmpfs_mount", {"path": path, "user": user})


class Account(BoxFact[dict[str, Any]]):
    """``home``, ``uid``, ``gid``, ``gecos`` and ``groups`` of an account that ``exists``."""

    def command(self, user: str) -> Question:
        """Ask about ``user``."""
        return read("account", {"user": user})


class RocmRemains(BoxFact[dict[str, Any]]):
    """AMD's packages in any state, sources, preferences, keyrings, loader entries, /opt/rocm*."""

    def command(self) -> Question:
        """Ask dpkg, apt's files and the file system."""
        return read("rocm_remains", {})


class PathOwners(BoxFact[dict[str, list[str]]]):
    """For each path the packages that own it."""

    table = "paths"

    def command(self, paths: tuple[str, ...]) -> Question:
        """Ask dpkg about ``paths``, which takes it a while."""
        return read("path_owners", {"paths": list(paths)})


class Removal(BoxFact[dict[str, Any]]):
    """What apt would remove with ``packages``, and its words where it refuses."""

    def command(self, packages: tuple[str, ...]) -> Question:
        """Simulate; nothing is removed."""
        return read("removal", {"packages": list(packages)})


class AptKey(BoxFact[str]):
    """Fingerprint of an apt key file; empty where there is none as this toolkit writes it."""

    def command(self, path: str) -> Question:
        """Ask for the key at ``path``."""
        return read("apt_key", {"path": path})


class OfferedKey(BoxFact[dict[str, str]]):
    """``sha256`` of the key at a URL where it has the fingerprint, else ``trouble``."""

    def command(self, url: str, fingerprint: str) -> Question:
        """Ask for the key at ``url``; it is not kept."""
        return read("apt_key", {"url": url, "fingerprint": fingerprint})


class Rehearsal(BoxFact[dict[str, Any]]):
    """``versions`` that apt would install, those ``downgraded`` or ``held``, or why ``refused``."""

    def command(
        self, install: tuple[str, ...], recommends: bool, apart: dict[str, Any] | None = None
    ) -> Question:
        """Simulate: on the box as it is, or ``apart`` with another source and less installed."""
        query = {"install": list(install), "recommends": recommends, "apart": apart}
        return read("rehearsal", query)


class DpkgState(BoxFact[dict[str, Any]]):
    """Whether dpkg was ``interrupted``, and the process that is ``busy`` with it."""

    def command(self, root: str) -> Question:
        """Ask dpkg's journal and its locks."""
        return read("dpkg_state", {"root": root})


class AptSource(BoxFact[dict[str, Any]]):
    """Whether a source's index has been fetched, and the stamp of the last fetch."""

    def command(self, uri: str, suite: str, stamp: str) -> Question:
        """Ask apt's lists."""
        return read("apt_source", {"uri": uri, "suite": suite, "stamp": stamp})


class Installed(BoxFact[dict[str, dict[str, Any]]]):
    """Version and hold by package."""

    table = "packages"

    def command(self, packages: tuple[str, ...]) -> Question:
        """Ask dpkg about ``packages``."""
        return read("installed", {"packages": list(packages)})


class VerifiedFiles(BoxFact[dict[str, Any]]):
    """``files``: kind and verified sha256 by path; ``urls``: hashes recorded at first use.

    ``rooms``: device and free bytes by directory.
    """

    def command(self, paths: tuple[str, ...], records: str, user: str | None = None) -> Question:
        """Ask about ``paths``, which ``user`` owns (None: root); nothing is hashed."""
        query = {"paths": list(paths), "records": records, "user": user}
        return read("verified_files", query)


class ModelTier(BoxFact[dict[str, Any]]):
    """Whether a tier's directory ``exists`` and is on an ``other_disk`` than the system."""

    def command(self, path: str) -> Question:
        """Ask about the directory at ``path``."""
        return read("model_tier", {"path": path})


class Unreachable(BoxFact[str]):
    """Why the box gets no answer from a URL; empty where it does."""

    def command(self, url: str) -> Question:
        """Ask for the first byte of ``url``."""
        return read("reachable", {"url": url})


class Survey(BoxFact[dict[str, Any]]):
    """Everything that preflight judges."""

    def command(
        self,
        user: str,
        home: str,
        port: int,
        service: str,
        seal: str,
        directories: tuple[str, ...],
    ) -> Question:
        """Ask the box about itself, and whether the wanted release has its ``seal``.

        Of ``directories``, which the user is to have, those are told that cannot be.
        """
        query: dict[str, Any] = {"user": user, "home": home, "port": port, "service": service}
        query |= {"seal": seal, "directories": list(directories)}
        return read("survey", query)
