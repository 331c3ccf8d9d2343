"""A generation is made current whole, or the one before is."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import activate
from strixbox.box._atomic import put


def test_the_note_of_an_answer_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "one", tmp_path / "in-use"
    folder.mkdir()
    (folder / "answered").write_text("5\n")
    seen: list[tuple[str, str]] = []
    fsync = os.fsync

    def flushed(descriptor: int) -> None:
        """What is flushed, and what bears the name by then."""
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((name, (folder / "answered").read_text()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    activate.answered({"in_use": str(link)}, str(folder))
    assert seen[0] == ("answered.strixbox-new", "5\n")
    assert [name for name, _ in seen[1:]] == ["one"]
    assert int((folder / "answered").read_text()) > 5
    assert [path.name for path in folder.iterdir()] == ["answered"]
    assert link.resolve() == folder


@pytest.mark.parametrize(
    ("stale", "state", "told"),
    [
        ("no", "enabled", []),
        ("yes", "enabled", ["daemon-reload", "enable"]),
        ("no", "disabled", ["daemon-reload", "enable"]),
        ("", "", ["daemon-reload", "enable"]),
    ],
)
def test_systemd_is_told_of_a_unit_only_where_it_does_not_know_it(
    monkeypatch: pytest.MonkeyPatch, stale: str, state: str, told: list[str]
) -> None:
    said: list[str] = []
    unit = {"NeedDaemonReload": stale, "UnitFileState": state}
    monkeypatch.setattr(activate, "unit_of", lambda service, *names: unit)
    monkeypatch.setattr(activate, "systemctl", lambda *words: said.append(words[0]))
    assert activate.known("comfyui.service") is None
    assert said == told


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An order to go from the generation ``old``, which is in use, to ``new``."""
    for name in ("old", "new"):
        folder = tmp_path / name
        (folder / "release").mkdir(parents=True)
        (folder / "release" / "release.json").touch()
        files = [str(tmp_path / "etc" / file) for file in ("env", "unit")]
        for path in files:
            kept = Path(f"{folder}/files{path}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(name)
        kept_as = {
            "release": str(folder / "release"),
            "url": "http://127.0.0.1:1/",
            "files": [{"path": path, "mode": "644"} for path in files],
        }
        (folder / "generation.json").write_text(json.dumps(kept_as))
    made = {
        "generation": str(tmp_path / "new"),
        "in_use": str(tmp_path / "in-use"),
        "link": str(tmp_path / "current"),
        "service": "comfyui.service",
        "timeout": 1,
        "restart": True,
        "backups": str(tmp_path / "backups"),
    }
    (tmp_path / "in-use").symlink_to(tmp_path / "old")
    old = activate.generation(str(tmp_path / "old"))
    assert old
    activate.place(old, made)
    monkeypatch.setattr(activate, "systemctl", lambda *words: None)
    active = {"ActiveState": "active", "NeedDaemonReload": "no", "UnitFileState": "enabled"}
    monkeypatch.setattr(activate, "unit_of", lambda service, *names: active)
    monkeypatch.setattr(activate, "start", lambda *words: None)
    return made


def standing(order: dict[str, Any]) -> set[str]:
    """What stands in place of the two generations: one word where it is all of one."""
    root = Path(order["link"]).parent
    found = {path.read_text() for path in (root / "etc").iterdir()}
    return found | {Path(order["link"]).resolve().parent.name}


def test_a_generation_is_put_in_place_whole(order: dict[str, Any]) -> None:
    assert standing(order) == {"old"}
    activate.main(order)
    assert standing(order) == {"new"}
    assert Path(order["in_use"]).resolve().name == "new"


def failing(function: Any, word: str, number: int, count: int) -> Any:
    """The function; for a path with the word it fails, ``count`` times."""
    left = [count]

    def fails(*words: Any) -> Any:
        if any(word in str(path) for path in words) and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), words[-1])
        return function(*words)

    return fails


@pytest.mark.parametrize(
    ("function", "word", "number", "times", "told"),
    [
        ("beside", "etc/unit", errno.ENOSPC, 1, "are in place; free disk room"),
        ("os.replace", "etc/unit", errno.EROFS, 1, "are in place; remount the file system"),
        ("point", "current", errno.ENOSPC, 1, "are in place; free disk room"),
        ("beside", "etc/env", errno.ENOSPC, 9, "are in place; free disk room"),
    ],
)
def test_what_cannot_be_written_leaves_the_generation_before(
    order: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    word: str,
    number: int,
    times: int,
    told: str,
) -> None:
    place = (activate, function) if "." not in function else (os, function.removeprefix("os."))
    monkeypatch.setattr(*place, failing(getattr(*place), word, number, times))
    with pytest.raises(SystemExit, match=f"{os.strerror(number)}; the files .* {told}"):
        activate.main(order)
    assert standing(order) == {"old"}
    assert Path(order["in_use"]).resolve().name == "old"
    assert not list(Path(order["link"]).parent.rglob("*.strixbox-new"))


def test_what_cannot_even_be_put_back_is_told(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", failing(os.replace, "etc/unit", errno.EROFS, 1))
    monkeypatch.setattr(activate, "put_back", lambda last, order: "/x: Read-only file system")
    with pytest.raises(SystemExit, match=r"could not be put in place again \(/x: Read-only"):
        activate.main(order)


def test_an_answer_that_cannot_be_noted_is_told(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activate, "put", failing(put, "answered", errno.ENOSPC, 1))
    with pytest.raises(SystemExit, match=r"answers, but that could not be noted: .*No space"):
        activate.main(order)
    assert standing(order) == {"new"}


def test_a_directory_in_a_files_place_is_kept(order: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "etc" / "unit").unlink()
    (tmp_path / "etc" / "unit").mkdir()
    activate.main(order)
    assert standing(order) == {"new"}
    assert [path.is_dir() for path in (tmp_path / "backups").glob("*-unit")] == [True]


def test_only_the_services_own_port_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activate, "unit_of", lambda *words: {"ControlGroup": "/x"})
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        for own, foreign in (
            ([str(os.getpid()), str(other.pid)], False),
            ([str(other.pid)], True),
            ([], False),  # nothing is known of the unit's processes
        ):
            monkeypatch.setattr(activate, "processes", lambda group, own=own: own)
            told = activate.elsewhere("comfyui.service", url)
            assert bool(told) is foreign
            assert not told or "another program has port" in told
        other.kill()


def test_the_answer_of_another_program_is_not_the_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unit = {"ActiveState": "active", "MainPID": "1"}
    monkeypatch.setattr(activate, "unit_of", lambda *words: unit)
    monkeypatch.setattr(activate, "systemctl", lambda *words: None)
    monkeypatch.setattr(activate, "known", lambda service: None)
    monkeypatch.setattr(activate, "unanswered", lambda url: None)
    monkeypatch.setattr(activate, "elsewhere", lambda *words: "another program has port 1")
    monkeypatch.setattr(activate, "_log", lambda service: "")
    monkeypatch.setattr(activate, "SETTLED", 0.0)
    told = activate.start("comfyui.service", "http://127.0.0.1:1/", 0.3)
    assert "(another program has port 1)" in str(told)
    monkeypatch.setattr(activate, "elsewhere", lambda *words: None)
    assert activate.start("comfyui.service", "http://127.0.0.1:1/", 0.3) is None
