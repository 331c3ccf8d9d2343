"""The page cache: what is told about it, and that files come in, or pass by, as they should."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxtools import pagecache
from boxtools.pagecache import PAGE, Loader, in_cache, pass_through, resident

SIZE = 6 * (1 << 20) + 123


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of some megabytes, none of it in the page cache."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(random.Random(1).randbytes(SIZE))  # noqa: S311 - the same bytes every time
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    pagecache.drop(descriptor)
    os.close(descriptor)
    if resident(path) != 0:
        pytest.skip("the file system of the temporary directory is itself in memory")
    return path


@pytest.fixture
def descriptor(file: Path) -> Iterator[int]:
    """It, open."""
    number = pagecache.open_quietly(file)
    yield number
    os.close(number)


def always() -> bool:
    return True


def test_resident_counts_bytes(file: Path, descriptor: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(descriptor, 10, 0)
    os.pread(descriptor, 10, 100 * PAGE)
    assert resident(file) == 2 * PAGE
    seen = in_cache(descriptor, 0, SIZE)
    assert [index for index, there in enumerate(seen) if there] == [0, 100]


def test_without_cachestat_mincore_tells_the_same(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.pread(descriptor, 1 << 20, 2 << 20)
    first = resident(file)
    monkeypatch.setattr(pagecache, "_cachestat", lambda _: None)
    monkeypatch.setattr(pagecache, "WINDOW", 1 << 20)
    assert resident(file) == first
    file.read_bytes()
    assert resident(file) == SIZE


def test_resident_is_none_where_nothing_can_be_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resident(file.with_name("absent")) is None
    assert resident(file.parent) in (None, 0)
    monkeypatch.setattr(pagecache, "may_ask", lambda _: False)
    assert resident(file) is None


def test_an_empty_file_is_resident(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert resident(path) == 0
    number = pagecache.open_quietly(path)
    assert list(pass_through(number, 0)) == []
    assert Loader(number).load(0, lambda _: None, always) == 0
    os.close(number)


def test_load_brings_all_of_it(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "WINDOW", 1 << 20)
    seen: list[int] = []
    assert Loader(descriptor).load(SIZE, seen.append, always) == SIZE
    assert resident(file) == SIZE
    assert seen == sorted(seen)
    assert seen[-1] == SIZE


def test_no_request_is_larger_than_the_kernel_answers(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    real = os.posix_fadvise

    def advise(number: int, offset: int, length: int, advice: int) -> None:
        lengths.append(length)
        real(number, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    Loader(descriptor).load(SIZE, lambda _: None, always)
    assert sum(lengths) == SIZE
    assert max(lengths) == 128 << 10


def test_load_of_a_part(file: Path, descriptor: int) -> None:
    half = 256 * PAGE
    assert Loader(descriptor).load(half, lambda _: None, always) == half
    assert half <= (resident(file) or 0) < SIZE


def test_load_stops_when_told(file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagecache, "WINDOW", 1 << 20)
    answers = iter([True, True, False])
    assert Loader(descriptor).load(SIZE, lambda _: None, lambda: next(answers)) == 2 << 20


def test_what_is_there_is_not_asked_for(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.read_bytes()
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words[1]))
    monkeypatch.setattr(os, "preadv", lambda *_: asked.append(-1))
    assert Loader(descriptor).load(SIZE, lambda _: None, always) == SIZE
    assert asked == []


def test_a_device_that_takes_no_advice_is_read(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "WINDOW", 1 << 20)
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words[1]))
    loader = Loader(descriptor, patience=0.01)
    assert loader.load(SIZE, lambda _: None, always) == SIZE
    assert resident(file) == SIZE
    assert max(asked) < 2 << 20  # after the window that showed it, nothing is asked for any more


def test_where_the_kernel_does_not_tell_it_is_read(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "may_ask", lambda _: False)
    assert Loader(descriptor).load(SIZE, lambda _: None, always) == SIZE
    monkeypatch.undo()
    assert resident(file) == SIZE


def test_passing_through_gives_the_content_and_leaves_no_trace(
    file: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagecache, "CHUNK", 1 << 20)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(descriptor, 1 << 20, 3 << 20)
    before = in_cache(descriptor, 0, SIZE)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    content = b"".join(bytes(chunk) for chunk in pass_through(descriptor, SIZE))
    assert in_cache(descriptor, 0, SIZE) == before
    assert content == file.read_bytes()


def test_passing_through_ends_with_a_file_that_shrank(descriptor: int) -> None:
    assert sum(len(chunk) for chunk in pass_through(descriptor, 2 * SIZE)) == SIZE


def test_reads_leave_the_time_of_last_use_alone(file: Path) -> None:
    os.utime(file, (1e9, 1.1e9))  # relatime would renew it: older than the last write
    number = pagecache.open_quietly(file)
    for _ in pass_through(number, SIZE):
        pass
    Loader(number).load(SIZE, lambda _: None, always)
    os.close(number)
    resident(file)
    assert file.stat().st_atime == 1e9


def test_a_file_of_others_is_opened_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuses(path: Path, flags: int) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuses)
    number = pagecache.open_quietly(file)
    assert os.pread(number, 1, 0)
    os.close(number)
