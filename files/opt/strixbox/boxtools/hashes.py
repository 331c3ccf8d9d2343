"""Hashes of model files: those that must be, those that were seen first, and verification.

A hash that was computed once is trusted while size, time and inode of the file are the same; a
file without a hash in the manifest is recorded at its first use and checked ever after. The records
have the shape of the deploy's own, whose hashes of first use are known here too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from boxtools import pagecache
from boxtools.catalogue import ModelFile
from boxtools.safetensors import header_trouble
from boxtools.settings import ManagedModel, Settings
from boxtools.statefile import read_json, write_json

RECORDS = "hashes.json"
DEPLOY = Path("/var/lib/strixbox/files.json")
Verdict = Literal["ok", "recorded", "changed", "damaged", "broken", "unreadable"]


@dataclass
class Hashes:
    """The records of one box."""

    path: Path
    files: dict[str, tuple[list[int], str]] = field(default_factory=dict)  # by path
    first: dict[str, str] = field(default_factory=dict)  # by folder/name
    urls: dict[str, str] = field(default_factory=dict)  # by URL, also the deploy's

    @classmethod
    def load(cls, settings: Settings) -> Hashes:
        """The records; what is damaged in them is as if it was not there."""
        path = settings.state / RECORDS
        own, others = _table(read_json(path)), _table(read_json(DEPLOY))
        files = {}
        for place, record in _table(own.get("files")).items():
            record = _table(record)
            identity, digest = record.get("identity"), record.get("sha256")
            if isinstance(identity, list) and _is_hash(digest):
                files[place] = (identity, str(digest))
        return cls(
            path,
            files,
            _hashes(own.get("first")),
            _hashes(others.get("urls")) | _hashes(own.get("urls")),
        )

    def save(self) -> None:
        """Write them.

        Raises:
            Trouble: where they cannot be written.
        """
        files = {
            path: {"identity": identity, "sha256": digest}
            for path, (identity, digest) in self.files.items()
            if Path(path).exists()
        }
        write_json(self.path, {"files": files, "first": self.first, "urls": self.urls})

    def wanted(self, key: str, managed: ManagedModel | None) -> str | None:
        """The hash that a model must have: the manifest's, the first of its URL, or the first."""
        if managed and managed.sha256:
            return managed.sha256
        by_url = self.urls.get(managed.url) if managed and managed.url else None
        return by_url or self.first.get(key)

    def known(self, path: Path) -> str | None:
        """Hash of a file that has not changed since it was computed."""
        identity, digest = self.files.get(str(path), (None, None))
        try:
            return digest if identity == identity_of(path) else None
        except OSError:
            return None

    def note(self, path: Path, digest: str, key: str) -> None:
        """Remember a hash that was computed; the first one of a model stays."""
        self.files[str(path)] = (identity_of(path), digest)
        self.first.setdefault(key, digest)

    def moved(self, source: Path, target: Path, digest: str | None, key: str) -> None:
        """Remember a file at its new place; without a hash, the one that is known goes with it."""
        old = self.files.pop(str(source), (None, None))[1]
        if digest or old:
            self.note(target, str(digest or old), key)


def identity_of(path: Path) -> list[int]:
    """What changes when a file is written or replaced."""
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def sha256(path: Path, seen: Callable[[int], None] = lambda _: None) -> str:
    """Hash of a file; what of it was not in the page cache is not there afterwards either.

    Raises:
        OSError: where it cannot be read.
    """
    digest = hashlib.sha256()
    descriptor = pagecache.open_quietly(path)
    try:
        done = 0
        for chunk in pagecache.pass_through(descriptor, os.fstat(descriptor).st_size):
            digest.update(chunk)
            done += len(chunk)
            seen(done)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


@dataclass(frozen=True)
class Verified:
    """What came of one model."""

    key: str
    path: Path
    verdict: Verdict
    sha256: str | None
    wanted: str | None
    read: bool  # the file was read now; else its hash is known from before
    trouble: str = ""  # what is broken about it

    @property
    def good(self) -> bool:
        """Whether the file is what it should be."""
        return self.verdict in ("ok", "recorded")


def verify(
    model: ModelFile,
    hashes: Hashes,
    managed: ManagedModel | None,
    again: bool,
    seen: Callable[[int], None],
) -> Verified:
    """Compare one file with the hash it must have; record it where there is none.

    ``damaged`` is a file whose content is another though nothing has written it since it was
    hashed: the disk's doing. ``changed`` was written anew or is not what the manifest says.
    ``broken`` cannot be loaded, whatever is recorded of it; it is never recorded.
    """
    wanted = hashes.wanted(model.key, managed)
    # The manifest's hash is somebody's word for the content; a hash of first use is nobody's.
    trouble = "" if managed and managed.sha256 else header_trouble(model.path)
    if trouble and wanted is None:
        return Verified(model.key, model.path, "broken", None, None, False, trouble)
    before = hashes.known(model.path)
    found = None if again else before
    read = found is None
    if found is None:
        try:
            found = sha256(model.path, seen)
        except OSError:
            return Verified(model.key, model.path, "unreadable", None, wanted, True)
    hashes.note(model.path, found, model.key)
    verdict: Verdict = "recorded" if wanted is None else "ok" if found == wanted else "changed"
    if before and found != before:
        verdict = "damaged"
    if trouble and verdict == "ok":
        verdict = "broken"
    return Verified(model.key, model.path, verdict, found, wanted, read, trouble)


def managed_model(settings: Settings, key: str) -> ManagedModel | None:
    """The manifest's entry of a model."""
    return next((m for m in settings.models if f"{m.folder}/{m.name}" == key), None)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hashes(value: Any) -> dict[str, str]:
    return {key: digest for key, digest in _table(value).items() if _is_hash(digest)}


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
