"""What the holder of the lock writes into the box's log of changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strixbox.box.hold_lock import Log
from tests.unit.box.conftest import hold

DONE = {"operation": "Base | Install git", "outcome": "changed", "says": ["install git"]}


def told(folder: Path, *lines: Any, rest: str = "") -> tuple[list[dict[str, Any]], str]:
    """The log after a run that told these lines and then ended, and what was answered."""
    process, answer = hold(folder, "anna@desk")
    assert answer == {"held": True}
    words = "".join(json.dumps(line) + "\n" for line in lines) + rest
    said, _ = process.communicate(words, timeout=10)
    assert process.returncode == 0
    path = folder / "log" / "changes.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines()], said


def test_every_line_tells_by_itself_who_changed_what_and_when(tmp_path: Path) -> None:
    lines, said = told(tmp_path, {"begun": "Base"}, {"done": DONE}, {"end": "changed"})
    assert said == ""
    assert [line.pop("time")[10:].count(":") for line in lines] == [2, 2]
    run = {"run": "7", "who": "anna@desk"}
    assert lines == [run | DONE, run | {"outcome": "changed"}]
    log = tmp_path / "log" / "changes.jsonl"
    assert log.stat().st_mode & 0o777 == 0o644
    assert log.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("lines", [[], [{"end": "unchanged"}]])
def test_a_run_that_changes_nothing_leaves_no_line(tmp_path: Path, lines: list[Any]) -> None:
    assert told(tmp_path, *lines) == ([], "")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("lines", "rest", "last"),
    [
        ([{"done": DONE}], "", {"outcome": "cut"}),
        ([{"done": DONE}], '{"done": {"oper', {"outcome": "cut"}),
        # Nothing else tells that it had begun to change the box.
        ([{"begun": "ROCm"}], "", {"operation": "ROCm", "outcome": "cut"}),
    ],
)
def test_a_run_that_tells_no_end_was_cut(
    tmp_path: Path, lines: list[Any], rest: str, last: dict[str, str]
) -> None:
    logged, _ = told(tmp_path, *lines, rest=rest)
    assert logged[-1].items() >= last.items()
    assert ("operation" in logged[-1]) == ("operation" in last)
    assert sum(line["outcome"] == "cut" for line in logged) == 1


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    path.write_text('{"time": "2026-')
    log = Log(str(path), {})
    log.add({"a": 1})
    log.add({"b": 2})
    first, *others = path.read_text().splitlines()
    assert first == '{"time": "2026-'
    assert [json.loads(line).get(key) for line, key in zip(others, "ab", strict=True)] == [1, 2]


def test_a_log_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the directory shall be")
    lines, said = told(tmp_path, {"done": DONE}, {"done": DONE}, {"end": "changed"})
    assert lines == []
    assert [json.loads(line) for line in said.splitlines()] == [{"unlogged": "File exists"}]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    # A file that may not grow is written in part, as on a disk that runs full.
    limit = ["prlimit", "--fsize=100:100", "--"]
    program = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from strixbox.box.hold_lock import Log\n"
        f"Log({str(tmp_path / 'changes.jsonl')!r}, {{}}).add({{'says': 'x' * 200}})"
    )
    answer = subprocess.run(
        [*limit, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == {"unlogged": "No space left on device"}
