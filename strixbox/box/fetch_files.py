"""Writer: downloads files, resuming what was cut, checked by sha256, renamed into place.

A file that is there already is hashed and recorded, not downloaded. One with another hash is
somebody's: it is never overwritten. A file without a known hash is recorded at first use.

What lies in somebody's directory is read and written as that account: whatever runs under it, a
custom node for one, may plant a link there, and root would follow it anywhere. Only the records are
root's.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import stat
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._model_files import PART, TAG, identity, recorded

CHUNK = 1 << 20
TRIES = 4
RESERVE = 256 << 20  # bytes that a download leaves free on its disk


class Records:
    """Verified hashes by path and hashes of first use by URL, written after every file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = recorded(path)

    def note(self, item: dict[str, Any], digest: str, info: os.stat_result) -> None:
        """Remember that ``item`` was read while it was ``info``, and had this hash."""
        self.data["files"][item["path"]] = {"identity": identity(info), "sha256": digest}
        if item["url"]:
            self.data["urls"].setdefault(item["url"], digest)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        aside = f"{self.path}.strixbox-new"
        with open(aside, "w", encoding="utf-8") as stream:
            json.dump(self.data, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, self.path)


class Cut(Exception):
    """The connection ended early; what came so far is kept."""


class Progress:
    """Lines with share, rate and time left, every few seconds."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total = name, total
        self.begin = self.told = time.monotonic()
        self.first: int | None = None

    def tell(self, done: int) -> None:
        """Print where ``done`` bytes stand, if the last word is old enough."""
        self.first = done if self.first is None else self.first
        now = time.monotonic()
        if now - self.told < 3:
            return
        self.told = now
        rate = (done - self.first) / (now - self.begin)
        line = f"{self.name}: {done / 2**20:.0f} MiB"
        if self.total:
            left = (self.total - done) / rate if rate > 0 else 0
            line += f" of {self.total / 2**20:.0f} ({done / self.total:.0%}), {left:.0f} s left"
        print(f"{line}, {rate / 2**20:.1f} MiB/s", flush=True)


def unfollowed(path: str, flags: int) -> int:
    """Opener of regular files: a link fails, and a pipe is not waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


def sha256(path: str) -> tuple[str, os.stat_result]:
    """Hash of a file, with progress for a large one, and what the file was meanwhile."""
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb", opener=unfollowed) as stream:
        info = os.fstat(stream.fileno())
        progress = Progress(f"checking {os.path.basename(path)}", info.st_size)
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress.tell(done)
    return digest.hexdigest(), info


def resumable(part: str) -> int:
    """Bytes of a part that can be continued; what else stands in its place is taken away."""
    try:
        info = os.lstat(part)
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(info.st_mode) and os.access(part, os.W_OK, effective_ids=True):
        return info.st_size
    # A link, or a part that was begun by another account: its name is ours, its content is lost.
    _forget(part)
    return 0


def download(item: dict[str, Any], part: str) -> None:
    """Bring ``part`` to its full length, from where it stands if the server can."""
    for attempt in range(1, TRIES + 1):
        try:
            _transfer(item, part)
            return
        except Cut as cut:
            print(f"{os.path.basename(item['path'])}: {cut}; attempt {attempt}", flush=True)
            reason = str(cut)
            time.sleep(min(2**attempt, 10) * 0.25)
    raise SystemExit(
        f"{item['url']} could not be downloaded ({reason}); what came is kept and continued by the"
        " next run: see that the box reaches it, then run again"
    )


def _transfer(item: dict[str, Any], part: str) -> None:
    have = resumable(part)
    headers = {"User-Agent": "strixbox", "Accept-Encoding": "identity"}
    tag = _text(item["path"] + TAG)
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    request = urllib.request.Request(item["url"], headers=headers)  # noqa: S310 - by schema
    try:
        answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - by schema
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file: begin anew
            _forget(part)
            raise Cut("the file has changed on the server") from None
        if error.code >= 500 or error.code == 429:
            raise Cut(f"the server answers {error.code}") from None
        raise SystemExit(
            f"{item['url']} cannot be had: the server answers {error.code} {error.reason};"
            " mend the URL in the settings, then run again"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Cut(str(getattr(error, "reason", error))) from None
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise SystemExit(
                f"{item['url']} answers with a web page, not with the file (a login page?);"
                " open it in a browser, mend the URL, then run again"
            )
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        # What came before is continued, or makes room for what comes now.
        _room(item["path"], (total or 0) - have)
        _write(item["path"] + TAG, answer.headers.get("ETag", ""))
        _receive(item, part, answer, resumed, total)


def _receive(
    item: dict[str, Any], part: str, answer: Any, resumed: bool, total: int | None
) -> None:
    progress = Progress(os.path.basename(item["path"]), total)
    with open(part, "ab" if resumed else "wb", opener=unfollowed) as stream:
        done = stream.tell()
        try:
            while chunk := answer.read(CHUNK):
                stream.write(chunk)
                done += len(chunk)
                progress.tell(done)
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Cut(f"cut after {done} bytes ({error})") from None
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and done < total:
        raise Cut(f"cut after {done} of {total} bytes")


def _room(path: str, needed: int) -> None:
    disk = os.statvfs(os.path.dirname(path))
    free = disk.f_bavail * disk.f_frsize
    if needed + RESERVE > free and needed > free - min(RESERVE, free // 20):
        raise SystemExit(
            f"{os.path.dirname(path)} has {free / 2**30:.1f} GiB free and"
            f" {needed / 2**30:.1f} GiB are needed; free disk room and run again"
        )


def _forget(part: str) -> None:
    for path in (part, part + ".etag"):
        if os.path.lexists(path):
            os.unlink(path)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", opener=unfollowed) as stream:
            return stream.read(1024).strip()
    except (OSError, ValueError):
        return ""


def _write(path: str, text: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "x", encoding="utf-8", opener=unfollowed) as stream:
        stream.write(text)


def have(item: dict[str, Any], wanted: str | None) -> tuple[str, os.stat_result]:
    """Have one file at its place; its hash, and what it was when it was hashed."""
    path = item["path"]
    if os.path.lexists(path) and not leads_nowhere(path, item.get("link")):
        found, info = sha256(path)
        if wanted and found != wanted:
            raise SystemExit(
                f"{path} is there with another content (sha256 {found}, wanted {wanted}); it was"
                " left alone: move it away, or mend its sha256 in the settings, then run again"
            )
        return found, info
    if not item["url"]:
        raise SystemExit(f"{path} is not there and has no url; put it there or give it a url")
    part = f"{path}{PART}"
    print(f"downloading {item['url']}", flush=True)
    download(item, part)
    found, _ = sha256(part)
    if wanted and found != wanted:
        _forget(part)
        raise SystemExit(
            f"{item['url']} has sha256 {found}, not {wanted}; it was not used. If the file was"
            " changed on purpose mend its sha256 in the settings, else do not go on"
        )
    if not wanted:
        print(f"{os.path.basename(path)}: first use, sha256 {found} is recorded", flush=True)
    # exFAT and NTFS have one owner and one mode for all, and say so to everybody but root.
    with suppress(PermissionError):
        os.chmod(part, 0o644)
    os.replace(part, path)
    _forget(part)
    return found, os.lstat(path)


def leads_nowhere(path: str, target: str | None) -> bool:
    """Whether there is the link to ``target`` that the file replaces, and nothing at its end."""
    if target is None or os.path.lexists(target):
        return False
    return os.path.islink(path) and os.readlink(path) == target


def trouble(error: OSError, item: dict[str, Any]) -> str:
    """What the system refused, and the mend."""
    path, owner = item["path"], item["owner"]
    if owner and error.errno in (errno.EACCES, errno.EPERM):
        where = os.path.dirname(path)
        return (
            f"{path} could not be read or written by {owner}: {error.strerror}; ComfyUI runs as"
            f" {owner} and could not either. Give it to that account (sudo chown {owner}: {where},"
            " and the file where there is one), then run again"
        )
    if error.errno == errno.ELOOP:
        return (
            f"{path} is a link where a file is wanted; it was left alone: move it away, run again"
        )
    return (
        f"{path} could not be written: {error.strerror}; free disk room or mend that, then run"
        " again"
    )


def main(order: dict[str, Any]) -> None:
    """``{"items": [{"url", "path", "sha256", "owner"}], "records"}``; owner None: root's own.

    ``link`` of an item: where a link leads that may stand in its place, and is replaced.
    """
    records = Records(order["records"])
    for item in order["items"]:
        wanted = item["sha256"] or records.data["urls"].get(item["url"])
        try:
            with acting_as(item["owner"]):
                found, info = have(item, wanted)
            records.note(item, found, info)
        except OSError as error:
            raise SystemExit(trouble(error, item)) from None


if __name__ == "__main__":
    main(json.load(sys.stdin))
