"""Reader: files whose sha256 is known, without reading gigabytes at every run.

A hash that was computed once is trusted while size, time and inode of the file are the same.
Files of a user's are looked at as that user: on a share that trusts no root, root sees nothing.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._disk import disk
from strixbox.box._model_files import PART, identity, recorded

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def state(path: str, records: dict[str, Any]) -> dict[str, Any]:
    """``kind``, ``size``, ``inode``, ``sha256`` where verified; of a link the ``target``.

    Of the kind "other" ``what`` has the words.
    ``part`` has the bytes of a download or move of it that was cut. Where a link leads to a path
    that has a record, ``former`` is the state there, with the ``recorded`` sha256.
    """
    found = look(path, records)
    if found["kind"] == "link":
        record = records.get(found["target"])
        if isinstance(record, dict):
            there = look(found["target"], records)
            found["former"] = there | {"recorded": record.get("sha256")}
    if found["kind"] != "file":
        with suppress(OSError):
            found["part"] = os.lstat(f"{path}{PART}").st_size
    return found


def look(path: str, records: dict[str, Any]) -> dict[str, Any]:
    """What is at a path itself."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "absent", "sha256": None}
    except OSError as error:
        raise SystemExit(
            f"{path} cannot be looked at: {error.strerror}; see who owns {os.path.dirname(path)}"
        ) from None
    if stat.S_ISLNK(info.st_mode):
        return {"kind": "link", "sha256": None, "target": os.readlink(path)}
    if not stat.S_ISREG(info.st_mode):
        return {"kind": "other", "sha256": None, "what": KINDS[stat.S_IFMT(info.st_mode)]}
    record = records.get(path)
    if not isinstance(record, dict) or record.get("identity") != identity(info):
        record = {}
    return {
        "kind": "file",
        "size": info.st_size,
        "inode": [info.st_dev, info.st_ino],
        "sha256": record.get("sha256"),
    }


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"paths", "records", "user"}``; user None: root's own files.

    Also the hashes that were recorded at first use, by URL, and the ``rooms`` of the directories.
    """
    known = recorded(query["records"])
    with acting_as(query["user"]):
        files = {path: state(path, known["files"]) for path in query["paths"]}
        former = [found["target"] for found in files.values() if "former" in found]
        folders = {*map(os.path.dirname, [*files, *former])}
        rooms = {folder: disk(folder) for folder in folders}
    return {"files": files, "urls": known["urls"], "rooms": rooms}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
