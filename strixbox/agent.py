"""The other end of strixbox/box/agent.py: one channel to a box, for as long as the run lasts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from paramiko import Channel, SSHException, Transport
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.connectors.util import make_unix_command_for_host

from strixbox.programs import PYTHON, SETTLED, Question, source

# Seconds that the end of a run waits for what a box has to say yet.
LAST_WORDS = 5
AHEAD = 400_000  # bytes; the windows of ssh's channels take 2 MiB each way
GONE = (OSError, EOFError, SSHException)

# By box. One that has none is asked by a command a question, as pyinfra asks.
AGENTS: dict[str, Agent] = {}


class NoAgent(Exception):
    """The agent did not start; the box's words."""


class Agent:
    """Asks a box, tells it, and hears what it says."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.lines = channel.makefile("rb")
        self.gone = False  # and with it the lock
        self.known: set[str] = set()  # programs whose text the box has
        self.asked = 0
        self.early: dict[int, dict[str, Any] | None] = {}  # asked ahead: the answer, if it is here
        self.words: list[dict[str, Any]] = []  # what it said of itself

    @classmethod
    def start(cls, host: Host, transport: Transport) -> Agent:
        """Start the agent as root, by the box's connection.

        Raises:
            NoAgent: where it does not start: no sudo without a password, or no python3.
        """
        words = (*PYTHON, source("agent"))
        command = StringCommand(SETTLED, "exec", *(QuoteString(word) for word in words))
        line = make_unix_command_for_host(host.state, host, command, _sudo=True).get_raw_value()
        try:
            channel = transport.open_session()
            # In the place of the login shell: what that was started with may hold sudo's password.
            channel.exec_command(f"exec {line}")
            agent = cls(channel)
            for text in agent.lines:
                if b'"agent"' in text:  # and no word of the account's .bashrc
                    return agent
            raise NoAgent("\n".join(agent.errors()))
        except GONE as error:
            raise NoAgent(f"the connection ended: {error or type(error).__name__}") from None

    def lives(self) -> bool:
        """Whether it holds the lock, as far as is known here: it is not asked."""
        return not (self.gone or self.channel.closed or self.channel.exit_status_ready())

    def tell(self, **line: Any) -> None:
        """Send one line.

        Raises:
            EOFError: where the channel takes no more; paramiko's sendall (4.0) would try for ever.
        """
        self._send(json.dumps(line).encode() + b"\n")

    def _send(self, data: bytes) -> None:
        while data:
            sent = self.channel.send(data)
            if not sent:
                raise EOFError
            data = data[sent:]

    def errors(self) -> list[str]:
        """What it said before it ended."""
        text: bytes = self.channel.makefile_stderr("rb").read()
        return text.decode(errors="replace").splitlines()

    def hear(self) -> dict[str, Any]:
        """The next line of the box."""
        line = self.lines.readline()
        if not line.endswith(b"\n"):  # it may end in the middle of an answer
            raise EOFError
        told: dict[str, Any] = json.loads(line)
        return told

    def ask(self, question: Question) -> str | None:
        """What the question's program prints; None where it fails, or the agent is gone."""
        try:
            self._send(self._line(question))
            return self._await(self.asked)
        except GONE:
            self.gone = True
            return None

    def ask_ahead(self, questions: Iterable[Question]) -> list[int]:
        """Ask without waiting; each one's number, by which ``heard`` has its answer.

        No more of them than the channel takes while nobody reads the answers.
        """
        numbers, data = [], b""
        for question in questions:
            if len(data) > AHEAD:
                break
            data += self._line(question)
            numbers.append(self.asked)
        self.early |= dict.fromkeys(numbers)
        with suppress(*GONE):  # which the next question tells of
            self._send(data)
        return numbers

    def heard(self, number: int) -> str | None:
        """The answer to what was asked ahead; None where there is none."""
        try:
            return self._await(number)
        except GONE:
            self.gone = True
            return None

    def drop(self) -> None:
        """What was asked ahead is not wanted any more."""
        if self.early:
            self.early = {}
            with suppress(*GONE):
                self.tell(drop=True)

    def _line(self, question: Question) -> bytes:
        self.asked += 1
        name = question.program
        text = {} if name in self.known else {"source": source(name)}
        self.known.add(name)
        line = {"id": self.asked, "program": name, "query": question.query} | text
        return json.dumps(line).encode() + b"\n"

    def _await(self, number: int) -> str | None:
        told = self.early.pop(number, None)
        while told is None:
            line = self.hear()
            if "id" not in line:
                self.words.append(line)
            elif line["id"] == number:
                told = line
            elif line["id"] in self.early:
                self.early[line["id"]] = line
        return str(told["out"]) if told["code"] == 0 else None

    def last_words(self) -> Iterable[dict[str, Any]]:
        """Say that nothing follows, and hear what the box has said of itself besides answers."""
        self.channel.shutdown_write()
        self.channel.settimeout(LAST_WORDS)
        return [*self.words, *(json.loads(line) for line in self.lines)]
