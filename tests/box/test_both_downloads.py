"""The deploy and the box's own command download in the same way: one table, both programs."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from boxtools import download as tool
from boxtools.errors import Trouble

from strixbox.box import fetch_files
from tests.file_server import CONTENT, SHA256, Files, serving

Download = Callable[[Files, Path, str | None], str]
LENGTH = len(CONTENT)


def by_the_deploy(server: Files, path: Path, sha256: str | None) -> str:
    """Have the file; what stopped it."""
    item = {"url": server.url, "path": str(path), "sha256": sha256, "owner": None}
    try:
        fetch_files.main({"items": [item], "records": str(path.parent.parent / "files.json")})
    except SystemExit as stopped:
        return str(stopped)
    return ""


def by_the_command(server: Files, path: Path, sha256: str | None) -> str:
    """Have the file; what stopped it."""
    try:
        tool.download(tool.Wanted(server.url, path, sha256))
    except Trouble as stopped:
        return str(stopped)
    return ""


@pytest.fixture(params=[by_the_deploy, by_the_command])
def download(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Download:
    """One of the two; waiting between attempts is left out."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    chosen: Download = request.param
    return chosen


@pytest.fixture
def server() -> Iterator[Files]:
    """A running server."""
    with serving() as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the model shall be."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "x.safetensors"


def beside(path: Path, end: str) -> Path:
    """A name that begins with the model's."""
    return path.with_name(path.name + end)


@dataclass(frozen=True)
class Case:
    """What is there, what the server does, and what comes of it."""

    said: str = ""  # of what stopped it; empty: the file is there, whole
    server: dict[str, Any] = field(default_factory=dict)
    part: bytes | None = None
    version: str | None = '"v1"'  # that the part is said to be of
    sha256: str | None = SHA256
    asked: list[str | None] | None = None  # ranges
    kept: bytes | None = None  # of the part, where the file did not come


GO_ON = "bytes=1000-"
CASES = {
    "nothing of it is there": Case(asked=[None]),
    "cut": Case(part=CONTENT[:1000], asked=[GO_ON]),
    "cut again and again": Case(server={"cuts": [70_000] * 12}),
    "cut when it was whole, and not in its place": Case(part=CONTENT, asked=[f"bytes={LENGTH}-"]),
    "... without a hash": Case(part=CONTENT, sha256=None, asked=[f"bytes={LENGTH}-"]),
    "of another version": Case(part=b"v" * 1000, version='"v0"', asked=[GO_ON]),
    "of an unknown version": Case(part=b"v" * 1000, version=None, asked=[None]),
    "longer than the file": Case(part=CONTENT + b"x", asked=[f"bytes={LENGTH + 1}-", None]),
    "a weak tag": Case(server={"tag": 'W/"v1"', "cuts": [70_000]}, asked=[None, None]),
    "a date in the place of a tag": Case(
        server={"tag": "", "date": "Sun, 06 Nov 1994 08:49:37 GMT"},
        part=CONTENT[:1000],
        version="Sun, 06 Nov 1994 08:49:37 GMT",
        asked=[GO_ON],
    ),
    "another range": Case(
        "sends another range than was asked for; remove",
        server={"wrong_range": True},
        part=CONTENT[:1000],
        kept=CONTENT[:1000],
    ),
    "a server that recovers": Case(server={"broken": 4}),
    "a server that does not": Case(
        "the server answers 503",
        server={"broken": 99},
        part=CONTENT[:1000],
        asked=[GO_ON] * 5,
        kept=CONTENT[:1000],
    ),
    "is not there": Case("the server answers 404", server={"status": 404}, asked=[None]),
    "no content": Case("the server answers 204", server={"status": 204}, asked=[None]),
    "a login page": Case("a login page", server={"kind": "text/html; charset=utf-8"}),
    "a message": Case(r"a message \(JSON\)", server={"kind": "application/json"}),
    "no length": Case(server={"told_length": False}),
    "no length, cut": Case(f"not {SHA256}", server={"told_length": False, "cuts": [70_000]}),
    "no length, no hash": Case(
        "does not say how long the file is", server={"told_length": False}, sha256=None
    ),
    "another hash": Case(f"has sha256 {SHA256}, not {'0' * 64}", sha256="0" * 64),
    "no hash": Case(sha256=None),
    "no hash, a text": Case(
        "its header is longer than the file", server={"content": b"no such model"}, sha256=None
    ),
    "no hash, half a model": Case(
        "10 bytes are missing at its end", server={"content": CONTENT[:-10]}, sha256=None
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_download_alike(name: str, download: Download, server: Files, path: Path) -> None:
    case = CASES[name]
    for what, value in case.server.items():
        setattr(server, what, list(value) if isinstance(value, list) else value)
    part, tag = beside(path, ".strixbox-part"), beside(path, ".strixbox-part.etag")
    if case.part is not None:
        part.write_bytes(case.part)
        if case.version:
            tag.write_text(case.version)
    browsers = beside(path, ".part")
    browsers.write_bytes(b"half")

    said = download(server, path, case.sha256)

    assert re.search(case.said, said) if case.said else said == ""
    assert case.asked is None or server.ranges == case.asked
    there = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    assert there.pop(browsers.name) == b"half"
    there.pop(tag.name) if case.kept else None
    if not case.said:
        assert there == {path.name: CONTENT}
    elif case.kept:
        assert there == {part.name: case.kept}
    else:
        assert there == {}


def test_what_appears_meanwhile_is_not_overwritten(
    download: Download, server: Files, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Planting(bytes):
        """A content; when it is sent, somebody has taken the place."""

        def __getitem__(self, wanted: Any) -> Any:
            path.write_text("mine")
            return super().__getitem__(wanted)

    server.content = Planting(CONTENT)
    assert "appeared while" in download(server, path, SHA256)
    assert path.read_text() == "mine"


def test_a_part_that_somebody_is_writing_is_not_touched(
    download: Download, server: Files, path: Path
) -> None:
    part = beside(path, ".strixbox-part")
    with part.open("wb") as stream:
        stream.write(CONTENT[:1000])
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert re.search(r"is being written .*; wait ", download(server, path, SHA256))
    assert part.read_bytes() == CONTENT[:1000]
    assert server.asked == []
    assert download(server, path, SHA256) == ""


def test_a_share_without_locks_is_good_enough(
    download: Download, server: Files, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert download(server, path, SHA256) == ""
    assert path.read_bytes() == CONTENT


def test_what_became_the_file_while_it_was_waited_for_is_not_written(
    download: Download, server: Files, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other = beside(path, ".strixbox-part"), beside(path, ".other")
    part.write_bytes(b"whole")
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        """The other program has ended between the opening and the lock."""
        monkeypatch.setattr(fcntl, "flock", lock)
        part.rename(other)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert download(server, path, SHA256) == ""
    assert other.read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to", "pipe"])
def test_what_stands_in_the_parts_place_is_not_written_into(
    download: Download, server: Files, path: Path, kind: str
) -> None:
    own, part = beside(path, ".own"), beside(path, ".strixbox-part")
    own.write_bytes(b"mine")
    os.mkfifo(part) if kind == "pipe" else getattr(part, kind)(own)
    assert download(server, path, SHA256) == ""
    assert path.read_bytes() == CONTENT
    assert own.read_bytes() == b"mine"
