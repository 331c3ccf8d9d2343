"""Commands that run a program of ``strixbox/box`` on the box.

The programs are ordinary tested Python (standard library only). They are sent with the command, so
a bare box can be asked before anything has been put on it, and the box never runs an older copy.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from paramiko import SSHException
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

from strixbox.answers import forget
from strixbox.layout import RUN, WRITING
from strixbox.lost import why_lost

if TYPE_CHECKING:
    from pyinfra.api.arguments import ConnectorArguments
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

# One argument of execve is at most 128 KiB (MAX_ARG_STRLEN), and `sh -c` gets all in one.
QUERY_LIMIT = 90_000
# A full disk in the words of dpkg, pip, uv, git and Python, and in those of apt.
FULL = (os.strerror(errno.ENOSPC), "enough free space in")
# The mend of a command that only makes, marks or removes something.
UNWRITTEN = (
    "The words above say why: free disk room, or see dmesg for a disk that fails or was made"
    " read-only, then run again."
)
CONNECTION_ENDED = "the connection to the box ended; see that it is on and reached, then run again"
# What goes before every command that is sent, in the shell that pyinfra starts it with:
# - a umask of the box's root (login.defs, sudoers) of 027 or 077 would hide from the service's
#   account what root installs for it;
# - in another language dpkg's and apt's words could not be read, and with another character set
#   neither could names;
# - what writes holds a lock of its own for as long as it or a child of it lives, so that the next
#   run notices work that went on after its connection was cut (strixbox/box/agent.py).
SETTLED = "umask 022; export LC_ALL=C.UTF-8;"
HELD = (
    f"test -d {RUN} || mkdir -m 711 {RUN}; umask 077; : >> {WRITING}; {SETTLED}"
    f" exec flock --shared {WRITING}"
)


# A program is sent alone: the parts that several have in common are written into each.
PART = re.compile(r"^from strixbox\.box\.(_\w+) import .*\n", re.MULTILINE)
# Isolated: nothing of the environment's, of the account's, or of the current directory is imported.
PYTHON = ("python3", "-I", "-c")


class Run(StringCommand):
    """A command of plain words that says, when it fails, what to do next.

    Every word is quoted. ``live`` shows the output while it runs, for work that takes long.
    """

    def __init__(
        self, *words: str, mend: str, stdin: str | None = None, live: bool = False
    ) -> None:
        super().__init__(*(QuoteString(word) for word in words))
        if stdin is not None:
            self.connector_arguments["_stdin"] = stdin
        self.mend = mend
        self.live = live

    def execute(
        self, state: State, host: Host, connector_arguments: ConnectorArguments
    ) -> tuple[bool, CommandOutput]:
        """Run it; on failure the mend is the last line of the error output.

        Nothing is run where the box's lock is lost: another run may work there by now.
        """
        lost = why_lost(host.name)
        if lost is not None:
            told = f"Nothing more was done on this box: {lost}."
            return False, CommandOutput([OutputLine("stderr", told)])
        connector_arguments.update(self.connector_arguments)
        forget(host.name)
        try:
            status, output = host.run_shell_command(
                StringCommand(HELD, self),
                print_output=state.print_output or self.live,
                print_input=state.print_input,
                **connector_arguments,
            )
        except (EOFError, OSError, SSHException) as error:
            # An EOFError would end the run for every box: pyinfra 3.10 does not expect paramiko's.
            told = f"{CONNECTION_ENDED} ({error or type(error).__name__})"
            return False, CommandOutput([OutputLine("stderr", told)])
        mend = self.mend
        said = "\n".join(line.line for line in output.combined_lines)
        if not status and any(words in said for words in FULL):
            mend = "The box's disk is full: free disk room (df -h shows where), then run again."
        if not status and mend:
            output.combined_lines.append(OutputLine("stderr", mend))
        return status, output


class Refusal(StringCommand):
    """Fails the operation on this box alone, with a sentence: what, where, the mend.

    An exception would end the run for every box (pyinfra 3.10 runs operations of all hosts
    together and lets exceptions through).
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("false")
        self.sentence = sentence

    def execute(
        self, state: State, host: Host, connector_arguments: ConnectorArguments
    ) -> tuple[bool, CommandOutput]:
        """Nothing runs; the sentence is the error output."""
        return False, CommandOutput([OutputLine("stderr", self.sentence)])


class Question(StringCommand):
    """A command that runs a program on the box with a query; nothing is changed.

    The agent of the box answers it without a command of its own (strixbox/agent.py).
    """

    def __init__(self, program: str, query: str) -> None:
        # A reader makes files too: git status writes an index.
        super().__init__(SETTLED, "exec", *PYTHON, QuoteString(source(program)), QuoteString(query))
        self.program = program
        self.query = query


class QueryTooLong(ValueError):
    """A question that does not fit into one command; see ``in_parts``."""


@cache
def source(program: str) -> str:
    """Text of ``strixbox/box/<program>.py``, with the parts that it imports in their place."""
    return _whole(program, set())


def _whole(name: str, had: set[str]) -> str:
    """A text with its parts, and theirs, each where it is imported first."""

    def part(found: re.Match[str]) -> str:
        if found.group(1) in had:
            return ""
        had.add(found.group(1))
        # Python wants this line at the top of a file, where the program has it.
        return _whole(found.group(1), had).replace("from __future__ import annotations\n", "", 1)

    return PART.sub(part, _text(name))


def _text(name: str) -> str:
    return files("strixbox.box").joinpath(f"{name}.py").read_text(encoding="utf-8")


def read(program: str, query: Mapping[str, Any]) -> Question:
    """Command that asks the box: the query goes as argument, JSON comes on stdout."""
    text = json.dumps(query, separators=(",", ":"))
    if len(text) > QUERY_LIMIT:
        raise QueryTooLong(f"the query for {program} has {len(text)} bytes; ask in parts")
    return Question(program, text)


def in_parts(words: Sequence[str], limit: int = QUERY_LIMIT // 2) -> list[tuple[str, ...]]:
    """``words`` in runs that each fit into one query, in their order; one run at the least.

    The other half is for what a query holds besides, and for the quotes of shells around it.
    """
    parts: list[list[str]] = [[]]
    length = 0
    for word in words:
        length += len(json.dumps(word)) + 1
        if parts[-1] and length > limit:
            parts.append([])
            length = len(json.dumps(word)) + 1
        parts[-1].append(word)
    return [tuple(part) for part in parts]


def write(
    program: str, order: Mapping[str, Any], *, live: bool = False, python: str = PYTHON[0]
) -> Run:
    """Command that changes the box: the order goes over stdin, out of process lists and logs.

    ``python`` is the system's own, or another of its versions by name.
    """
    words = (python, *PYTHON[1:], source(program))
    return Run(*words, stdin=json.dumps(order), mend="", live=live)


__all__ = [
    *("QUERY_LIMIT", "QueryTooLong", "Question", "Refusal", "Run", "UNWRITTEN"),
    *("in_parts", "read", "source", "write"),
]
