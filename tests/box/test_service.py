"""Whether the server answers, and how long that is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from strixbox.box import service
from strixbox.layout import GENERATION_ID, RELEASE_ID


@pytest.mark.parametrize(
    ("answers", "states", "patience", "answered", "asked"),
    [
        ([True], [], 0, True, 1),
        ([False], [], 0, False, 1),
        ([False, False, True], ["active"] * 9, 60, True, 3),
        # One that is gone will not answer however long it is waited for.
        ([False, False, True], ["active", "failed"], 60, False, 2),
    ],
)
def test_a_server_that_runs_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[bool],
    states: list[str],
    patience: float,
    answered: bool,
    asked: int,
) -> None:
    left = iter(answers)
    units = iter(states)
    monkeypatch.setattr(service, "unanswered", lambda url: None if next(left) else "nothing")
    monkeypatch.setattr(service, "unit", lambda name: {"ActiveState": next(units)})
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert service.answers_within("http://h", "comfyui.service", patience) is answered
    assert len(answers) - len(list(left)) == asked


def test_a_drop_in_that_starts_something_else_is_named(tmp_path: Path) -> None:
    texts = {
        "limits.conf": "[Service]\nMemoryMax=90G\nExecStartPost=/bin/true\n# ExecStart=no\n",
        "mine.conf": "[Service]\nExecStart=\n ExecStart = /bin/sleep 1000\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = " ".join(f"{tmp_path}/{name}" for name in (*texts, "gone.conf"))
    assert service.other_commands(paths) == [f"{tmp_path}/mine.conf"]
    assert service.other_commands("") == []


def test_only_what_has_a_name_of_ours_is_a_release_or_a_generation(tmp_path: Path) -> None:
    ours = "0123456789ab"
    for name in (ours, f"{ours}.bak", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "release.json").touch()
    for name in (f"{ours}-01234567", f"{ours}-01234567.bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "generation.json").write_text('{"release": "/r"}')
    assert service.releases(f"{tmp_path}/{RELEASE_ID}").keys() == {ours}
    found = service.generations(f"{tmp_path}/{GENERATION_ID}")
    assert [one["id"] for one in found] == [f"{ours}-01234567"]


@pytest.mark.parametrize("text", ["[]", "7", "{half", '{"pins": []}', "{}"])
def test_a_seal_that_is_damaged_has_no_pins(tmp_path: Path, text: str) -> None:
    (tmp_path / "release.json").write_text(text)
    assert service.pins(str(tmp_path)) is None
