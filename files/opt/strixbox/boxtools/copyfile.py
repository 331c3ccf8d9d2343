"""Copies of large files: by sharing blocks where the disk can, else at the disks' speed.

What is copied is hashed on the way and read back from the disk; neither pushes anything out of the
page cache.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from boxtools import pagecache
from boxtools.errors import Trouble
from boxtools.hashes import sha256

# A name that no other program gives: browsers and download managers call theirs .part. The deploy
# uses the same (strixbox/box/_model_files.py).
PART = ".strixbox-part"
TAG = f"{PART}.etag"  # says which version of the file the part is of
RESERVE = 256 << 20  # bytes that a copy or download leaves free, as the deploy's do
FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
RENAME_NOREPLACE, AT_FDCWD = 1, -100  # linux/fs.h, fcntl.h
# linux/fs.h; how writes are sent off early and in order, see sync_file_range(2).
SYNC_WAIT_BEFORE, SYNC_WRITE, SYNC_WAIT_AFTER = 1, 2, 4
Seen = Callable[[int], None]

_libc = ctypes.CDLL(None, use_errno=True)


def second_name(source: Path, staged: Path) -> bool:
    """Give a file a second name; on one file system nothing needs to be copied."""
    try:
        staged.hardlink_to(source)
    except OSError:  # another disk, another mount, or a file system without hard links
        return False
    return True


def clone(source: Path, part: Path) -> bool:
    """Share the source's blocks where the file system can (Btrfs, XFS: ioctl_ficlone(2))."""
    with source.open("rb") as old, part.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError:
            pass
        else:
            return True
    part.unlink()
    return False


def copy(source: Path, part: Path, seen: Seen) -> str:
    """Copy, hash what is read, and compare with what the disk gives back.

    Raises:
        Trouble: where there is no room, or the disk gives back something else.
    """
    old = pagecache.open_quietly(source)
    try:
        size = os.fstat(old).st_size
        disk = os.statvfs(part.parent)
        if size + RESERVE > disk.f_bavail * disk.f_frsize:
            raise Trouble(
                f"{part.parent} has {disk.f_bavail * disk.f_frsize / 2**30:.1f} GiB free and"
                f" {source.name} needs {size / 2**30:.1f} GiB; make room, then move it again"
            )
        with part.open("xb", buffering=0) as new:
            digest = _copy_content(old, new.fileno(), size, seen)
    finally:
        os.close(old)
    if sha256(part, lambda done: seen(size + done)) != digest:
        raise Trouble(
            f"{part.parent} gave back another content than was written; {source} stays as it was:"
            " see the disk's health with sudo dmesg and sudo smartctl -a"
        )
    return digest


def _copy_content(old: int, new: int, size: int, seen: Seen) -> str:
    """Both disks, and the hash in a thread beside them, work at the same time.

    Written pages are sent off every 64 MiB, waited for one window later and dropped: unsent ones
    could otherwise take a fifth of the RAM (vm.dirty_ratio), and written ones would push out what
    ComfyUI uses. The check afterwards then reads the disk, not the memory.
    """
    digest = hashlib.sha256()
    hashed: Future[None] | None = None
    done = sent = 0
    with ThreadPoolExecutor(1) as beside:
        for chunk in pagecache.pass_through(old, size):
            if hashed:
                hashed.result()  # its buffer is the one that is filled next
            hashed = beside.submit(digest.update, chunk)
            written = 0
            while written < len(chunk):
                written += os.pwrite(new, chunk[written:], done + written)
            done += len(chunk)
            if done - sent >= pagecache.WINDOW:
                _send(new, sent, done - sent, SYNC_WRITE)
                if sent:
                    _settle(new, sent - pagecache.WINDOW, pagecache.WINDOW)
                sent = done
            seen(done)
        if hashed:
            hashed.result()
    os.fsync(new)
    pagecache.drop(new)
    return digest.hexdigest()


def _settle(descriptor: int, offset: int, length: int) -> None:
    _send(descriptor, offset, length, SYNC_WAIT_BEFORE | SYNC_WRITE | SYNC_WAIT_AFTER)
    pagecache.drop(descriptor, offset, length)


def _send(descriptor: int, offset: int, length: int, how: int) -> None:
    # A file system that cannot do this has everything flushed by the fsync at the end.
    first, count = ctypes.c_int64(offset), ctypes.c_int64(length)
    _libc.sync_file_range(descriptor, first, count, ctypes.c_uint(how))


def sync(path: Path) -> None:
    """Have a file's content on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(complete: Path, target: Path) -> None:
    """Rename into place: over this model's link, never over what somebody put there meanwhile."""
    if target.is_symlink():
        complete.replace(target)
        return
    names = (os.fsencode(complete), AT_FDCWD, os.fsencode(target))
    if _libc.renameat2(AT_FDCWD, *names, ctypes.c_uint(RENAME_NOREPLACE)) == 0:
        return
    # exFAT and NTFS do not know the flag.
    if ctypes.get_errno() == errno.EEXIST or os.path.lexists(target):
        raise Trouble(f"{target} appeared while it was written; it was left alone")
    complete.replace(target)
