"""``strixbox preload``: what is brought in, what is not, and what is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from boxtools import pagecache, preload
from boxtools.cli import main
from boxtools.host import Memory
from boxtools.preload import listed, most_used
from boxtools.settings import ENVIRONMENT, Settings

from tests.boxtools import box

SIZE = 300_000


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = box.two_tiers(tmp_path)
    for number, name in enumerate(("a", "b", "c")):
        path = box.model(made.active / f"checkpoints/{name}.safetensors", bytes(SIZE))
        os.utime(path, (1000.0 + number, 1000.0))
        forget(path)
    file = tmp_path / "tools.json"
    file.write_text(made.model_dump_json())
    monkeypatch.setenv(ENVIRONMENT, str(file))
    return made


def forget(path: Path) -> None:
    """Have a file leave the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    pagecache.drop(descriptor)
    os.close(descriptor)
    if pagecache.resident(path) != 0:
        pytest.skip("the file system of the temporary directory is itself in memory")


def path_of(settings: Settings, name: str) -> Path:
    return settings.active / f"checkpoints/{name}.safetensors"


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def shares(value: Any) -> dict[str, bool]:
    """By name, whether all of it is in the page cache."""
    return {Path(one["path"]).stem: one["resident"] == one["size"] for one in value["files"]}


def test_the_list_is_preloaded(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "preload.txt"
    a, c = path_of(settings, "a"), path_of(settings, "c")
    file.write_text(f"# comment\n{c}\n\n{a}\n{c}\nrelative\n")
    assert main(["preload", "--list", str(file), "--json"]) == 0
    value = told(capsys)
    assert list(shares(value).items()) == [("c", True), ("a", True)]
    assert value["bytes"] == a.stat().st_size + c.stat().st_size
    assert pagecache.resident(path_of(settings, "b")) == 0
    assert main(["preload", "--list", str(file), "--json"]) == 0
    assert told(capsys)["bytes"] == 0


def test_a_list_works_without_settings(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "absent"))
    file = tmp_path / "preload.txt"
    file.write_text(f"{path_of(settings, 'a')}\n")
    assert main(["preload", "--list", str(file)]) == 0
    assert main(["preload", str(path_of(settings, "b"))]) == 0
    assert main(["preload", "b"]) == 1


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "\udcff\n"])
def test_an_empty_list_is_well(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "preload.txt"
    file.write_text(content, errors="surrogateescape")
    assert main(["preload", "--list", str(file)]) == 0
    assert "nothing is listed" in capsys.readouterr().err


def test_a_listed_model_that_is_not_there(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "preload.txt"
    file.write_text(f"{tmp_path}/gone [x]\n{path_of(settings, 'a')}\n")
    assert main(["preload", "--list", str(file)]) == 1
    out = capsys.readouterr().out
    assert "No such file" in out
    assert "gone [x]" in out
    assert pagecache.resident(path_of(settings, "a")) == path_of(settings, "a").stat().st_size


def test_a_list_that_was_named_is_not_ignored(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent")
    assert main(["preload", "--list", absent]) == 2
    assert f"{absent} is not there" in capsys.readouterr().err
    assert main(["preload", "--list", absent, "a"]) == 2
    assert main(["preload", "--list", absent, "--most-used", "1"]) == 2
    assert pagecache.resident(path_of(settings, "a")) == 0


def test_without_a_list_what_was_used_last(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(preload, "LIST", tmp_path / "absent")
    assert main(["preload", "--most-used", "2", "--json"]) == 0
    assert shares(told(capsys)) == {"c": True, "b": True}
    assert main(["preload", "--json"]) == 0
    assert list(shares(told(capsys))) == ["c", "b", "a"]
    (tmp_path / "absent").write_text("# a deploy without a manifest\n")
    assert main(["preload", "--status", "--json"]) == 0
    assert list(shares(told(capsys))) == ["c", "b", "a"]


def test_names_and_patterns(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preload", "b", "checkpoints/[a]*", "--json"]) == 0
    assert shares(told(capsys)) == {"b": True, "a": True}
    assert main(["preload", "b", "--most-used", "1"]) == 2
    assert main(["preload", "nothing-like-it"]) == 2


def test_status_reads_nothing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preload", "a", "b", "--status", "--json"]) == 0
    assert shares(told(capsys)) == {"a": False, "b": False}
    path_of(settings, "a").read_bytes()
    assert main(["preload", "a", "b", "--status", "--json"]) == 0
    assert shares(told(capsys)) == {"a": True, "b": False}
    assert main(["preload", "a", "b", "--status"]) == 0
    assert "100%" in capsys.readouterr().out


def memory(available: int) -> Memory:
    return Memory(1 << 30, available, 0, 0, 0, 0)


def test_no_more_than_the_share(settings: Settings) -> None:
    paths = [path_of(settings, name) for name in ("a", "b", "c")]
    room = paths[0].stat().st_size + 8 * pagecache.PAGE
    results, stopped = preload.preload(paths, room, lambda: memory(1 << 30))
    assert stopped == "the share of the memory is used up"
    assert results[0].resident == results[0].size
    assert 0 < (results[1].resident or 0) < results[1].size
    assert results[2].resident == 0


def test_what_is_there_counts_too(settings: Settings) -> None:
    # Else the last of a list that is too long would push out its first, again and again.
    paths = [path_of(settings, name) for name in ("a", "b")]
    paths[0].read_bytes()
    results, _ = preload.preload(paths, paths[0].stat().st_size, lambda: memory(1 << 30))
    assert [result.resident for result in results] == [paths[0].stat().st_size, 0]


def test_it_stops_where_memory_gets_short(settings: Settings) -> None:
    answers = iter([1 << 30, 1, 1])
    paths = [path_of(settings, name) for name in ("a", "b", "c")]
    results, stopped = preload.preload(paths, 1 << 30, lambda: memory(next(answers)))
    assert stopped == "little memory is available any more"
    assert [result.resident == result.size for result in results] == [True, False, False]


def test_a_disk_error_is_told_and_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = preload._load

    def fails(path: Path, *words: Any) -> int:
        if path.stem == "a":
            raise OSError(5, "Input/output error")
        return real(path, *words)

    monkeypatch.setattr(preload, "_load", fails)
    paths = [path_of(settings, name) for name in ("a", "b")]
    results, stopped = preload.preload(paths, 1 << 30, lambda: memory(1 << 30))
    assert [result.problem for result in results] == ["Input/output error", None]
    assert stopped is None


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    assert main(["preload", "--list", str(tmp_path)]) == 1
    assert listed(tmp_path / "absent") is None


def test_most_used_passes_over_the_unknown(settings: Settings) -> None:
    assert most_used([], 3) == []


def test_the_unit_runs_the_command() -> None:
    unit = Path(__file__).parents[2] / "templates/etc/systemd/system/strixbox-preload.service.j2"
    lines = unit.read_text().splitlines()
    assert "ExecStart=/usr/local/bin/strixbox preload" in lines
    for wanted in ("ProtectSystem=strict", "PrivateNetwork=yes", "NoNewPrivileges=yes"):
        assert wanted in lines
