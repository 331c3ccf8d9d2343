"""Writer: gives a release's environment to the account that builds it, and takes it back as root's.

Building runs other people's code: setup.py of an sdist, and every .pth file in the environment when
its interpreter is started. That account may write here and nowhere else; when it is done, what it
left running is ended, and all that it made becomes root's, so that the server cannot write to it.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import sys
import time
from typing import Any

from strixbox.box._atomic import mend

ROUNDS = 100


def running(uid: int) -> list[int]:
    """Processes of ``uid`` on this machine; those of containers have a numbering of their own."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as stream:
                status = dict(line.partition(":")[::2] for line in stream)
            same = os.readlink(f"/proc/{name}/ns/pid") == os.readlink("/proc/self/ns/pid")
        except OSError:
            continue  # it has ended meanwhile
        ended = status["State"].split()[0] in ("Z", "X")
        if same and not ended and str(uid) in status["Uid"].split():
            found.append(int(name))
    return found


def end(uid: int) -> None:
    """End every process of ``uid``: one that lived on could write through what it holds open."""
    for _ in range(ROUNDS):
        left = running(uid)
        if not left:
            return
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    raise SystemExit(f"process {left[0]} of uid {uid} does not end; see dmesg, then run again")


def lend(path: str, uid: int, gid: int, mode: int) -> None:
    """Have a directory, and let ``uid`` make and replace files everywhere below it.

    Files stay whose they are: uv replaces them, and one that is linked from elsewhere too would
    change its owner there as well.
    """
    os.makedirs(path, mode=mode, exist_ok=True)
    for _, _, _, descriptor in os.fwalk(path, follow_symlinks=False):
        os.chown(descriptor, uid, gid)


def take(path: str) -> None:
    """Make all of it the caller's, for nobody else to write; the directory itself comes last.

    So an environment whose directory is root's was taken back whole.
    """
    for _, directories, names, descriptor in os.fwalk(path, topdown=False, follow_symlinks=False):
        for name in (*directories, *names):
            _take(name, descriptor)
    _take(path, None)


def _take(name: str, descriptor: int | None) -> None:
    os.chown(name, os.geteuid(), os.getegid(), dir_fd=descriptor, follow_symlinks=False)
    mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
    if not stat.S_ISLNK(mode) and mode & 0o6022:
        os.chmod(name, stat.S_IMODE(mode) & ~0o6022, dir_fd=descriptor)


def main(order: dict[str, Any]) -> None:
    """``{"builder", "environment", "cache", "build"}``; the cache is gone when building is done."""
    account = pwd.getpwnam(order["builder"])
    if account.pw_uid == 0:
        raise SystemExit(f"{order['builder']} is root; remove that account and run again")
    path = order["environment"]
    try:
        end(account.pw_uid)
        if order["build"]:
            lend(path, account.pw_uid, account.pw_gid, 0o755)
            lend(order["cache"], account.pw_uid, account.pw_gid, 0o700)
        else:
            shutil.rmtree(order["cache"], ignore_errors=True)
            take(path)
    except OSError as error:
        raise SystemExit(
            f"{path} could not be given to {order['builder'] if order['build'] else 'root'}:"
            f" {error.strerror}; {mend(error)}, then run again"
        ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
