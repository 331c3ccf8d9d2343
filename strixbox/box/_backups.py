"""Part of programs: copies of what others own, made before an edit, with an index.

index.jsonl has one line a copy, oldest first: path, copy, sha256 (None of a directory) and time.
The last line of a path tells what stood there before the last time that it was edited.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

from strixbox.box._atomic import beside, flush_directory

MARK = b"Managed by strixbox"


def entries(backups: str) -> list[dict[str, Any]]:
    """Lines of the index, oldest first; one that a power cut left half-written is passed over."""
    found = []
    try:
        with open(os.path.join(backups, "index.jsonl"), "rb") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"path", "copy"} <= entry.keys():
            found.append(entry)
    return found


def note(backups: str, path: str, copy: str, digest: str | None, **about: Any) -> None:
    """Write one line of the index, before its copy is made.

    A line without a copy is harmless, a copy without one is lost.
    """
    os.makedirs(backups, mode=0o700, exist_ok=True)
    entry = {"path": path, "copy": copy, "sha256": digest, "time": int(time.time()), **about}
    index = os.path.join(backups, "index.jsonl")
    with open(index, "a+b") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        whole = stream.read() in (b"", b"\n")
        stream.write((b"" if whole else b"\n") + json.dumps(entry).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def known_by(path: str) -> str:
    """A name that tells of ``path`` and is no other path's; with what is put around it, it fits.

    Two files of one name may hold the same, and each has its line: so all of the path counts.
    """
    name = os.path.basename(path).encode(errors="ignore")[:120].decode(errors="ignore")
    return f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}-{name}"


def new_copy(backups: str, path: str, end: str = "") -> str:
    """Where in the backup directory something of ``path`` is kept; nothing is there."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{known_by(path)}"
    copy, number = os.path.join(backups, name + end), 1
    while os.path.lexists(copy):
        number += 1
        copy = os.path.join(backups, f"{name}-{number}{end}")
    return copy


def keep(
    path: str, content: bytes, info: os.stat_result | None, backups: str, **about: Any
) -> None:
    """Have a copy of what stands at ``path``, and its line last among those of the path.

    ``info`` has owner, mode and times for the copy; None leaves it root's.
    """
    digest = hashlib.sha256(content).hexdigest()
    copy = os.path.join(backups, f"{digest[:16]}-{known_by(path)}")
    last = [entry["copy"] for entry in entries(backups) if entry["path"] == path][-1:]
    if last != [copy]:
        note(backups, path, copy, digest, **about)
    if os.path.exists(copy):
        return
    # Written aside: half a copy of a run that was cut must not count as one.
    aside = beside(copy, content)
    if info is not None:
        os.chown(aside, info.st_uid, info.st_gid)
        os.chmod(aside, info.st_mode & 0o777)
        os.utime(aside, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(aside, copy)
    flush_directory(backups)


def keep_foreign(path: str, content: bytes, backups: str) -> None:
    """Copy ``path`` to the backup directory where somebody else wrote it."""
    if not os.path.lexists(path):
        return
    link = os.path.islink(path)
    if link:
        before = f"link to {os.readlink(path)}\n".encode()
    else:
        with open(path, "rb") as stream:
            before = stream.read()
    if not link and (before == content or MARK in before[:512]):
        return
    if link:
        keep(path, before, None, backups, link=os.readlink(path))
    else:
        keep(path, before, os.lstat(path), backups)
