"""Part of programs: a move that may lead to another disk."""

from __future__ import annotations

import errno
import os
import shutil

from strixbox.box._atomic import ASIDE, flush_directory


def move(path: str, target: str) -> None:
    """Move a file or a tree; at every instant one of the two is whole, and none is half.

    The exception is a directory that cannot be renamed at all, on overlayfs without redirect_dir
    or because it is a mount point: once its copy is in place, its files are deleted one by one.
    """
    aside, going = target + ASIDE, path + ASIDE
    discard(aside)
    discard(going)
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.copytree(path, aside, symlinks=True)
        else:
            shutil.copy2(path, aside, follow_symlinks=False)
        _own_like(path, aside)
        os.sync()
        os.rename(aside, target)
        # Not before the new name is on the disk: a power cut would leave both as asides.
        flush_directory(os.path.dirname(target))
        try:
            os.rename(path, going)
        except OSError:
            discard(path)
        discard(going)


def _own_like(path: str, copy: str) -> None:
    """Give a copy the owners of what it was made of, which shutil leaves out."""
    for folder, directories, names in os.walk(path):
        for name in (*directories, *names):
            place = os.path.join(folder, name)
            _copy_owner(place, os.path.join(copy, os.path.relpath(place, path)))
    _copy_owner(path, copy)


def _copy_owner(path: str, copy: str) -> None:
    info = os.lstat(path)
    os.chown(copy, info.st_uid, info.st_gid, follow_symlinks=False)


def discard(path: str) -> None:
    """Remove a tree, a file or a link, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
