"""Reader: what stands at each path, without following a link at its end.

Of a link to a directory the directory is told as well: /opt/strixbox may be one to a larger disk.
Files of a user's are looked at as that user: on a share that trusts no root, root sees nothing.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import sys
from functools import cache
from typing import Any

from strixbox.box._account import acting_as


def state(path: str, content: bool = True) -> dict[str, Any]:
    """Kind, mode, owner and group of ``path``, with sha256 of a file or target of a link.

    Without ``content`` a file is not read: one of many megabytes takes its time.

    ``primary`` tells of a directory whether its group is the primary one of its owner.
    """
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "absent"}
    except OSError as error:
        raise SystemExit(
            f"{path} cannot be looked at: {error.strerror}; see who owns {os.path.dirname(path)}"
        ) from None
    answer: dict[str, Any] = {
        "mode": format(stat.S_IMODE(info.st_mode), "o"),
        "owner": _user(info.st_uid),
        "group": _group(info.st_gid),
    }
    if stat.S_ISLNK(info.st_mode):
        answer |= {"kind": "link", "target": os.readlink(path)}
        return answer | (
            {"directory": state(os.path.realpath(path))} if os.path.isdir(path) else {}
        )
    if stat.S_ISDIR(info.st_mode):
        return answer | {"kind": "directory", "primary": _primary(info.st_uid) == info.st_gid}
    if not stat.S_ISREG(info.st_mode):
        return answer | {"kind": "other"}
    answer["kind"] = "file"
    if content:
        with open(path, "rb") as stream:
            answer["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    return answer


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@cache
def _primary(uid: int) -> int | None:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def main(query: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``{"paths": [...], "content": bool, "user"}`` -> state by path; user None: root's own files.

    Of an account that is not there, nothing is.
    """
    try:
        with acting_as(query.get("user")):
            return {path: state(path, query.get("content", True)) for path in query["paths"]}
    except KeyError:
        return {path: {"kind": "absent"} for path in query["paths"]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
