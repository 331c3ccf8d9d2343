"""boxtools.host: memory, processors and load from /proc."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxtools import host
from boxtools.errors import Trouble
from boxtools.host import Ticks
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools import trees
from tests.boxtools.trees import GIB


def test_memory_in_bytes_and_the_cache_without_tmpfs(tmp_path: Path) -> None:
    trees.proc(tmp_path)
    found = host.memory(tmp_path)
    assert (found.total, found.available, found.free) == (125 * GIB, 90 * GIB, 10 * GIB)
    assert (found.cached, found.shared) == (36 * GIB, 4 * GIB)
    assert (found.swap_total, found.swap_used, found.used) == (8 * GIB, GIB, 35 * GIB)


def test_memory_that_cannot_be_read_ends_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="MemTotal"):
        host.memory(tmp_path)
    trees.write(tmp_path / "proc/meminfo", "MemTotal: lots kB")
    with pytest.raises(Trouble, match="MemTotal"):
        host.memory(tmp_path)


def test_processors_and_load(tmp_path: Path) -> None:
    trees.proc(tmp_path)
    ticks = host.ticks(tmp_path)
    assert ticks == Ticks(250, 1000)  # guest time is part of user time
    assert host.load(tmp_path) == (1.25, 0.5, 0.25)
    assert ticks.percent_since(Ticks(0, 0)) == 25
    assert ticks.percent_since(ticks) is None
    assert Ticks(10, 100).percent_since(Ticks(20, 50)) == 0
    assert host.ticks(tmp_path / "other") is None
    assert host.load(tmp_path / "other") is None


def test_this_machine_can_be_read() -> None:
    assert 0 < host.memory().available <= host.memory().total
    assert host.ticks() is not None
    assert host.processors() >= 1


@given(st.text(max_size=200))
def test_any_meminfo_is_read_without_an_exception(content: str) -> None:
    for line in (content, f"MemTotal: {content} kB"):
        assert all(value >= 0 for value in host.meminfo(line).values())
