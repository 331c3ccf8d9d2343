"""Writer: moves model files between disks so that a power cut at any instant loses nothing.

The order: copy beside the target, check the hash, flush, rename into place, have the old place
name the new one, and only then is the source gone. Run again, it goes on where it was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from typing import Any

CHUNK = 1 << 20


def sha256(path: str) -> str:
    """Hash of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy(source: str, part: str) -> str:
    """Copy with owner, mode and times; returns the hash of what was read."""
    digest = hashlib.sha256()
    with open(source, "rb") as old, open(part, "wb") as new:
        while chunk := old.read(CHUNK):
            digest.update(chunk)
            new.write(chunk)
        new.flush()
        os.fsync(new.fileno())
    info = os.stat(source)
    os.chown(part, info.st_uid, info.st_gid)
    shutil.copystat(source, part)
    return digest.hexdigest()


def flush(path: str) -> None:
    """Have a directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(item: dict[str, Any]) -> None:
    """Move ``source`` to ``target``; with ``link`` the source becomes a link to it."""
    source, target = item["source"], item["target"]
    if os.path.lexists(target) and not os.path.islink(target):
        if sha256(target) != sha256(source):
            raise SystemExit(
                f"{source} and {target} both exist and differ; both were left alone: remove the one"
                " you do not want, then run again"
            )
    else:
        free = os.statvfs(os.path.dirname(target))
        if os.path.getsize(source) > free.f_bavail * free.f_frsize:
            raise SystemExit(
                f"{os.path.dirname(target)} has no room for {source}; free disk room, run again"
            )
        print(f"moving {source} to {target}", flush=True)
        part = f"{target}.part"
        read = copy(source, part)
        if sha256(part) != read:
            os.unlink(part)
            raise SystemExit(f"{target} was not written as read; see dmesg for disk errors")
        os.replace(part, target)
        flush(os.path.dirname(target))
    if item["link"]:
        aside = f"{source}.strixbox-new"
        if os.path.lexists(aside):
            os.unlink(aside)
        os.symlink(target, aside)
        info = os.stat(target)
        os.lchown(aside, info.st_uid, info.st_gid)
        os.replace(aside, source)
    else:
        os.unlink(source)
    flush(os.path.dirname(source))


def main(order: dict[str, Any]) -> None:
    """``{"items": [{"source", "target", "link"}]}``."""
    for item in order["items"]:
        try:
            move(item)
        except OSError as error:
            raise SystemExit(
                f"{item['source']} could not be moved: {error.strerror}; nothing is lost: mend that"
                " and run again"
            ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
