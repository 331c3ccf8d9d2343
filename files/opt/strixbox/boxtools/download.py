"""Downloads of model files: resumed, hashed on the way, renamed into place when they are whole.

A cut download stays as ``NAME.strixbox-part`` beside what tells its version, by the names that the
deploy uses: either goes on where the other was cut. A file that is there already is never
overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from boxtools.catalogue import SUFFIXES
from boxtools.copyfile import PART, RESERVE, TAG, held, place
from boxtools.errors import Trouble, WrongUse, system_words
from boxtools.hashes import sha256
from boxtools.safetensors import header_trouble
from boxtools.statefile import flush

CHUNK = 64 << 10  # what of it came is lost where the connection ends within one
TRIES = 5  # without a byte in between
TIMEOUT = (15, 60)  # seconds to connect, and between two packets
PAGES = {
    "text/html": "a web page",
    "application/xhtml+xml": "a web page",
    "application/json": "a message (JSON)",
}
Seen = Callable[[int, int | None], None]
"""Is told the bytes that are there, and the whole length where the server says it."""


class Cut(Exception):
    """The connection ended early; what came so far is kept."""


@dataclass(frozen=True)
class Wanted:
    """One file to download."""

    url: str
    path: Path
    sha256: str | None = None

    @property
    def part(self) -> Path:
        """Where it is until it is whole."""
        return self.path.with_name(f"{self.path.name}{PART}")

    @property
    def tag(self) -> Path:
        """ETag or date of the version that the part is of."""
        return self.path.with_name(f"{self.path.name}{TAG}")

    @property
    def told(self) -> str:
        """What is downloaded from where, for sentences."""
        return f"{self.path.name} from {shown(self.url)}"


def file_name(url: str) -> str:
    """The name that a model gets from its URL.

    Raises:
        WrongUse: where the URL is no http one or does not end in a model file's name.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise WrongUse(f"{shown(url)} is no http or https URL")
    name = unquote(parts.path).rsplit("/", 1)[-1]
    return checked_name(name, f"{shown(url)} does not end in a model file's name; give --name")


def checked_name(name: str, otherwise: str) -> str:
    """A name that stays in its directory and that ComfyUI takes for a model.

    Raises:
        WrongUse: with the given sentence, where it is not one.
    """
    # A leading dot hides it, and leads out of the directory.
    plain = re.fullmatch(r"[^/\\\0-\x1f.][^/\\\0-\x1f]{0,200}", name)
    if plain is None or Path(name).suffix.lower() not in SUFFIXES:
        raise WrongUse(otherwise)
    return name


def shown(url: str) -> str:
    """A URL without what may be secret in it: user, password and query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "what was given"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path}"


def download(wanted: Wanted, seen: Seen = lambda _done, _total: None) -> str:
    """Have the file at its path; returns its sha256.

    Raises:
        Trouble: where it cannot be had, is another file, or there is no room. What came of it is
            kept for the next try, unless it is known to be wrong.
    """
    try:
        with held(wanted.part) as part:
            try:
                digest = _fetched(wanted, part, seen)
                os.fsync(part)
            finally:
                if not wanted.part.stat().st_size:
                    _forget(wanted)
            if wanted.sha256 and digest != wanted.sha256:
                _forget(wanted)
                raise Trouble(
                    f"{wanted.told} has sha256 {digest}, not {wanted.sha256}; it was not used:"
                    " where the file was changed on purpose give its new sha256"
                )
            wrong = "" if wanted.sha256 else header_trouble(wanted.part, wanted.path.suffix)
            if wrong:
                _forget(wanted)
                raise Trouble(
                    f"{wanted.told} came whole but is no model: {wrong}; it was not used: mend the"
                    " URL"
                )
            wanted.part.chmod(0o644)
            _own_like_directory(wanted.part)
            place(wanted.part, wanted.path)
            wanted.tag.unlink(missing_ok=True)
            flush(wanted.path.parent)
            return digest
    except OSError as error:
        raise Trouble(
            f"{wanted.path} could not be written: {error.strerror}; mend that and run again, what"
            " came is kept"
        ) from None


def already_there(wanted: Wanted) -> str | None:
    """Hash of the file where it is there and the wanted one; None where nothing is there.

    Raises:
        Trouble: where another file is there, or one of which nobody can say whether it is another.
    """
    path = wanted.path
    if not os.path.lexists(path):
        return None
    try:
        found = sha256(path)
    except OSError as error:
        raise Trouble(f"{path} is in the way: {error.strerror}; move it away") from None
    if wanted.sha256 is None:
        raise Trouble(
            f"{path} is there already (sha256 {found}) and nobody says which hash it should have;"
            " it was left alone: give --sha256, or another --name"
        )
    if found != wanted.sha256:
        raise Trouble(
            f"{path} is there with another content (sha256 {found}, wanted {wanted.sha256}); it"
            " was left alone: move it away, or give another --name"
        )
    return found


class Part:
    """The file that grows, and the hash of what is in it."""

    def __init__(self, descriptor: int, known: bool) -> None:
        """``known`` tells that its version is known, so that it can be continued."""
        self.descriptor = descriptor
        self.digest = hashlib.sha256()
        self.length = 0
        if not known:
            self.clear()
        while chunk := os.pread(descriptor, CHUNK, self.length):
            self.digest.update(chunk)
            self.length += len(chunk)

    def add(self, chunk: bytes) -> None:
        """Append; the descriptor is in append mode."""
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        self.digest.update(chunk)
        self.length += len(chunk)

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self.descriptor, 0)
        self.digest = hashlib.sha256()
        self.length = 0


def _fetched(wanted: Wanted, descriptor: int, seen: Seen) -> str:
    part = Part(descriptor, bool(_text(wanted.tag)))
    try:
        return _fetch(wanted, part, seen)
    except Trouble as trouble:
        if not part.length:
            raise
        kept = f"the downloaded part ({part.length} bytes) is kept and the next run resumes it"
        raise Trouble(f"{trouble}; {kept}") from None


def _fetch(wanted: Wanted, part: Part, seen: Seen) -> str:
    with requests.Session() as http:
        tries = 0
        while True:
            before = part.length
            try:
                _transfer(wanted, part, http, seen)
            except Cut as cut:
                tries = 1 if part.length > before else tries + 1
                if tries >= TRIES:
                    raise Trouble(
                        f"{wanted.told} could not be downloaded ({cut}); see that this box"
                        " reaches it, then run the command again"
                    ) from None
                time.sleep(min(2**tries, 16) * 0.25)
            else:
                return part.digest.hexdigest()


def _transfer(wanted: Wanted, part: Part, http: requests.Session, seen: Seen) -> None:
    headers = {"User-Agent": "strixbox", "Accept-Encoding": "identity"}
    tag = _text(wanted.tag)
    if part.length and tag:
        headers |= {"Range": f"bytes={part.length}-", "If-Range": tag}
    try:
        answer = http.get(wanted.url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.RequestException, ValueError) as error:
        raise Cut(_reason(error)) from None
    with answer:
        told = answer.headers.get("Content-Range", "")
        if part.length and answer.status_code == 416 and told == f"bytes */{part.length}":
            return  # the whole had come, and was not in its place yet
        _refuse(wanted, part, answer)
        resumed = answer.status_code == 206
        length = answer.headers.get("Content-Length", "")
        coming = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
        if resumed and not _continues(told, part.length):
            raise Trouble(
                f"{wanted.told}: the server sends another range than was asked for; remove"
                f" {wanted.part} and run the command again"
            )
        if coming is None and wanted.sha256 is None:
            raise Trouble(
                f"{wanted.told}: the server does not say how long the file is, so half of it could"
                " not be told from the whole; give its sha256"
            )
        if not resumed:
            part.clear()
            # A weak ETag cannot vouch for bytes, and so not for a range (RFC 9110, 13.1.5).
            strong = answer.headers.get("ETag", "")
            strong = "" if strong.startswith("W/") else strong
            wanted.tag.write_text(strong or answer.headers.get("Last-Modified", ""), "utf-8")
        total = None if coming is None else part.length + coming
        _room(wanted.path, coming or 0)
        _receive(part, answer, total, seen)


def _refuse(wanted: Wanted, part: Part, answer: requests.Response) -> None:
    status = answer.status_code
    if status == 416:
        part.clear()
        raise Cut("the file has changed on the server")
    if status >= 500 or status in (408, 429):
        raise Cut(f"the server answers {status}")
    if status not in (200, 206):
        hint = {401: "it wants a login", 403: "it wants a login or consent", 404: "it is not there"}
        raise Trouble(
            f"{wanted.told} cannot be had: the server answers {status}"
            f" ({hint.get(status, 'not a download')}); open it in a browser and mend the URL"
        )
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in PAGES:
        raise Trouble(
            f"{wanted.told} cannot be had: the server sends {PAGES[kind]} in its place (a login"
            " page?); open it in a browser and mend the URL"
        )


def _continues(told: str, begin: int) -> bool:
    return bool(re.match(rf"bytes {begin}-[0-9]", told))


def _receive(part: Part, answer: requests.Response, total: int | None, seen: Seen) -> None:
    try:
        for chunk in answer.iter_content(CHUNK):
            part.add(chunk)
            seen(part.length, total)
    except requests.RequestException as error:
        raise Cut(f"cut after {part.length} bytes, {_reason(error)}") from None
    if total is not None and part.length < total:
        raise Cut(f"cut after {part.length} of {total} bytes")


def _room(path: Path, needed: int) -> None:
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if needed + RESERVE > free:
        raise Trouble(
            f"{path.parent} has {free / 2**30:.1f} GiB free and {needed / 2**30:.1f} GiB are"
            " needed; make room (strixbox models plan) and run again"
        )


def _own_like_directory(path: Path) -> None:
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _forget(wanted: Wanted) -> None:
    for path in (wanted.part, wanted.tag):
        path.unlink(missing_ok=True)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8").strip()
        return text if text.isprintable() and text.isascii() else ""
    return ""


def _reason(error: BaseException) -> str:
    """What happened, without the URL that requests puts into its sentences."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate is not trusted"
    words = system_words(error)
    return f"the connection failed: {words}" if words else "the connection failed"
