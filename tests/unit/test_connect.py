"""What a run that cannot hold a box says, and that the other boxes go on."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gevent import GreenletExit
from paramiko import SSHException
from pyinfra.context import ctx_host, ctx_state

from strixbox import connect, lost
from strixbox.agent import AGENTS, Agent, NoAgent
from strixbox.answers import ANSWERS
from strixbox.facts import UserNodes
from strixbox.lost import LOST, watch, why_lost
from strixbox.operations import base
from strixbox.operations.base import REFUSED, ask_early
from strixbox.programs import CONNECTION_ENDED


class Transport:
    """Stands in for paramiko's: a connection that is there for a number of questions."""

    sock = None

    def __init__(self, active: int) -> None:
        self.active = active

    def is_active(self) -> bool:
        """Whether it is there, asked once more."""
        self.active -= 1
        return self.active >= 0

    def set_keepalive(self, seconds: int) -> None:
        """Nothing to keep alive."""


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The box that a run is about to hold; nobody of it ever answers."""

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise SSHException("SSH session not active")

    def no_agent(*args: Any) -> Any:
        raise NoAgent("the connection ended")

    monkeypatch.setattr(Agent, "start", no_agent)
    host = SimpleNamespace(
        name="halo1",
        data=SimpleNamespace(ssh_user="anna"),
        connector=SimpleNamespace(),
        print_prefix="[halo1] ",
        run_shell_command=gone,
        get_fact=gone,
        state=SimpleNamespace(print_fact_input=False),
    )
    failed: set[Any] = set()
    state = SimpleNamespace(
        inventory=SimpleNamespace(get_host=lambda name: name), fail_hosts=failed.update
    )
    host.failed = failed
    with ctx_host.use(host), ctx_state.use(state):
        yield host
    for registry in (AGENTS, ANSWERS, LOST, REFUSED, lost._ALIVE):
        registry.pop("halo1", None)


@pytest.mark.parametrize("questions", [0, 1, 2])
def test_a_connection_that_ends_while_the_agent_starts_is_told_as_that(
    box: Any, questions: int
) -> None:
    box.connector.client = SimpleNamespace(get_transport=lambda: Transport(questions))
    told = connect.hold_box("12:00:00 UTC", locked=True)
    assert told == CONNECTION_ENDED


def test_sudo_without_a_terminal_is_told_where_the_connection_is_there(box: Any) -> None:
    box.connector.client = SimpleNamespace(get_transport=lambda: Transport(99))
    told = connect.hold_box("12:00:00 UTC", locked=True)
    assert "sudo does not let anna become root" in str(told)


def test_a_box_that_is_not_held_is_let_go(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    agent = SimpleNamespace(
        channel=SimpleNamespace(close=lambda: closed.append(True)),
        drop=lambda: None,
        lives=lambda: True,
    )
    monkeypatch.setattr(Agent, "start", lambda *args: agent)
    monkeypatch.setattr(connect, "take_lock", lambda *args: "another run works on this box")
    box.connector.client = SimpleNamespace(get_transport=lambda: Transport(99))
    assert connect.hold_box("12:00:00 UTC", locked=True) == "another run works on this box"
    assert closed == [True]
    assert "halo1" not in AGENTS


def test_what_is_asked_before_the_first_operation_fails_its_own_box_alone(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GreenletExit):
        ask_early(UserNodes, directory="/x", user="anna")
    assert box.failed == {"halo1"}
    assert "did not answer the question UserNodes" in REFUSED["halo1"]


def test_nothing_is_asked_or_run_once_the_agent_has_ended(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = [True]
    watch("halo1", lambda: alive[0])
    assert why_lost("halo1") is None
    alive[0] = False
    assert "its agent ended, and with it the run's lock" in str(why_lost("halo1"))
    with pytest.raises(base.BoxTrouble, match="Nothing more was done on this box"):
        base.ask(UserNodes, directory="/x", user="anna")
