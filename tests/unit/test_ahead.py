"""Questions of the last run, asked at once by the next one, of an agent on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from strixbox import agent as agent_module
from strixbox import ahead, answers
from strixbox.agent import AGENTS, Agent
from strixbox.answers import ANSWERS, Answers
from strixbox.facts import FileStates, FileText, Service, UserNodes
from strixbox.operations import base
from strixbox.operations.base import ask, ask_early
from tests.box.conftest import ME
from tests.box.conftest import agent as started
from tests.unit.test_agent import Pipes

BOX = "halo1"


class Counting(Agent):
    """Counts the times that an answer was waited for, beside those that were asked ahead."""

    waited = 0

    def ask(self, question: Any) -> str | None:
        """Ask and wait."""
        self.waited += 1
        return super().ask(question)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counting]:
    """The agent of a box, whose questions are kept below tmp_path."""
    process = started()
    made = Counting(Pipes(process))  # type: ignore[arg-type]
    state = SimpleNamespace(print_fact_input=False)
    monkeypatch.setattr(base, "host", SimpleNamespace(name=BOX, state=state))
    monkeypatch.setattr(ahead, "ROOT", tmp_path)
    monkeypatch.setitem(AGENTS, BOX, made)
    monkeypatch.setitem(ANSWERS, BOX, Answers(made.drop))
    yield made
    process.kill()
    process.wait(10)


def run(agent: Counting, *paths: str) -> list[Any]:
    """What a run asks; ``agent.waited`` then has how many of it were waited for."""
    agent.waited = 0
    ANSWERS[BOX] = Answers(agent.drop)
    ahead.ask_ahead("deploy", BOX)
    told: list[Any] = [ask(FileText, path=paths[0])]
    told += [ask(FileStates, paths=(path,), content=True)[path]["kind"] for path in paths]
    return told


def test_what_the_last_run_asked_is_not_waited_for_one_by_one(
    agent: Counting, tmp_path: Path
) -> None:
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    Path(one).write_text("text")
    assert run(agent, one, two) == ["text", "file", "absent"]
    assert agent.waited == 3
    ahead.remember("deploy", BOX)
    kept = tmp_path / "runs" / "asked" / "deploy" / f"{BOX}.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "text" not in [row["query"] for row in json.loads(kept.read_text())]
    # The box as it is now, also where it has changed since.
    Path(one).write_text("changed")
    Path(two).mkdir()
    assert run(agent, one, two) == ["changed", "file", "directory"]
    assert agent.waited == 0
    # What nobody thought of is asked as always; what nobody asks is not in the way.
    assert run(agent, two, three)[1:] == ["directory", "absent"]
    assert agent.waited == 2


def test_a_command_has_all_of_it_asked_anew(agent: Counting, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    run(agent, path)
    ahead.remember("deploy", BOX)
    ANSWERS[BOX] = Answers(agent.drop)
    ahead.ask_ahead("deploy", BOX)
    Path(path).write_text("written by a command")
    answers.forget(BOX)
    assert ask(FileText, path=path) == "written by a command"
    assert agent.waited == 3
    assert agent.early == {}


def test_no_more_is_asked_than_the_channel_takes(
    agent: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    run(agent, *paths)
    ahead.remember("deploy", BOX)
    monkeypatch.setattr(agent_module, "AHEAD", 10)
    run(agent, *paths)
    assert agent.waited == 3  # the first question alone was asked ahead


def test_an_answer_is_as_old_as_its_question(
    agent: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    path = str(tmp_path / "file")
    run(agent, path)
    ahead.remember("deploy", BOX)
    for late, waited in ((answers.FRESH - 1, 0), (answers.FRESH, 2)):
        agent.waited = 0
        ANSWERS[BOX] = Answers(agent.drop)
        ahead.ask_ahead("deploy", BOX)
        now[0] += late
        ask(FileText, path=path)
        ask(FileStates, paths=(path,), content=True)
        assert agent.waited == waited


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "7",
        "null",
        "[" * 100_000,
        '[{"fact": "FileStates", "query": "{\\"content\\": true}", "words": [["a"], {}]}]',
        json.dumps([{"fact": "FileText", "query": "[" * 100_000, "words": []}]),
        '[{"fact": "NoFact", "query": "{}", "words": []}]',
        '[{"fact": "FileText", "query": "{", "words": []}]',
        '[{"fact": "FileText", "query": "{\\"of\\": 1}", "words": []}]',
        '[{"fact": "FileStates", "query": "[]", "words": 7}]',
    ],
)
def test_a_file_that_makes_no_sense_asks_nothing(
    agent: Counting, tmp_path: Path, text: str
) -> None:
    kept = tmp_path / "runs" / "asked" / "deploy" / f"{BOX}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    path = str(tmp_path / "none")
    assert run(agent, path) == ["", "absent"]
    assert agent.waited == 2
    ahead.remember("deploy", BOX)
    run(agent, path)
    assert agent.waited == 0


def test_an_answer_that_fails_is_asked_for_again(
    agent: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path)
    ahead._path("deploy", BOX).parent.mkdir(parents=True)
    rows = [  # no path holds a zero byte; the next question is answered by another worker
        {"fact": "FileStates", "query": json.dumps({"content": True}), "words": ["\0"]},
        {"fact": "FileStates", "query": json.dumps({"content": False}), "words": [folder]},
    ]
    ahead._path("deploy", BOX).write_text(json.dumps(rows))
    ahead.ask_ahead("deploy", BOX)
    assert ask(FileStates, paths=(folder,), content=False)[folder]["kind"] == "directory"
    assert agent.waited == 0
    told = {"\0": {"kind": "absent"}}  # by pyinfra, which tells the box's words where it fails
    monkeypatch.setattr(f"{base.__name__}.host.get_fact", lambda *_, **__: told, raising=False)
    assert ask(FileStates, paths=("\0",), content=True) == told
    assert agent.waited == 1


def test_what_is_asked_while_planning_is_asked_ahead_too(agent: Counting, tmp_path: Path) -> None:
    query = {"directory": str(tmp_path), "user": ME}
    assert ask_early(UserNodes, **query) == {}
    ahead.remember("deploy", BOX)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "requirements.txt").write_text("torch\n")
    ANSWERS[BOX] = Answers(agent.drop)
    ahead.ask_ahead("deploy", BOX)
    agent.waited = 0
    assert [*ask_early(UserNodes, **query)] == ["node"]
    assert agent.waited == 0


def test_what_waits_for_something_is_asked_when_there_is_need(agent: Counting) -> None:
    query = {"service": "none.service", "url": "http://127.0.0.1:1/", "current": "/none"}
    query |= {"in_use": "/none", "releases": "/none", "generations": "/none"}
    for patience in (0, 60):
        key = (Service, json.dumps(query | {"patience": patience}, sort_keys=True))
        ANSWERS[BOX].asked[key] = {}
    assert ask(FileStates, paths=(), content=True) == {}
    ahead.remember("deploy", BOX)
    rows = json.loads(ahead._path("deploy", BOX).read_text())
    assert [json.loads(row["query"])["patience"] for row in rows] == [0]


def test_questions_that_cannot_be_kept_stop_nothing(agent: Counting, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the directory shall be")
    assert run(agent, str(tmp_path / "none")) == ["", "absent"]
    ahead.remember("deploy", BOX)
    assert run(agent, str(tmp_path / "none")) == ["", "absent"]


def test_a_name_of_a_box_is_no_path(agent: Counting, tmp_path: Path) -> None:
    assert ahead._path("deploy", "../../x").parent == tmp_path / "runs" / "asked" / "deploy"
