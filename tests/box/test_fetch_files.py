"""Downloads against a real server on this machine: resumed, checked, never over a user's file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import fetch_files
from tests.box.conftest import OTHER, asked, needs_root, started

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY with an ETag and ranges, and the faults that a test asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []  # bytes after which the next answers end
        self.status = 200
        self.kind = "application/octet-stream"
        self.body = BODY
        self.tag = '"one"'
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"http://127.0.0.1:{self.server_address[1]}/m.safetensors"


class Handler(http.server.BaseHTTPRequestHandler):
    """One answer."""

    server: Server

    def do_GET(self) -> None:
        """The body, or a part of it."""
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        start = 0
        if asked and self.headers.get("If-Range") == server.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(server.body) > 0 and start:
            self.send_error(416)
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        body = server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server; waiting between attempts is left out."""
    monkeypatch.setattr("strixbox.box.fetch_files.time.sleep", lambda seconds: None)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(
    folder: Path, server: Server, sha256: str | None = SHA256, link: Path | None = None
) -> Path:
    """Have the file, in the place of a link to ``link``; returns its path."""
    item: dict[str, Any] = {
        "url": server.url,
        "path": str(folder / "m.safetensors"),
        "sha256": sha256,
        "owner": None,
        "link": link and str(link),
    }
    fetch_files.main({"items": [item], "records": str(folder / "state" / "files.json")})
    return Path(item["path"])


def test_a_file_comes_whole_and_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    path = fetch(tmp_path, server)
    fetch(tmp_path, server)
    assert path.read_bytes() == BODY
    assert server.ranges == [None]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.safetensors", "state"]


def test_a_link_that_leads_nowhere_is_replaced(tmp_path: Path, server: Server) -> None:
    gone, place = tmp_path / "archive" / "m", tmp_path / "m.safetensors"
    place.symlink_to(gone)
    assert fetch(tmp_path, server, link=gone).read_bytes() == BODY
    assert not place.is_symlink()


def test_a_link_that_leads_elsewhere_stays(tmp_path: Path, server: Server) -> None:
    # The disk was mounted meanwhile, or its owner has led the link anew.
    gone, place = tmp_path / "gone", tmp_path / "m.safetensors"
    (tmp_path / "there").write_text("mine")
    for target, expected in ((tmp_path / "there", gone), (tmp_path / "there", tmp_path / "there")):
        place.unlink(missing_ok=True)
        place.symlink_to(target)
        with pytest.raises(SystemExit, match="is a link where a file is wanted"):
            fetch(tmp_path, server, link=expected)
        assert place.readlink() == target
    assert (tmp_path / "there").read_text() == "mine"


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, server: Server) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(tmp_path, server).read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_run_goes_on_too(tmp_path: Path, server: Server) -> None:
    server.cuts = [1000] * fetch_files.TRIES
    with pytest.raises(SystemExit, match="continued by the next run"):
        fetch(tmp_path, server)
    assert not (tmp_path / "m.safetensors").exists()
    assert fetch(tmp_path, server).read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={1000 * fetch_files.TRIES}-"


def test_a_file_that_changed_meanwhile_is_begun_anew(tmp_path: Path, server: Server) -> None:
    server.cuts = [1000] * fetch_files.TRIES
    with pytest.raises(SystemExit):
        fetch(tmp_path, server)
    server.tag, server.body = '"two"', BODY[::-1]
    path = fetch(tmp_path, server, hashlib.sha256(BODY[::-1]).hexdigest())
    assert path.read_bytes() == BODY[::-1]


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path: Path, server: Server) -> None:
    (tmp_path / "m.safetensors.strixbox-part").write_bytes(BODY + b"more")
    (tmp_path / "m.safetensors.strixbox-part.etag").write_text(server.tag)
    assert fetch(tmp_path, server).read_bytes() == BODY


def test_a_part_without_a_tag_is_begun_anew(tmp_path: Path, server: Server) -> None:
    (tmp_path / "m.safetensors.strixbox-part").write_bytes(b"something else")
    assert fetch(tmp_path, server).read_bytes() == BODY


def test_a_browsers_download_of_the_same_name_stays(tmp_path: Path, server: Server) -> None:
    theirs = tmp_path / "m.safetensors.part"
    theirs.write_bytes(b"half")
    assert fetch(tmp_path, server).read_bytes() == BODY
    assert theirs.read_bytes() == b"half"


def test_a_wrong_hash_is_not_used(tmp_path: Path, server: Server) -> None:
    with pytest.raises(SystemExit, match=f"has sha256 {SHA256}, not {'0' * 64}"):
        fetch(tmp_path, server, "0" * 64)
    assert not list(tmp_path.glob("m.*"))


def test_a_users_file_is_never_overwritten(tmp_path: Path, server: Server) -> None:
    mine = tmp_path / "m.safetensors"
    mine.write_bytes(b"mine")
    with pytest.raises(SystemExit, match="left alone: move it away"):
        fetch(tmp_path, server)
    assert mine.read_bytes() == b"mine"
    assert server.ranges == []


def test_the_hash_of_first_use_binds_ever_after(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server, None).unlink()
    server.body = BODY[::-1]
    with pytest.raises(SystemExit, match="it was not used"):
        fetch(tmp_path, server, None)


def test_a_web_page_is_told_from_a_file(tmp_path: Path, server: Server) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(SystemExit, match="a login page"):
        fetch(tmp_path, server)


@pytest.mark.parametrize(
    ("status", "words", "asked"),
    [(404, "the server answers 404", 1), (503, "continued by the next run", fetch_files.TRIES)],
)
def test_only_what_may_pass_is_tried_again(
    tmp_path: Path, server: Server, status: int, words: str, asked: int
) -> None:
    server.status = status
    with pytest.raises(SystemExit, match=words):
        fetch(tmp_path, server)
    assert len(server.ranges) == asked


@pytest.mark.parametrize("text", ["{half", "[1]", '{"files": [], "urls": 7}', '{"files": null}'])
def test_damaged_records_are_made_anew(tmp_path: Path, server: Server, text: str) -> None:
    records = tmp_path / "state" / "files.json"
    records.parent.mkdir()
    records.write_text(text)
    query = {"paths": [str(tmp_path / "m.safetensors")], "records": str(records), "user": None}
    assert asked("verified_files", query)["urls"] == {}
    path = fetch(tmp_path, server)
    assert path.read_bytes() == BODY
    told = asked("verified_files", query)
    assert told["files"][str(path)]["sha256"] == SHA256
    # A record without its hash is none.
    told = json.loads(records.read_text())
    del told["files"][str(path)]["sha256"]
    records.write_text(json.dumps(told))
    assert asked("verified_files", query)["files"][str(path)]["sha256"] is None


def test_a_part_makes_room_for_what_takes_its_place(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of another file, so that it is not continued; its bytes count as room.
    (tmp_path / "m.safetensors.strixbox-part").write_bytes(bytes(len(BODY) - 10))
    asked: list[int] = []
    monkeypatch.setattr(fetch_files, "_room", lambda path, needed: asked.append(needed))
    assert fetch(tmp_path, server).read_bytes() == BODY
    assert asked == [10]


def fetched_as_other(folder: Path, server: Server, records: Path) -> tuple[int, str]:
    """Have the file as root has it for another account; exit code and last words."""
    item = {
        "url": server.url,
        "path": str(folder / "m.safetensors"),
        "sha256": SHA256,
        "owner": OTHER,
    }
    answer = started("fetch_files", {"items": [item], "records": str(records)})
    assert "Traceback" not in answer.stderr
    return answer.returncode, answer.stderr


@needs_root
def test_what_is_a_users_is_written_by_the_user_and_recorded_by_root(
    theirs: Path, server: Server, tmp_path: Path
) -> None:
    records = tmp_path / "state" / "files.json"
    assert fetched_as_other(theirs, server, records) == (0, "")
    assert (theirs / "m.safetensors").owner() == OTHER
    assert records.stat().st_uid == os.geteuid()
    assert json.loads(records.read_text())["files"][str(theirs / "m.safetensors")]
    # Once more: it is hashed and recorded, not downloaded.
    assert fetched_as_other(theirs, server, records) == (0, "")
    assert server.ranges == [None]


@needs_root
@pytest.mark.parametrize(
    "name", ["m.safetensors.strixbox-part", "m.safetensors.strixbox-part.etag"]
)
@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to", "pipe"])
def test_nothing_planted_leads_root_elsewhere(
    theirs: Path, server: Server, tmp_path: Path, secret: Path, name: str, kind: str
) -> None:
    if kind == "pipe":
        os.mkfifo(theirs / name)
    else:
        getattr(theirs / name, kind)(secret)
    code, said = fetched_as_other(theirs, server, tmp_path / "files.json")
    assert code == 0, said
    assert (theirs / "m.safetensors").read_bytes() == BODY
    assert [entry.name for entry in theirs.iterdir()] == ["m.safetensors"]


@needs_root
def test_a_link_in_a_models_place_is_not_read_as_root(
    theirs: Path, server: Server, tmp_path: Path, secret: Path
) -> None:
    (theirs / "m.safetensors").symlink_to(secret)
    code, said = fetched_as_other(theirs, server, tmp_path / "files.json")
    assert code == 1
    assert "is a link where a file is wanted; it was left alone" in said


@needs_root
def test_a_folder_that_leads_to_roots_is_refused(
    theirs: Path, server: Server, tmp_path: Path
) -> None:
    (theirs / "loras").symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, said = fetched_as_other(theirs / "loras", server, theirs.parent / "files.json")
    assert code == 1
    assert f"could not be read or written by {OTHER}" in said
    assert sorted(tmp_path.iterdir()) == before


@needs_root
def test_a_part_that_root_began_is_begun_anew(theirs: Path, server: Server, tmp_path: Path) -> None:
    part = theirs / "m.safetensors.strixbox-part"
    part.write_bytes(BODY[:1000])
    (theirs / "m.safetensors.strixbox-part.etag").write_text(server.tag)
    assert fetched_as_other(theirs, server, tmp_path / "files.json") == (0, "")
    assert (theirs / "m.safetensors").read_bytes() == BODY
    assert server.ranges == [None]
