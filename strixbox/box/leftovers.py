"""Finds what dead runs left on the box, and clears those of it that it is told to.

A run that was killed, cut off or without power leaves files beside their places, half-built
directories and temporary ones. Each is known by a name that only strixbox gives, or by standing in
a directory that only strixbox fills, and by its owner; a link is taken away and never followed.
What belongs to the user is looked at and cleared as the user. What a living process has open is
told as busy, and stays.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._atomic import ASIDE, mend
from strixbox.box._living import is_busy, used
from strixbox.box._model_files import PART, TAG

# pyinfra 3.10 gives sudo its password by such a file (connectors/util.py, ASKPASS_COMMAND); the
# password itself is not in it, and a run that ends well removes it.
ASKPASS = "pyinfra-sudo-askpass-????????????"
ASKPASS_TEXT = b"#!/bin/sh\nprintf '%s\\n' \"$PYINFRA_SUDO_PASSWORD\"\n"


def uid_of(name: str) -> int | None:
    """Number of an account; None where there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def below(trees: list[str]) -> Iterator[str]:
    """Asides anywhere below directories, no link followed."""
    for tree in trees:
        for folder, directories, names in os.walk(tree):
            for name in (*directories, *names):
                if name.endswith(ASIDE):
                    yield os.path.join(folder, name)


def matching(patterns: list[str]) -> Iterator[str]:
    """Paths that match; a pattern without a wildcard is a path."""
    for pattern in patterns:
        yield from sorted(glob.glob(pattern))


def unsealed(releases: str) -> Iterator[str]:
    """Releases that were not proved, or were and have to be again."""
    for path in matching([releases]):
        if plain(path) and not os.path.lexists(f"{path}/release.json"):
            yield path


def without_order(generations: str) -> Iterator[str]:
    """Generations whose last file, which makes them whole, is not there."""
    for path in matching([generations]):
        if plain(path) and not os.path.lexists(f"{path}/generation.json"):
            yield path


def answered(generations: str) -> set[str]:
    """Names of the releases that were in use once: they lost their seal, and are not half-built."""
    found = set()
    for path in matching([f"{generations}/generation.json"]):
        try:
            with open(path, encoding="utf-8") as stream:
                release = os.path.basename(json.load(stream)["release"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if os.path.exists(os.path.join(os.path.dirname(path), "answered")):
            found.add(release)
    return found


def plain(path: str) -> bool:
    """Whether ``path`` is a directory and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def is_file(path: str) -> bool:
    """Whether ``path`` is a regular file and no link to one."""
    return os.path.isfile(path) and not os.path.islink(path)


def parts(folder: str) -> Iterator[tuple[str, str]]:
    """Downloads and moves to ``folder`` that were cut, and what tells a download's version.

    A part whose version nobody knows is a move's, and like one: nobody goes on with it.
    """
    for part in matching([f"{glob.escape(folder)}/*{PART}"]):
        if is_file(part):
            tag = part.removesuffix(PART) + TAG
            yield "download" if os.path.lexists(tag) else "copy", part
    yield from (("download", tag) for tag in matching([f"{glob.escape(folder)}/*{TAG}"]))


def askpass() -> Iterator[str]:
    """pyinfra's helpers for sudo, told by their very text."""
    for path in matching([f"{glob.escape(tempfile.gettempdir())}/{ASKPASS}"]):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                if stream.read(len(ASKPASS_TEXT) + 1) == ASKPASS_TEXT:
                    yield path
        except OSError:
            continue


def of_strixbox(query: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and path of what may be a leftover in directories that are not the user's."""
    yield from (("aside", path) for path in below(query["trees"]))
    yield from (("aside", path) for path in matching(query["asides"]))
    for path in query["edited"]:
        yield from (("aside", aside) for aside in matching([aside_of(path)]))
    temporary = glob.escape(tempfile.gettempdir())
    patterns = [f"{temporary}/{prefix}*" for prefix in query["prefixes"]]
    yield from (("temporary", path) for path in matching(patterns))
    yield from (("release", path) for path in unsealed(query["releases"]))
    yield from (("generation", path) for path in without_order(query["generations"]))
    yield from parts(query["wheels"])
    yield from (("begun", path) for path in query["begun"] if os.path.lexists(path))


def of_the_user(query: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and path of what may be a leftover among the user's own files."""
    for path in query["user_edited"]:
        yield from (("aside", aside) for aside in matching([aside_of(path)]))
    yield from (("askpass", path) for path in askpass())
    for tier in query["tiers"]:
        for folder in query["folders"]:
            place = f"{tier}/{folder}"
            for path in matching([f"{glob.escape(place)}/*{ASIDE}"]):
                if os.path.islink(path):
                    yield "aside", path
            yield from parts(place)


def aside_of(path: str) -> str:
    """Pattern of the aside of a file that is edited in place; a link's is beside its target."""
    return glob.escape(os.path.realpath(path) + ASIDE)


def size(path: str) -> int:
    """Bytes that a file or a tree takes on its disk; linked files count once."""
    info = os.lstat(path)
    seen = {(info.st_dev, info.st_ino): info.st_blocks * 512}
    if stat.S_ISDIR(info.st_mode):
        for _, directories, names, descriptor in os.fwalk(path, follow_symlinks=False):
            for name in (*directories, *names):
                part = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                seen[part.st_dev, part.st_ino] = part.st_blocks * 512
    return sum(seen.values())


def described(kind: str, path: str, owners: set[int]) -> dict[str, Any] | None:
    """What is to be known of one leftover; None where it is another account's, or unreadable."""
    try:
        info = os.lstat(path)
        if info.st_uid not in owners:
            return None
        taken = size(path)
    except OSError:
        return None
    whole = path.removesuffix(TAG).removesuffix(PART)
    return {
        "kind": kind,
        "path": path,
        "bytes": taken,
        "device": info.st_dev,
        "age": int(time.time() - info.st_mtime),
        "whole": kind == "download" and os.path.exists(whole),
    }


def find(query: dict[str, Any]) -> list[dict[str, Any]]:
    """Every candidate once; which of them is wanted still is decided elsewhere.

    Of a release it is told whether it is ``used``: now, or once and so no half-built one.
    """
    builder = uid_of(query["builder"])
    own = {os.geteuid()} | (set() if builder is None else {builder})
    found = [(False, described(kind, path, own)) for kind, path in of_strixbox(query)]
    user = uid_of(query["user"])
    if user is not None:
        with acting_as(query["user"]):
            found += [
                (True, described(kind, path, {user}))
                for kind, path in of_the_user(query)
                if os.access(os.path.dirname(path), os.W_OK, effective_ids=True)
            ]
    result = list({e["path"]: e | {"user": mine} for mine, e in found if e}.values())
    if not result:
        return []
    opened, lived = used(), answered(query["generations"])
    current = os.path.realpath(query["current"])
    for entry in result:
        path = entry["path"]
        entry["busy"] = is_busy(path, opened)
        entry["used"] = os.path.basename(path) in lived or os.path.realpath(path) == current
    together(result)
    return result


def together(found: list[dict[str, Any]]) -> None:
    """Judge a download and its tag as one: the tag is written once, the part again and again."""
    parts = {entry["path"]: entry for entry in found if entry["kind"] == "download"}
    for path, tag in parts.items():
        part = parts.get(path.removesuffix(TAG) + PART)
        if part and part is not tag:
            part["age"] = tag["age"] = min(part["age"], tag["age"])
            part["busy"] = tag["busy"] = part["busy"] or tag["busy"]


def clear(entry: dict[str, Any], user: str) -> None:
    """Take one leftover away, as the account whose it is."""
    if entry["user"]:
        with acting_as(user):
            remove(entry["path"])
    else:
        remove(entry["path"])


def remove(path: str) -> None:
    """Take a file, a link or a tree away; rmtree follows no link, not even one made meanwhile."""
    if plain(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def main(order: dict[str, Any]) -> None:
    """``{"query", "paths"}``: what of the query's leftovers goes; all else stays."""
    for entry in find(order["query"]):
        path = entry["path"]
        if path not in order["paths"]:
            continue
        if entry["busy"]:
            print(f"{path} is in use by now; it stays", flush=True)
            continue
        try:
            clear(entry, order["query"]["user"])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SystemExit(
                f"{path}, which a dead run left, could not be removed: {error.strerror};"
                f" {mend(error)}, then run again"
            ) from None


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(find(json.loads(sys.argv[1]))))
    else:
        main(json.load(sys.stdin))
