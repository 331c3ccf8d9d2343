"""Copies of large files: by sharing blocks where the disk can, else at the disks' speed.

What is copied is hashed on the way and read back from the disk; neither pushes anything out of the
page cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def held(part: Path) -> Iterator[int]:
    """A descriptor of a part, begun where there is none, that adds to its end; it is locked.

    Raises:
        Trouble: where somebody else is writing it.
    """
    descriptor = _locked(part)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(part: Path) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):
            info = part.lstat()
            if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
                part.unlink()  # a link, or a second name of a file: never written into
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Trouble(
                f"{part} is being written already, by another command or a deploy; wait for it,"
                " then run this again"
            ) from None
        except OSError:
            pass  # a share that has no locks: nobody holds one there
        # Who had it before may have renamed it into place by now: that is no part any more.
        if _names(part, descriptor):
            return descriptor
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    """Whether a path still names the file that a descriptor is of."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def discard(part: Path) -> None:
    """Take away what a move that was cut left; what somebody is writing stays."""
    if os.path.lexists(part):
        with contextlib.suppress(OSError, Trouble), held(part):
            part.unlink()


def second_name(source: Path, staged: Path) -> bool:
    """Give a file a second name; on one file system nothing needs to be copied."""
    try:
        staged.hardlink_to(source)
    except OSError:  # another disk, another mount, or a file system without hard links
        return False
    return True


def clone(source: Path, new: int) -> bool:
    """Share the source's blocks where the file system can (Btrfs, XFS: ioctl_ficlone(2))."""
    with source.open("rb") as old:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
        except OSError:
            return False
    return True


def copy(source: Path, part: Path, new: int, seen: Seen) -> str:
    """Copy, hash what is read, and compare with what the disk gives back.

    ``new`` is the empty part's descriptor.

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
        digest = _copy_content(old, new, size, seen)
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
                written += os.write(new, chunk[written:])
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
