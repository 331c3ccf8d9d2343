"""Writer: moves model files between disks so that a power cut at any instant loses nothing.

The order: copy beside the target, check the hash, flush, rename into place, have the old place
name the new one, and only then is the source gone. Run again, it goes on where it was cut.

A source that somebody is still writing, or has written since it was read, stays.

All of it is done as the account that the tiers belong to, so a link that something planted there
leads no further than that account may go. A model of somebody else's that it may read becomes its
own by the move.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from io import FileIO
from typing import Any

from strixbox.box._account import become
from strixbox.box._atomic import flush_directory, mend
from strixbox.box._links import lead, point
from strixbox.box._model_files import PART, identity
from strixbox.box._placing import CHUNK, held, place, sha256, unfollowed


def untouched(path: str) -> list[int]:
    """Size, time and inode of a file that nobody is writing.

    Raises:
        SystemExit: where somebody has it open for writing; a copy may stall for minutes, and its
            size and time stand still then.
    """
    descriptor = unfollowed(path, os.O_RDONLY)
    try:
        # The kernel gives a lease on what nobody has open for writing (fcntl(2)). It is not kept;
        # who opens the file in between is told by SIGIO, which would end this program.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Network disks have no leases, and there are none on another account's file.
        if error.errno == errno.EAGAIN:
            raise SystemExit(
                f"{path} is still being written by another program; it was left alone: run again"
                " when it is whole"
            ) from None
    finally:
        info = os.fstat(descriptor)
        os.close(descriptor)
    return identity(info)


def refuse_written(source: str, before: list[int]) -> None:
    """Stop where a file is not the one any more that was read."""
    if untouched(source) != before:
        raise SystemExit(
            f"{source} was written while it was moved; it was left alone: run again when it is"
            " whole"
        )


def copy(source: str, new: FileIO) -> str:
    """Copy with group, mode and times; returns the hash of what was read."""
    digest = hashlib.sha256()
    with open(source, "rb", opener=unfollowed) as old:
        while chunk := old.read(CHUNK):
            digest.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[new.write(rest) :]
    on_disk(new.fileno())
    info = os.stat(source)
    if info.st_uid != os.geteuid():
        print(f"{source} was of uid {info.st_uid}; it is yours at its new place", flush=True)
    # The group is kept where the account is in it, and the mode where the disk knows any: exFAT and
    # NTFS have one owner and one mode for all, and say so to everybody but root.
    with suppress(PermissionError):
        os.chown(new.name, -1, info.st_gid)
    with suppress(PermissionError):
        shutil.copystat(source, new.name)
    return digest.hexdigest()


def on_disk(descriptor: int) -> None:
    """Have a file's content on the disk, and what is read of it afterwards from there."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def move(item: dict[str, Any]) -> None:
    """Move ``source`` to ``target``; where ``link`` names a place, a link there leads to it."""
    source, target, link = item["source"], item["target"], item["link"]
    before = untouched(source)
    if os.path.lexists(target) and not os.path.islink(target):
        if os.path.samestat(os.lstat(source), os.lstat(target)):
            raise SystemExit(
                f"{source} and {target} are one file, and it was left alone: both directories lead"
                " to the same place; name another models_archive, then run again"
            )
        # It may be a copy of the user's own that is in the memory only.
        with open(target, "rb", opener=unfollowed) as there:
            on_disk(there.fileno())
        flush_directory(os.path.dirname(target))
        found = sha256(source)[0]
        if sha256(target)[0] != found:
            raise SystemExit(
                f"{source} and {target} both exist and differ; both were left alone: remove the one"
                " you do not want, then run again"
            )
        expect(item, found)
    else:
        bring(item, before)
    refuse_written(source, before)
    if link == source:
        point(link, target)
        flush_directory(os.path.dirname(link))
        return
    if link:
        lead(link, target)
        flush_directory(os.path.dirname(link))
    os.unlink(source)
    flush_directory(os.path.dirname(source))


def expect(item: dict[str, Any], found: str) -> None:
    """Stop where the source is not the model that it was taken for."""
    if item["sha256"] not in (None, found):
        raise SystemExit(
            f"{item['source']} has sha256 {found}, not {item['sha256']} as models_manifest or the"
            " records say; it was left alone: if it is the model, mend its sha256 or put it to"
            f" {item['target']} yourself, else move it away; then run again"
        )


def bring(item: dict[str, Any], before: list[int]) -> None:
    """Have a copy of the source at the target, on the disk and compared.

    + before: what the source was at the beginning
    """
    source, target = item["source"], item["target"]
    part = f"{target}{PART}"
    stood = os.readlink(target) if os.path.islink(target) else None
    with held(part) as new:
        new.truncate(0)  # an earlier move's; its room is free again
        free = os.statvfs(os.path.dirname(target))
        if os.path.getsize(source) > free.f_bavail * free.f_frsize:
            raise SystemExit(
                f"{os.path.dirname(target)} has no room for {source}; free disk room, run again"
            )
        print(f"moving {source} to {target}", flush=True)
        try:
            read = copy(source, new)
            expect(item, read)
            if sha256(part)[0] != read:
                raise SystemExit(f"{target} was not written as read; see dmesg for disk errors")
            refuse_written(source, before)
            place(part, target, stood)
        except (SystemExit, OSError):
            with suppress(OSError):
                os.unlink(part)
            raise
    flush_directory(os.path.dirname(target))


def trouble(error: OSError, source: str, owner: str) -> str:
    """What the system refused, and the mend."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{source} could not be moved by {owner}: {error.filename}: {error.strerror}; nothing"
            f" is lost. ComfyUI runs as {owner} and needs it too: give {owner} the file and both"
            f" directories (sudo chown {owner}: PATH), then run again"
        )
    path = error.filename if isinstance(error.filename, str) else source
    return (
        f"{source} could not be moved: {path}: {error.strerror}; nothing is lost:"
        f" {mend(error)}, then run again"
    )


def main(order: dict[str, Any]) -> None:
    """``{"items": [{"source", "target", "link", "sha256"}], "owner"}``.

    ``link`` and ``sha256``, what the source must hold, may be None.
    """
    become(order["owner"])
    for item in order["items"]:
        try:
            move(item)
        except OSError as error:
            raise SystemExit(trouble(error, item["source"], order["owner"])) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
