"""Downloads against a real server on this machine: resumed, checked, never over a user's file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import fetch_files
from strixbox.box._headers import header_trouble
from tests.box.conftest import OTHER, asked, needs_root, started
from tests.file_server import CONTENT, SHA256, Files, serving

TAG = '"v1"'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A running server; waiting between attempts is left out."""
    monkeypatch.setattr("strixbox.box.fetch_files.time.sleep", lambda seconds: None)
    with serving() as one:
        yield one


def fetch(
    folder: Path, server: Files, sha256: str | None = SHA256, link: Path | None = None
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


def test_a_file_comes_whole_and_is_not_asked_for_again(tmp_path: Path, server: Files) -> None:
    path = fetch(tmp_path, server)
    fetch(tmp_path, server)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.safetensors", "state"]


def test_a_link_that_leads_nowhere_is_replaced(tmp_path: Path, server: Files) -> None:
    gone, place = tmp_path / "archive" / "m", tmp_path / "m.safetensors"
    place.symlink_to(gone)
    assert fetch(tmp_path, server, link=gone).read_bytes() == CONTENT
    assert not place.is_symlink()


def test_a_link_that_leads_elsewhere_stays(tmp_path: Path, server: Files) -> None:
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


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, server: Files) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_run_goes_on_too(tmp_path: Path, server: Files) -> None:
    server.cuts = [1000]
    sleeps: list[None] = []

    def and_is_gone(_: object) -> None:
        """The server does not answer any more once something came."""
        sleeps.append(None)
        server.broken = 99

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strixbox.box.fetch_files.time.sleep", and_is_gone)
        with pytest.raises(
            SystemExit, match=r"answers 503\); the downloaded part is kept and the next run"
        ):
            fetch(tmp_path, server)
    assert len(sleeps) == fetch_files.TRIES - 1
    assert not (tmp_path / "m.safetensors").exists()
    server.broken = 0
    assert fetch(tmp_path, server).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"


def test_a_users_file_is_never_overwritten(tmp_path: Path, server: Files) -> None:
    mine = tmp_path / "m.safetensors"
    mine.write_bytes(b"mine")
    with pytest.raises(SystemExit, match="left alone: move it away"):
        fetch(tmp_path, server)
    assert mine.read_bytes() == b"mine"
    assert server.ranges == []


def test_the_hash_of_first_use_binds_ever_after(tmp_path: Path, server: Files) -> None:
    fetch(tmp_path, server, None).unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(SystemExit, match="it was not used"):
        fetch(tmp_path, server, None)


@pytest.mark.parametrize("text", ["{half", "[1]", '{"files": [], "urls": 7}', '{"files": null}'])
def test_damaged_records_are_made_anew(tmp_path: Path, server: Files, text: str) -> None:
    records = tmp_path / "state" / "files.json"
    records.parent.mkdir()
    records.write_text(text)
    query = {"paths": [str(tmp_path / "m.safetensors")], "records": str(records), "user": None}
    assert asked("verified_files", query)["urls"] == {}
    path = fetch(tmp_path, server)
    assert path.read_bytes() == CONTENT
    told = asked("verified_files", query)
    assert told["files"][str(path)]["sha256"] == SHA256
    # A record without its hash is none.
    told = json.loads(records.read_text())
    del told["files"][str(path)]["sha256"]
    records.write_text(json.dumps(told))
    assert asked("verified_files", query)["files"][str(path)]["sha256"] is None


def test_a_part_makes_room_for_what_takes_its_place(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of another file, so that it is not continued; its bytes count as room.
    part = tmp_path / "m.safetensors.strixbox-part"
    part.write_bytes(bytes(1000))

    def room(path: str) -> os.statvfs_result:
        """The disk is full for as long as the old part takes room."""
        blocks = 0 if part.stat().st_size else 1 << 40
        return os.statvfs_result((1, 1, blocks, blocks, blocks, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", room)
    assert fetch(tmp_path, server).read_bytes() == CONTENT


def test_no_room_is_told_before_anything_comes(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, fits in ((len(CONTENT), False), (len(CONTENT) * 2, True)):
        state = os.statvfs_result((1, 1, free, free, free, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda path, state=state: state)
        if fits:
            assert fetch(tmp_path, server).read_bytes() == CONTENT
        else:
            with pytest.raises(SystemExit, match="free disk room there"):
                fetch(tmp_path, server)
            assert not list(tmp_path.glob("m.*"))


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENOSPC, "free disk room, then"), (errno.EIO, "see dmesg: the disk fails, then")],
)
def test_what_the_disk_refuses_is_a_sentence_with_its_mend(
    tmp_path: Path, server: Files, monkeypatch: pytest.MonkeyPatch, number: int, mend: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetch_files.Part, "add", refused)
    with pytest.raises(SystemExit, match=f"{os.strerror(number)}; {mend}"):
        fetch(tmp_path, server)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("torch.whl", b"not a zip", "it is no zip archive"),
        ("m.ckpt", b'{"error": "no such model"}', "it is a text"),
        ("m.ckpt", b"", "it is a text"),
        ("m.ckpt", b"\x80\x02weights", ""),
        ("m.safetensors", b"\x02" + bytes(7) + b"[]", "is no JSON of tensors"),
        ("m.safetensors", b"\x09" + bytes(7) + b'{"x": {}}', "is no JSON of tensors"),
        ("m.safetensors", b"\x02" + bytes(7) + b"{}", ""),
        ("m.SFT", CONTENT, ""),
        ("m.sft", CONTENT[:-1], "1 bytes are missing"),
    ],
)
def test_what_may_be_recorded_at_first_use(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / "part"
    path.write_bytes(content)
    told = header_trouble(str(path), name)
    assert said in told
    assert bool(told) is bool(said)


def fetched_as_other(folder: Path, server: Files, records: Path) -> tuple[int, str]:
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
    theirs: Path, server: Files, tmp_path: Path
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
    theirs: Path, server: Files, tmp_path: Path, secret: Path, name: str, kind: str
) -> None:
    if kind == "pipe":
        os.mkfifo(theirs / name)
    else:
        getattr(theirs / name, kind)(secret)
    code, said = fetched_as_other(theirs, server, tmp_path / "files.json")
    assert code == 0, said
    assert (theirs / "m.safetensors").read_bytes() == CONTENT
    assert [entry.name for entry in theirs.iterdir()] == ["m.safetensors"]


@needs_root
def test_a_link_in_a_models_place_is_not_read_as_root(
    theirs: Path, server: Files, tmp_path: Path, secret: Path
) -> None:
    (theirs / "m.safetensors").symlink_to(secret)
    code, said = fetched_as_other(theirs, server, tmp_path / "files.json")
    assert code == 1
    assert "is a link where a file is wanted; it was left alone" in said


@needs_root
def test_a_folder_that_leads_to_roots_is_refused(
    theirs: Path, server: Files, tmp_path: Path
) -> None:
    (theirs / "loras").symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, said = fetched_as_other(theirs / "loras", server, theirs.parent / "files.json")
    assert code == 1
    assert f"could not be read or written by {OTHER}" in said
    assert sorted(tmp_path.iterdir()) == before


@needs_root
def test_a_part_that_root_began_is_begun_anew(theirs: Path, server: Files, tmp_path: Path) -> None:
    part = theirs / "m.safetensors.strixbox-part"
    part.write_bytes(CONTENT[:1000])
    (theirs / "m.safetensors.strixbox-part.etag").write_text(TAG)
    assert fetched_as_other(theirs, server, tmp_path / "files.json") == (0, "")
    assert (theirs / "m.safetensors").read_bytes() == CONTENT
    assert server.ranges == [None]
