"""Writer: directories and whole files put in place, each by one atomic rename.

A file that is in the way and was not put there by strixbox is copied to the backup directory
first, so an owner finds what stood there before the first edit.
"""

from __future__ import annotations

import base64
import errno
import grp
import hashlib
import json
import os
import pwd
import sys
import time
from typing import Any

MARK = b"Managed by strixbox"


def place_directory(wanted: dict[str, Any]) -> None:
    """Make one directory with its mode and owner; what is inside stays as it is."""
    path = wanted["path"]
    if os.path.lexists(path) and not os.path.isdir(path):
        kind = f"a link to {os.readlink(path)}" if os.path.islink(path) else "a file"
        raise SystemExit(f"{path} shall be a directory but is {kind}; move it away and run again")
    os.makedirs(path, mode=0o755, exist_ok=True)
    _own(path, wanted)


def place_file(wanted: dict[str, Any], backups: str) -> None:
    """Write one file beside its place, flush it, and rename it there."""
    path = wanted["path"]
    content = base64.b64decode(wanted["content"])
    if os.path.isdir(path) and not os.path.islink(path):
        raise SystemExit(f"{path} shall be a file but is a directory; move it away and run again")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.islink(path):
        # Reading a pipe or a device to keep its content might never end.
        raise SystemExit(f"{path} is neither file nor directory; move it away and run again")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    keep_foreign(path, content, backups)
    aside = f"{path}.strixbox-new"
    if os.path.lexists(aside):
        os.unlink(aside)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    _own(aside, wanted)
    os.replace(aside, path)
    _flush_directory(os.path.dirname(path))


def keep_foreign(path: str, content: bytes, backups: str) -> None:
    """Copy ``path`` to the backup directory where somebody else wrote it; once per content."""
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
    digest = hashlib.sha256(before).hexdigest()
    # The whole path: two files of one name may hold the same, and each has its entry.
    where = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    copy = os.path.join(backups, f"{digest[:16]}-{where}-{os.path.basename(path)}")
    if os.path.exists(copy):
        return
    os.makedirs(backups, mode=0o700, exist_ok=True)
    # The index comes first: an entry without a copy is harmless, a copy without one is lost.
    entry = {"path": path, "copy": copy, "sha256": digest, "time": int(time.time())}
    with open(os.path.join(backups, "index.jsonl"), "a", encoding="utf-8") as index:
        index.write(json.dumps(entry) + "\n")
        index.flush()
        os.fsync(index.fileno())
    # Written aside: half a copy of a run that was cut must not count as one.
    aside = f"{copy}.strixbox-new"
    if os.path.lexists(aside):
        os.unlink(aside)
    status = os.lstat(path)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(before)
        stream.flush()
        os.fsync(descriptor)
    if not link:
        os.chown(aside, status.st_uid, status.st_gid)
        os.chmod(aside, status.st_mode & 0o777)
        os.utime(aside, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(aside, copy)
    _flush_directory(backups)


def _own(path: str, wanted: dict[str, Any]) -> None:
    try:
        owner = pwd.getpwnam(wanted["owner"])
        group = wanted["group"]
        gid = owner.pw_gid if group is None else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise SystemExit(f"{path}: {error.args[0]}; create the account and run again") from None
    os.chown(path, owner.pw_uid, gid)
    os.chmod(path, int(wanted["mode"], 8))


def _flush_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(order: dict[str, Any]) -> None:
    """``{"directories": [...], "files": [...], "backups": dir}``; parents before children."""
    path = "/"
    try:
        for wanted in order["directories"]:
            path = wanted["path"]
            place_directory(wanted)
        for wanted in order["files"]:
            path = wanted["path"]
            place_file(wanted, order["backups"])
    except OSError as error:
        mends = {
            errno.ENOSPC: "free some disk room",
            errno.EROFS: "the file system is read-only; remount it writable (see dmesg)",
        }
        mend = mends.get(error.errno or 0, "mend that")
        raise SystemExit(
            f"{path} was not written: {error.strerror}; {mend} and run again"
        ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
