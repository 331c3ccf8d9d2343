"""Part of programs: a file is written whole beside its place, and gets there by one rename."""

from __future__ import annotations

import errno
import os

ASIDE = ".strixbox-new"  # leftovers.py clears what bears it
MENDS = {
    errno.ENOSPC: "free disk room",
    errno.EDQUOT: "free disk room or raise the quota",
    errno.EROFS: "remount the file system writable (dmesg says why it is not)",
    errno.EPERM: "take off what keeps it as it is (lsattr)",
    errno.EACCES: "see who owns the directory",
    errno.ENOENT: "see that its directory is there (ls -ld)",
    errno.EIO: "see dmesg: the disk fails",
}


def mend(error: OSError) -> str:
    """What to do about a file that could not be written."""
    return MENDS.get(error.errno or 0, "see dmesg and what stands there (ls -ld)")


def beside(
    path: str, content: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> str:
    """Write what is to stand at ``path`` beside it, onto the disk, for one rename; where."""
    aside = path + ASIDE
    if os.path.lexists(aside):
        os.unlink(aside)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            stream.flush()
            os.fsync(descriptor)
    except OSError:
        os.unlink(aside)  # on a full disk it takes room from others
        raise
    return aside


def put(path: str, content: bytes, mode: int) -> None:
    """Have a file with this content and mode, whole at every instant, and its name on the disk."""
    os.replace(beside(path, content, mode), path)
    flush_directory(os.path.dirname(path))


def flush_directory(path: str) -> None:
    """Have a directory's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
