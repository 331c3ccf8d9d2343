"""Downloads: resumed, checked, and never over somebody's file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxtools import download as module
from boxtools.download import Wanted, already_there, download, file_name, shown
from boxtools.errors import Trouble, WrongUse
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools import box
from tests.file_server import CONTENT, SHA256, Files, serving


@pytest.fixture
def server() -> Iterator[Files]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def wanted(server: Files, tmp_path: Path) -> Wanted:
    return Wanted(server.url, tmp_path / "x.safetensors", SHA256)


def test_a_file_comes_whole(wanted: Wanted) -> None:
    seen: list[tuple[int, int | None]] = []
    assert download(wanted, lambda done, total: seen.append((done, total))) == SHA256
    assert wanted.path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert box.leftovers(wanted.path.parent) == []
    assert wanted.path.stat().st_mode & 0o777 == 0o644


def test_a_cut_goes_on_where_it_was(wanted: Wanted, server: Files) -> None:
    server.cuts = [1_000_000] * 2
    assert download(wanted) == SHA256
    assert wanted.path.read_bytes() == CONTENT
    kept = 1_000_000 // module.CHUNK * module.CHUNK
    ranges = [begin for begin, _ in server.asked]
    assert ranges == [None, f"bytes={kept}-", f"bytes={2 * kept}-"]
    assert server.asked[1][1] == '"v1"'


def test_a_run_that_was_killed_is_continued(wanted: Wanted, server: Files) -> None:
    # Also one of the deploy's: it uses the same names.
    wanted.part.write_bytes(CONTENT[:1000])
    wanted.tag.write_text('"v1"\n')
    assert download(wanted) == SHA256
    assert server.asked == [("bytes=1000-", '"v1"')]


def test_a_part_of_unknown_version_is_not_continued(wanted: Wanted, server: Files) -> None:
    wanted.part.write_bytes(b"of something else")
    assert download(wanted) == SHA256
    assert server.asked == [(None, None)]


def test_a_file_that_changed_is_begun_anew(wanted: Wanted, server: Files) -> None:
    wanted.part.write_bytes(b"of the old version")
    wanted.tag.write_text('"v0"')
    assert download(wanted) == SHA256


def test_a_part_that_is_too_long_is_begun_anew(wanted: Wanted) -> None:
    wanted.part.write_bytes(bytes(len(CONTENT) + 1))
    wanted.tag.write_text('"v1"')
    assert download(wanted) == SHA256


def test_a_weak_tag_is_not_used_for_ranges(wanted: Wanted, server: Files) -> None:
    server.tag = 'W/"v1"'
    server.cuts = [1000]
    assert download(wanted) == SHA256
    assert server.asked == [(None, None), (None, None)]


def test_a_range_that_was_not_asked_for(wanted: Wanted, server: Files) -> None:
    server.wrong_range = True
    wanted.part.write_bytes(CONTENT[:1000])
    wanted.tag.write_text('"v1"')
    with pytest.raises(Trouble, match="another range"):
        download(wanted)


def test_without_a_length(wanted: Wanted, server: Files) -> None:
    server.told_length = False
    assert download(wanted) == SHA256


def test_a_server_that_recovers(wanted: Wanted, server: Files) -> None:
    server.broken = 3
    assert download(wanted) == SHA256


def test_a_server_that_does_not(wanted: Wanted, server: Files) -> None:
    server.broken = 99
    where = f"x.safetensors from http://127.0.0.1:{server.server_port}/models/x.safetensors could"
    with pytest.raises(Trouble, match=f"^{where} .*the server answers 503") as trouble:
        download(wanted)
    assert "kept" not in str(trouble.value)  # nothing came
    assert len(server.asked) == module.TRIES


def test_what_came_is_kept(wanted: Wanted, server: Files) -> None:
    server.cuts = [100_000]

    def stop(done: int, _: int | None) -> None:
        server.broken = 99

    with pytest.raises(Trouble, match="is kept"):
        download(wanted, stop)
    assert wanted.part.read_bytes() == CONTENT[: module.CHUNK]
    assert not wanted.path.exists()
    server.broken, server.status = 0, 404
    with pytest.raises(
        Trouble,
        match=r"answers 404 .*downloaded part \(65536 bytes\) is kept and the next run resumes it",
    ):
        download(wanted)
    assert wanted.part.read_bytes() == CONTENT[: module.CHUNK]


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="the connection failed: Connection refused") as trouble:
        download(Wanted("http://127.0.0.1:9/x.safetensors?token=secret", tmp_path / "x"))
    assert "secret" not in str(trouble.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, "text/plain", "404"),
        (401, "text/plain", "login"),
        (200, "text/html; charset=utf-8", "web page"),
        (204, "text/plain", "204"),
    ],
)
def test_what_is_no_file(wanted: Wanted, server: Files, status: int, kind: str, said: str) -> None:
    server.status, server.kind = status, kind
    with pytest.raises(Trouble, match=said) as trouble:
        download(wanted)
    assert "secret" not in str(trouble.value)
    assert list(wanted.path.parent.iterdir()) == []


def test_another_content_is_not_used(server: Files, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=f"{SHA256}, not 0000"):
        download(Wanted(server.url, tmp_path / "x.safetensors", "0" * 64))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_not_used(server: Files, tmp_path: Path) -> None:
    server.content = b"an error in the place of a model"
    with pytest.raises(Trouble, match=r"x.safetensors from .* is no model: its header is longer"):
        download(Wanted(server.url, tmp_path / "x.safetensors"))
    assert list(tmp_path.iterdir()) == []
    # Somebody who gives its hash knows what it is.
    digest = hashlib.sha256(server.content).hexdigest()
    assert download(Wanted(server.url, tmp_path / "x.safetensors", digest)) == digest


def test_no_room(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVE", 1 << 60)
    with pytest.raises(Trouble, match="GiB are needed"):
        download(wanted)


def test_what_appears_meanwhile_is_not_overwritten(wanted: Wanted) -> None:
    def seen(_: int, __: int | None) -> None:
        wanted.path.write_text("somebody's")

    with pytest.raises(Trouble, match="appeared"):
        download(wanted, seen)
    assert wanted.path.read_text() == "somebody's"


def test_two_at_once(wanted: Wanted) -> None:
    def second(*_: object) -> None:
        with pytest.raises(Trouble, match="already"):
            download(wanted)

    assert download(wanted, second) == SHA256


def test_no_directory(server: Files, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="could not be written"):
        download(Wanted(server.url, tmp_path / "absent/x.safetensors"))


def test_what_is_there_already(wanted: Wanted) -> None:
    assert already_there(wanted) is None
    wanted.path.write_bytes(CONTENT)
    assert already_there(wanted) == SHA256
    with pytest.raises(Trouble, match="which hash"):
        already_there(Wanted(wanted.url, wanted.path))
    wanted.path.write_bytes(b"other")
    with pytest.raises(Trouble, match="another content"):
        already_there(wanted)
    wanted.path.unlink()
    wanted.path.mkdir()
    with pytest.raises(Trouble, match="in the way"):
        already_there(wanted)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/a/b.safetensors?download=true", "b.safetensors"),
        ("http://example.org/a%20b.ckpt", "a b.ckpt"),
        ("https://example.org/..%2f..%2fx.safetensors", "x.safetensors"),
    ],
)
def test_file_name(url: str, name: str) -> None:
    assert file_name(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x.safetensors",
        "file:///etc/passwd",
        "x.safetensors",
        "https://example.org/",
        "https://example.org/api/download/models/128713",
        "https://example.org/.hidden.safetensors",
        "https://[::1/x.safetensors",
        "",
    ],
)
def test_urls_without_a_name(url: str) -> None:
    with pytest.raises(WrongUse):
        file_name(url)


@given(st.text())
def test_any_text_as_url(url: str) -> None:
    try:
        name = file_name(url)
    except WrongUse:
        return
    assert "/" not in name
    assert not name.startswith(".")


def test_secrets_are_not_shown() -> None:
    url = "https://user:password@example.org:8443/x.safetensors?token=secret#part"
    assert shown(url) == "https://example.org:8443/x.safetensors"
    assert shown("http://user@[::1]/x") == "http://[::1]/x"
    assert shown("http://h:port/x") == "what was given"
