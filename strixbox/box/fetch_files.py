"""Writer: downloads files, resuming what was cut, checked by sha256, renamed into place.

A file that is there already is hashed and recorded, not downloaded. One with another hash is
somebody's: it is never overwritten. A file without a known hash is recorded at first use.

What lies in somebody's directory is read and written as that account: whatever runs under it, a
custom node for one, may plant a link there, and root would follow it anywhere. Only the records are
root's.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from io import FileIO
from typing import Any, NoReturn

from strixbox.box._account import acting_as
from strixbox.box._atomic import mend, put
from strixbox.box._headers import header_trouble
from strixbox.box._model_files import PART, TAG, identity, recorded
from strixbox.box._placing import CHUNK, held, place, sha256, unfollowed

TRIES = 5  # without a byte in between
RESERVE = 256 << 20  # bytes that a download leaves free on its disk
PAGES = {
    "text/html": "a web page",
    "application/xhtml+xml": "a web page",
    "application/json": "a message (JSON)",
}


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
        put(self.path, json.dumps(self.data, indent=1).encode(), 0o644)


class Cut(Exception):
    """The connection ended early; what came so far is kept."""


class Progress:
    """Lines with share, rate and time left, every few seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begin = self.told = time.monotonic()
        self.first: int | None = None

    def tell(self, done: int, total: int | None) -> None:
        """Print where ``done`` bytes of so many stand, if the last word is old enough."""
        self.first = done if self.first is None else self.first
        now = time.monotonic()
        if now - self.told < 3:
            return
        self.told = now
        rate = (done - self.first) / (now - self.begin)
        line = f"{self.name}: {done / 2**20:.0f} MiB"
        if total:
            left = (total - done) / rate if rate > 0 else 0
            line += f" of {total / 2**20:.0f} ({done / total:.0%}), {left:.0f} s left"
        print(f"{line}, {rate / 2**20:.1f} MiB/s", flush=True)


class Part:
    """What has come of one file, and which version of it."""

    def __init__(self, stream: FileIO, path: str) -> None:
        """``stream`` writes to its end; ``path`` is where the file shall be."""
        self.stream, self.path, self.tag = stream, path, path + TAG
        self.name = os.path.basename(path)

    def length(self) -> int:
        """Bytes that are there."""
        return os.fstat(self.stream.fileno()).st_size

    def version(self) -> str:
        """ETag or date of the version that it is of; empty where nobody knows."""
        try:
            with open(self.tag, encoding="utf-8", opener=unfollowed) as stream:
                text = stream.read(1024).strip()
        except (OSError, ValueError):
            return ""
        return text if text.isascii() and text.isprintable() else ""

    def begin(self, version: str) -> None:
        """Begin anew, with another version: first without the old bytes, then with its name."""
        self.clear()
        with open(self.tag, "x", encoding="utf-8", opener=unfollowed) as stream:
            stream.write(version)

    def add(self, chunk: bytes) -> None:
        """Append."""
        rest = memoryview(chunk)
        while rest:
            rest = rest[self.stream.write(rest) :]

    def clear(self) -> None:
        """Throw away what came."""
        self.stream.truncate(0)
        if os.path.lexists(self.tag):
            os.unlink(self.tag)


def download(item: dict[str, Any], part: Part, wanted: str | None) -> None:
    """Bring the part to its full length, from where it stands if the server can."""
    tries = 0
    while True:
        before = part.length()
        try:
            _transfer(item["url"], part, wanted)
        except Cut as cut:
            tries = 1 if part.length() > before else tries + 1
            print(f"{part.name}: {cut}; try {tries} of {TRIES}", flush=True)
            if tries >= TRIES:
                raise SystemExit(
                    f"{item['url']} could not be downloaded ({cut}); the downloaded part is kept"
                    " and the next run resumes it: see that the box reaches it, then run again"
                ) from None
            time.sleep(min(2**tries, 16) * 0.25)
        else:
            os.fsync(part.stream.fileno())
            return


def _transfer(url: str, part: Part, wanted: str | None) -> None:
    headers = {"User-Agent": "strixbox", "Accept-Encoding": "identity"}
    version = part.version()
    if not version:
        part.clear()
    have = part.length()
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - by schema
    try:
        answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310 - by schema
    except urllib.error.HTTPError as error:
        # Nothing is missing where the whole had come, and was not in its place yet.
        if have and error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return
        _refuse(url, part, error)
    except (OSError, http.client.HTTPException) as error:
        raise Cut(str(getattr(error, "reason", error))) from None
    else:
        with answer:
            _accept(url, part, wanted, answer)


def _refuse(url: str, part: Part, error: urllib.error.HTTPError) -> NoReturn:
    """Tell what may pass from what stays."""
    if error.code == 416:
        part.clear()
        raise Cut("the file has changed on the server")
    if error.code >= 500 or error.code in (408, 429):
        raise Cut(f"the server answers {error.code}")
    raise SystemExit(
        f"{url} cannot be had: the server answers {error.code} {error.reason}; mend the URL in the"
        " settings, then run again"
    )


def _accept(url: str, part: Part, wanted: str | None, answer: Any) -> None:
    """Take what an answer brings, if it is the file or the rest of it."""
    resumed = answer.status == 206
    if answer.status not in (200, 206):
        raise SystemExit(
            f"{url} cannot be had: the server answers {answer.status}, which is no file; mend the"
            " URL in the settings, then run again"
        )
    kind = answer.headers.get_content_type()
    if kind in PAGES:
        raise SystemExit(
            f"{url} answers with {PAGES[kind]}, not with the file (a login page?); open it in a"
            " browser, mend the URL, then run again"
        )
    told = answer.headers.get("Content-Range", "")
    if resumed and not re.match(rf"bytes {part.length()}-[0-9]", told):
        raise SystemExit(
            f"{url}: the server sends another range than was asked for; remove {part.path}{PART}"
            " and run again"
        )
    length = answer.headers.get("Content-Length", "")
    coming = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
    if coming is None and wanted is None:
        raise SystemExit(
            f"{url}: the server does not say how long the file is, and the settings have no sha256"
            " of it, so half of it could not be told from the whole; give its sha256 in the"
            " settings, then run again"
        )
    if not resumed:
        # A weak ETag cannot vouch for bytes, and so not for a range (RFC 9110, 13.1.5).
        strong = answer.headers.get("ETag", "")
        strong = "" if strong.startswith("W/") else strong
        part.begin(strong or answer.headers.get("Last-Modified", ""))
    _room(part.path, coming or 0)
    _receive(part, answer, None if coming is None else part.length() + coming)


def _receive(part: Part, answer: Any, total: int | None) -> None:
    done = part.length()
    progress = Progress(part.name)
    while True:
        try:
            chunk = answer.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise Cut(f"cut after {done} bytes ({error})") from None
        if not chunk:
            break
        part.add(chunk)
        done += len(chunk)
        progress.tell(done, total)
    if total is not None and done < total:
        raise Cut(f"cut after {done} of {total} bytes")


def _room(path: str, needed: int) -> None:
    disk = os.statvfs(os.path.dirname(path))
    free = disk.f_bavail * disk.f_frsize
    if needed > free - min(RESERVE, free // 20):
        raise SystemExit(
            f"{os.path.dirname(path)} has {free >> 20} MiB free and {-(-needed >> 20)} MiB are"
            " needed; free disk room there (df -h), then run again"
        )


def have(item: dict[str, Any], wanted: str | None) -> tuple[str, os.stat_result]:
    """Have one file at its place; its hash, and what it was when it was hashed."""
    path = item["path"]
    if os.path.lexists(path) and not leads_nowhere(path, item.get("link")):
        found, info = hashed(path)
        if wanted and found != wanted:
            raise SystemExit(
                f"{path} is there with another content (sha256 {found}, wanted {wanted}); it was"
                " left alone: move it away, or mend its sha256 in the settings, then run again"
            )
        return found, info
    if not item["url"]:
        raise SystemExit(f"{path} is not there and has no url; put it there or give it a url")
    print(f"downloading {item['url']}", flush=True)
    with held(f"{path}{PART}") as stream:
        part = Part(stream, path)
        try:
            download(item, part, wanted)
            found = checked(item, part, wanted)
            # exFAT and NTFS have one owner and one mode for all, and say so to everybody but root.
            with suppress(PermissionError):
                os.fchmod(stream.fileno(), 0o644)
            place(f"{path}{PART}", path, item.get("link"))
            os.unlink(part.tag)
        finally:
            if not part.length():
                part.clear()
        return found, os.fstat(stream.fileno())


def checked(item: dict[str, Any], part: Part, wanted: str | None) -> str:
    """Hash of a download that is what it should be; any other is thrown away."""
    path = f"{part.path}{PART}"
    found, _ = hashed(path)
    wrong = "" if wanted else header_trouble(path, part.name)
    if wrong:
        part.clear()
        raise SystemExit(
            f"{item['url']} came whole, but {wrong}; it was not used: open it in a browser, mend"
            " the URL, then run again"
        )
    if wanted and found != wanted:
        part.clear()
        raise SystemExit(
            f"{item['url']} has sha256 {found}, not {wanted}; it was not used. If the file was"
            " changed on purpose mend its sha256 in the settings, else do not go on"
        )
    if not wanted:
        print(f"{part.name}: first use, sha256 {found} is recorded", flush=True)
    return found


def hashed(path: str) -> tuple[str, os.stat_result]:
    """Hash of a file, with progress for a large one, and what the file was meanwhile."""
    return sha256(path, Progress(f"checking {os.path.basename(path)}").tell)


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
    return f"{path} could not be written: {error.strerror}; {mend(error)}, then run again"


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
