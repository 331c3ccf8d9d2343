"""The controller's end of the agent, over pipes instead of a channel, and what is remembered."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import FactBase
from pyinfra.connectors.util import CommandOutput

from strixbox import answers, lost
from strixbox.agent import AGENTS, Agent
from strixbox.answers import ANSWERS, Answers
from strixbox.facts import Account, FileStates, FileText, Seal
from strixbox.operations import base
from strixbox.operations.base import BoxTrouble, ask
from strixbox.programs import Run, read
from tests.box.conftest import agent as started


class Pipes:
    """What Agent needs of paramiko's channel."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.closed = False

    def makefile(self, mode: str) -> Any:
        """What is received."""
        assert isinstance(self.process.stdout, io.TextIOWrapper)
        return self.process.stdout.buffer

    def send(self, data: bytes) -> int:
        """Send, a piece at a time."""
        if self.closed:
            return 0
        assert self.process.stdin
        piece = data[:5000]
        self.process.stdin.write(piece.decode())
        self.process.stdin.flush()
        return len(piece)

    def shutdown_write(self) -> None:
        """Nothing follows."""
        assert self.process.stdin
        self.process.stdin.close()

    def settimeout(self, seconds: float) -> None:
        """Pipes are quick."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent on this machine."""
    process = started()
    yield Agent(Pipes(process))  # type: ignore[arg-type]
    process.kill()
    process.wait(10)


def test_a_channel_that_takes_no_more_is_not_tried_for_ever(agent: Agent) -> None:
    agent.channel.closed = True
    assert agent.ask(read("file_states", {"paths": ["/none"]})) is None


def test_a_program_is_sent_once_and_answers_every_question(agent: Agent) -> None:
    for path in ("/etc/passwd", "/none"):
        text = agent.ask(read("file_states", {"paths": [path]}))
        assert text
        assert path in text
    assert agent.known == {"file_states"}


def test_without_an_answer_none_is_made_up(agent: Agent) -> None:
    assert agent.ask(read("file_states", {"no": "paths"})) is None
    assert agent.ask(read("file_text", {"path": "/none"})) == '""\n'
    agent.channel.process.kill()  # type: ignore[attr-defined]
    agent.channel.process.wait()  # type: ignore[attr-defined]
    assert agent.ask(read("file_text", {"path": "/none"})) is None
    assert agent.ask(read("file_text", {"path": "/none"})) is None


def test_what_it_says_besides_answers_is_heard_at_the_end(agent: Agent) -> None:
    agent.tell(log="/proc/none/changes.jsonl", about={})
    agent.tell(done={"operation": "x"})
    assert agent.ask(read("file_text", {"path": "/none"})) == '""\n'
    agent.tell(end="changed")
    assert [word for word in agent.last_words() if "unlogged" in word]


class Box:
    """pyinfra's host, which asks in its own way where the agent has no answer."""

    name = "halo1"
    state = SimpleNamespace(print_fact_input=False)

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[type[FactBase[Any]]] = []

    def get_fact(self, fact: type[FactBase[Any]], **query: Any) -> Any:
        """The answer that the test gave."""
        self.asked.append(fact)
        return self.answer


class Counted:
    """An agent whose answers say how often it was asked."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def ask(self, question: Any) -> str:
        """A table of what is asked about, or a number."""
        self.queries.append(question.query)
        if question.program != "file_states":
            return str(len(self.queries))
        paths = json.loads(question.query)["paths"]
        entries = (f'"{path}": {{"kind": "{len(self.queries)}"}}' for path in paths)
        return "{" + ", ".join(entries) + "}"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A box that is asked by an agent, and whose answers are remembered."""
    made = Counted()
    monkeypatch.setattr(base, "host", Box())
    monkeypatch.setitem(AGENTS, "halo1", made)
    monkeypatch.setitem(ANSWERS, "halo1", Answers())
    return made


def seal(path: str = "/r") -> Any:
    """Ask for a seal, which the stand-in answers with a number."""
    return ask(Seal, path=path)


def test_nothing_is_asked_twice_until_a_command_is_run(counted: Counted) -> None:
    assert seal() == seal() == 1
    assert seal("/other") == 2
    ask(FileText, path="/r")
    assert ask(FileStates, paths=("/a", "/b")) == {"/a": {"kind": "4"}, "/b": {"kind": "4"}}
    # Of a table, only what is not known yet.
    assert ask(FileStates, paths=("/b", "/c")) == {"/b": {"kind": "4"}, "/c": {"kind": "5"}}
    assert json.loads(counted.queries[-1])["paths"] == ["/c"]
    state = SimpleNamespace(print_output=False, print_input=False)
    box = SimpleNamespace(
        name="halo1", run_shell_command=lambda *_, **__: (True, CommandOutput([]))
    )
    Run("true", mend="").execute(state, box, {})  # type: ignore[arg-type]
    assert seal() == 6
    assert ask(FileStates, paths=("/b",)) == {"/b": {"kind": "7"}}


def test_an_answer_grows_old(monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    now = [100.0]
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert seal() == 1
    now[0] += answers.FRESH - 1
    assert seal() == 1
    now[0] += 1
    assert seal() == 2


def test_nothing_is_remembered_of_a_box_whose_commands_are_not_heard_of(
    monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    monkeypatch.delitem(ANSWERS, "halo1")
    assert [seal() for _ in range(2)] == [1, 2]


def test_where_the_agent_has_no_answer_pyinfra_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box({"home": "/home/anna"})
    monkeypatch.setattr(base, "host", box)
    silent = SimpleNamespace(ask=lambda question: None, gone=False)
    monkeypatch.setitem(AGENTS, "halo1", silent)
    assert ask(Account, user="anna") == {"home": "/home/anna"}
    box.answer = None  # and has told why
    with pytest.raises(BoxTrouble, match="did not answer the question Account"):
        ask(Account, user="anna")
    assert box.asked == [Account, Account]


def test_nothing_more_is_done_on_a_box_whose_agent_ended(
    monkeypatch: pytest.MonkeyPatch, agent: Agent
) -> None:
    box = Box({"home": "/home/anna"})
    monkeypatch.setattr(base, "host", box)
    known: dict[str, str] = {}
    monkeypatch.setattr(base, "LOST", known)
    monkeypatch.setattr(lost, "LOST", known)
    monkeypatch.setitem(AGENTS, "halo1", agent)
    agent.channel.process.kill()  # type: ignore[attr-defined]
    agent.channel.process.wait()  # type: ignore[attr-defined]
    # Whoever took the lock since may be at work: what is known is told, and no more is done.
    ask(Account, user="anna")
    with pytest.raises(BoxTrouble, match="its agent ended, and with it the run's lock"):
        ask(Account, user="anna")
    ok, said = Run("true", mend="").execute(SimpleNamespace(), box, {})  # type: ignore[arg-type]
    assert not ok
    assert "Nothing more was done on this box" in said.stderr


def test_half_an_answer_is_none(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "lines", io.BytesIO(b'{"id": 1, "co'))
    assert agent.ask(read("file_text", {"path": "/none"})) is None
    assert agent.gone


def test_a_last_box_without_an_answer_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> None:
        raise PyinfraError("No hosts remaining!")

    box = Box()
    monkeypatch.setattr(box, "get_fact", nobody)
    monkeypatch.setattr(base, "host", box)
    with pytest.raises(BoxTrouble, match="did not answer the question Account"):
        ask(Account, user="anna")


def test_commands_that_shall_be_seen_are_run(
    monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    box = Box("seal")
    box.state = SimpleNamespace(print_fact_input=True)  # -vv
    monkeypatch.setattr(base, "host", box)
    assert seal() == "seal"
    assert counted.queries == []
