"""Part of programs: large files that are written beside their places and renamed into them.

Whoever writes a part holds a lock on it: a deploy and a command of the box's may want the same
file. boxtools/copyfile.py does all of this in the same way.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO

CHUNK = 1 << 20
RENAME_NOREPLACE, AT_FDCWD = 1, -100  # linux/fs.h, fcntl.h

libc = ctypes.CDLL(None, use_errno=True)


def unfollowed(path: str, flags: int) -> int:
    """Opener of regular files: a link fails, and a pipe is not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


def sha256(
    path: str, seen: Callable[[int, int], None] = lambda done, total: None
) -> tuple[str, os.stat_result]:
    """Hash of a file, and what the file was meanwhile; ``seen`` is told how far it is."""
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb", opener=unfollowed) as stream:
        info = os.fstat(stream.fileno())
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            seen(done, info.st_size)
    return digest.hexdigest(), info


@contextmanager
def held(part: str) -> Iterator[FileIO]:
    """The part, begun where there is none, and locked; what is written is added to its end.

    Raises:
        SystemExit: where somebody else is writing it.
    """
    stream = _locked(part)
    try:
        yield stream
    finally:
        with suppress(OSError):
            if not os.fstat(stream.fileno()).st_size and _is(part, stream):
                os.unlink(part)
        stream.close()


def _locked(part: str) -> FileIO:
    while True:
        _make_way(part)
        stream = FileIO(part, "ab+", opener=unfollowed)
        try:
            _lock(part, stream.fileno())
            # Who had it before may have renamed it into place by now: that is no part any more.
            if _is(part, stream):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _lock(part: str, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            f"{part} is being written by a command on the box (strixbox models); wait until it is"
            " done or end it with Ctrl-C, then run again"
        ) from None
    except OSError:
        pass  # a share that has no locks: nobody holds one there


def _is(path: str, stream: FileIO) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _make_way(part: str) -> None:
    """Take away what is no part of ours: a link, a second name of a file, another account's."""
    try:
        info = os.lstat(part)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(info.st_mode):
        raise SystemExit(f"{part} is a directory and in the way; move it away and run again")
    if stat.S_ISREG(info.st_mode):
        if info.st_nlink == 1 and os.access(part, os.W_OK, effective_ids=True):
            return
        with suppress(PermissionError), open(part, "rb", opener=unfollowed) as stream:
            _lock(part, stream.fileno())
    os.unlink(part)


def place(part: str, target: str, link: str | None = None) -> None:
    """Rename into place: over a link that leads to ``link``, and over nothing else.

    Raises:
        SystemExit: where something is there that was not when the part was begun.
    """
    if link is not None and os.path.islink(target) and os.readlink(target) == link:
        os.replace(part, target)
        return
    names = (os.fsencode(part), AT_FDCWD, os.fsencode(target))
    if libc.renameat2(AT_FDCWD, *names, ctypes.c_uint(RENAME_NOREPLACE)) == 0:
        return
    # NFS, exFAT and others do not know the flag.
    if ctypes.get_errno() == errno.EEXIST or os.path.lexists(target):
        raise SystemExit(
            f"{target} appeared while {part} was written; it was left alone: move it away if it is"
            " not wanted, then run again"
        )
    os.replace(part, target)
