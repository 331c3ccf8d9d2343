"""What is noted of a generation that answered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strixbox.box import activate


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
