"""Part of programs: reading a file at a place where its owner may have put anything."""

from __future__ import annotations

import errno
import os
import stat


def regular(path: str, limit: int = -1) -> tuple[bytes, os.stat_result]:
    """Content of a regular file, up to so many bytes, and what is known of it.

    Raises:
        OSError: where there is none; a pipe or a device might be waited for without end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(limit), info
    finally:
        os.close(descriptor)
