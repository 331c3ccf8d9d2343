"""Small Debian packages and signed apt repositories, written without dpkg-deb."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.podman import run


@dataclass(frozen=True)
class Deb:
    """A binary package: control fields, files by path, and what is run after unpacking."""

    package: str
    version: str
    depends: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    postinst: str = ""
    prerm: str = ""
    maintainer: str = "ROCm Dev Support <rocm-dev.support@amd.com>"
    section: str = "devel"
    architecture: str = "amd64"

    @property
    def file_name(self) -> str:
        """Name of the .deb; the epoch, if any, is not part of it."""
        version = self.version.partition(":")[2] or self.version
        return f"{self.package}_{version}_{self.architecture}.deb"

    def control(self) -> str:
        """Text of the control file."""
        lines = [
            f"Package: {self.package}",
            f"Version: {self.version}",
            f"Architecture: {self.architecture}",
            f"Maintainer: {self.maintainer}",
            f"Section: {self.section}",
            "Priority: optional",
        ]
        if self.depends:
            lines.append(f"Depends: {', '.join(self.depends)}")
        lines.append(f"Description: {self.package}, stand-in for tests")
        return "\n".join(lines) + "\n"

    def build(self) -> bytes:
        """Bytes of the .deb; the same input gives the same bytes."""
        scripts = {"control": self.control()}
        if self.conffiles:
            scripts["conffiles"] = "\n".join(self.conffiles) + "\n"
        for name in ("postinst", "prerm"):
            text = getattr(self, name)
            if text:
                scripts[name] = f"#!/bin/sh\nset -e\n{text}\n"
        return _ar(
            {
                "debian-binary": b"2.0\n",
                "control.tar.gz": _tar(scripts),
                "data.tar.gz": _tar(self.files),
            }
        )


def _tar(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for directory in sorted({d for path in files for d in _parents(path)}):
            entry = tarfile.TarInfo(f"./{directory}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path, text in sorted(files.items()):
            content = text.encode()
            entry = tarfile.TarInfo(f"./{path.lstrip('/')}")
            entry.size = len(content)
            entry.mode = 0o755 if text.startswith("#!") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _parents(path: str) -> list[str]:
    parts = path.lstrip("/").split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _ar(members: Mapping[str, bytes]) -> bytes:
    out = [b"!<arch>\n"]
    for name, content in members.items():
        out.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        out.append(content + (b"\n" if len(content) % 2 else b""))
    return b"".join(out)


@dataclass(frozen=True)
class Repository:
    """An apt repository with one suite and one component."""

    root: Path
    origin: str
    suite: str
    component: str
    key: str
    gnupg: Path

    def write(self, debs: Iterable[Deb], real: Iterable[tuple[Path, str]] = ()) -> None:
        """Write pool, index and signed Release; ``real`` are files with their control text."""
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        entries = []
        for deb in debs:
            content = deb.build()
            (pool / deb.file_name).write_bytes(content)
            entries.append(_entry(deb.control(), deb.file_name, content))
        for path, control in real:
            content = path.read_bytes()
            (pool / path.name).write_bytes(content)
            entries.append(_entry(control, path.name, content))
        index = "\n".join(entries).encode()
        dist = self.root / "dists" / self.suite
        folder = dist / self.component / "binary-amd64"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Packages").write_bytes(index)
        (folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
        (dist / "Release").write_text(self._release(dist), encoding="utf-8")
        self._sign(dist)

    def _release(self, dist: Path) -> str:
        lines = [
            f"Origin: {self.origin}",
            f"Label: {self.origin}",
            f"Suite: {self.suite}",
            f"Codename: {self.suite}",
            "Date: Wed, 23 Jul 2025 10:00:00 UTC",
            "Architectures: amd64",
            f"Components: {self.component}",
            "SHA256:",
        ]
        for path in sorted((dist / self.component).rglob("Packages*")):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            lines.append(f" {digest} {len(content)} {path.relative_to(dist)}")
        return "\n".join(lines) + "\n"

    def _sign(self, dist: Path) -> None:
        gpg = ["gpg", "--homedir", str(self.gnupg), "--batch", "--yes", "--local-user", self.key]
        release = str(dist / "Release")
        for words in (
            ["--clearsign", "--output", str(dist / "InRelease"), release],
            ["--armor", "--detach-sign", "--output", str(dist / "Release.gpg"), release],
        ):
            run(*gpg, *words)


def _entry(control: str, name: str, content: bytes) -> str:
    return (
        control.rstrip("\n") + f"\nFilename: pool/{name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
