"""Writer: directories and whole files put in place, each by one atomic rename.

A file that is in the way and was not put there by strixbox is copied to the backup directory
first, so an owner finds what stood there before the first edit. What is no file, and a file in a
directory's place, is moved there.
"""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import sys
from typing import Any

from strixbox.box._atomic import beside, flush_directory, mend
from strixbox.box._backups import keep_foreign
from strixbox.box._retiring import put_by


def place_directory(wanted: dict[str, Any], backups: str) -> None:
    """Make one directory with its mode and owner; what is inside stays as it is."""
    path = wanted["path"]
    if os.path.islink(path) and not os.path.isdir(path):
        raise SystemExit(f"{path} leads to no directory; mount its disk, or remove the link")
    if os.path.lexists(path) and not os.path.isdir(path):
        clear(path, backups, "in the place of a directory")
    os.makedirs(path, mode=0o755, exist_ok=True)
    _own(path, wanted)


def place_file(wanted: dict[str, Any], backups: str) -> None:
    """Write one file beside its place, flush it, and rename it there."""
    path = wanted["path"]
    content = base64.b64decode(wanted["content"])
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.islink(path):
        # Not read: that might never end where it is a pipe or a device.
        clear(path, backups, "in the place of a file")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    keep_foreign(path, content, backups)
    aside = beside(path, content)
    _own(aside, wanted)
    os.replace(aside, path)
    flush_directory(os.path.dirname(path))


def clear(path: str, backups: str, why: str) -> None:
    """Move what is in the way into the backup directory, and say so."""
    copy = put_by(path, backups, why)
    print(f"what stood at {path} is kept as {copy}", flush=True)


def _own(path: str, wanted: dict[str, Any]) -> None:
    try:
        owner = pwd.getpwnam(wanted["owner"])
        group = wanted["group"]
        gid = owner.pw_gid if group is None else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise SystemExit(f"{path}: {error.args[0]}; create the account and run again") from None
    os.chown(path, owner.pw_uid, gid)
    os.chmod(path, int(wanted["mode"], 8))


def main(order: dict[str, Any]) -> None:
    """``{"directories": [...], "files": [...], "backups": dir}``; parents before children."""
    path = "/"
    try:
        for wanted in order["directories"]:
            path = wanted["path"]
            place_directory(wanted, order["backups"])
        for wanted in order["files"]:
            path = wanted["path"]
            place_file(wanted, order["backups"])
    except OSError as error:
        raise SystemExit(
            f"{path} was not written: {error.strerror}; {mend(error)}, then run again"
        ) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
