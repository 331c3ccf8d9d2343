"""The agent: its answers, and what it writes into the box's log of changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strixbox.box.agent import Log
from strixbox.programs import source
from tests.box.conftest import agent, hear, hold, tell

# Answers with the query; what it is told to do besides shows that a question is alone with itself.
PROGRAM = """
from __future__ import annotations
import json, os, signal, sys, time
query = json.loads(sys.argv[1])
print(json.dumps(query | {"umask": oct(os.umask(0)), "name": __name__}))
if "start" in query:
    import subprocess
    subprocess.Popen(["sleep", "60.125"])
if "exit" in query:
    sys.exit(query["exit"])
if "crash" in query:
    os.kill(os.getpid(), signal.SIGSEGV)
if "user" in query:
    os.setuid(65534)
if "sleep" in query:
    time.sleep(query["sleep"])
if "raise" in query:
    raise ValueError(query["raise"])
"""

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


def test_an_end_in_the_middle_of_an_operation_names_it(tmp_path: Path) -> None:
    lines, _ = told(tmp_path, {"done": DONE}, {"begun": "ROCm"}, {"end": "interrupted"})
    assert lines[-1]["operation"] == "ROCm"
    assert [line["outcome"] for line in lines] == ["changed", "interrupted"]


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
        "from strixbox.box.agent import Log\n"
        f"Log({str(tmp_path / 'changes.jsonl')!r}, {{}}).add({{'says': 'x' * 200}})"
    )
    answer = subprocess.run(
        [*limit, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == {"unlogged": "No space left on device"}


@pytest.fixture
def answering() -> Iterator[subprocess.Popen[str]]:
    """An agent that knows the program."""
    process = agent()
    ask(process, 0, text=PROGRAM)
    assert hear(process)["code"] == 0
    yield process
    process.kill()
    process.communicate(timeout=10)


def ask(process: subprocess.Popen[str], number: int, text: str = "", **query: Any) -> None:
    """Ask the agent."""
    sent = {"source": text} if text else {}
    tell(process, id=number, program="echo", query=json.dumps(query), **sent)


def test_a_question_is_answered_as_by_a_python_of_its_own(
    answering: subprocess.Popen[str],
) -> None:
    umask = os.umask(0)
    os.umask(umask)
    large = "ü" * 200_000
    for number, word in enumerate(("one", "two", large), start=1):
        ask(answering, number, word=word)
        told = hear(answering)
        said = {"word": word, "umask": oct(umask), "name": "__main__"}
        assert (told["id"], told["code"], told["err"]) == (number, 0, "")
        assert json.loads(told["out"]) == said


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ({"exit": None}, 0, ""),
        ({"exit": 3}, 3, ""),
        ({"exit": "the sentence"}, 1, "the sentence\n"),
        ({"raise": "damaged"}, 1, "ValueError: damaged\n"),
        ({"crash": True}, -signal.SIGSEGV, ""),
    ],
)
def test_what_becomes_of_a_question_is_told_and_harms_no_other(
    answering: subprocess.Popen[str], query: dict[str, Any], code: int, words: str
) -> None:
    ask(answering, 1, **query)
    told = hear(answering)
    assert told["code"] == code
    assert told["err"].endswith(words)
    ask(answering, 2, word="next")
    assert hear(answering)["code"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_an_account_that_a_question_works_as_is_its_own(
    answering: subprocess.Popen[str],
) -> None:
    for number in (1, 2):
        ask(answering, number, user="nobody")
        assert hear(answering)["code"] == 0


def test_questions_are_answered_in_turn(answering: subprocess.Popen[str]) -> None:
    ask(answering, 1, sleep=0.5)
    ask(answering, 2, crash=True)
    ask(answering, 3, exit=3)
    ask(answering, 4, word="last")
    told = [hear(answering) for _ in range(4)]
    assert [line["id"] for line in told] == [1, 2, 3, 4]
    assert [line["code"] for line in told] == [0, -signal.SIGSEGV, 3, 0]


def test_what_a_dead_question_started_ends_with_it(
    answering: subprocess.Popen[str],
) -> None:
    ask(answering, 1, start=60, crash=True)
    told = hear(answering)
    assert told["code"] == -signal.SIGSEGV
    ask(answering, 2)
    assert hear(answering)["code"] == 0
    begin = time.monotonic()
    while subprocess.run(["pgrep", "-f", "^sleep 60.125"], check=False).returncode == 0:
        assert time.monotonic() - begin < 10  # it was killed, and ends when it is its turn
        time.sleep(0.01)


def children(pid: int) -> list[str]:
    """Processes that a process has started and that live."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_an_agent_whose_directory_is_gone_answers(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", source("agent")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=gone,
    )
    assert hear(process) == {"agent": 1}
    gone.rmdir()
    for number in (1, 2):
        ask(process, number, text=PROGRAM, word="here")
        assert hear(process)["code"] == 0
    process.communicate(timeout=10)


def test_a_question_under_way_neither_outlives_the_channel_nor_keeps_the_lock(
    tmp_path: Path,
) -> None:
    first, _ = hold(tmp_path, "anna")
    ask(first, 0, text=PROGRAM, sleep=60)
    ask(first, 1, sleep=60)
    time.sleep(0.2)
    first.kill()  # not even the chance to end them
    first.wait(10)
    second, said = hold(tmp_path, "berta")
    assert said == {"held": True}
    ask(second, 0, text=PROGRAM, sleep=60)
    time.sleep(0.2)
    begin = time.monotonic()
    workers = children(second.pid)
    assert len(workers) == 1
    second.communicate(timeout=10)
    assert second.returncode == 0
    while Path(f"/proc/{workers[0]}/cmdline").exists():  # until it is reaped
        assert time.monotonic() - begin < 10
        time.sleep(0.01)
