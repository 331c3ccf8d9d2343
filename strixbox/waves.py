"""The canaries first, and the other boxes only where that ended well."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click
from gevent.monkey import get_original

from strixbox.inventory import Boxes

CANARY = "canary"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Outcomes (strixbox/run.py) of a box that verify, the last task of a deploy, found right.
WELL = frozenset({"changed", "unchanged"})
# Nothing is changed by a run with one of these.
_HARMLESS = ("dry", "debug_facts", "debug_operations")


@dataclass(frozen=True)
class Wave:
    """Boxes that are deployed to together."""

    number: int
    name: str
    boxes: Boxes

    @property
    def title(self) -> str:
        """What it is called at its beginning and in its summary."""
        return f"wave {self.number} of 2 ({self.name})"

    @property
    def names(self) -> tuple[str, ...]:
        """Its boxes."""
        return tuple(entry.name for entry in self.boxes.entries)


def plan(boxes: Boxes, words: Mapping[str, Any]) -> tuple[Wave, Wave] | None:
    """The two waves of a run that was called with these words; None where it is not parted.

    Whoever says which boxes are meant (--limit, --exclude) is taken at their word.
    """
    canaries = boxes.groups().get(CANARY, [])
    if not canaries or len(canaries) == len(boxes.entries) or not _changes(words):
        return None
    if words.get("limit") or words.get("exclude"):
        return None
    others = [entry.name for entry in boxes.entries if entry.name not in canaries]
    return Wave(1, CANARY, boxes.only(canaries)), Wave(2, "rest", boxes.only(others))


def _changes(words: Mapping[str, Any]) -> bool:
    if any(words.get(flag) for flag in _HARMLESS):
        return False
    return any(Path(entry).name == "deploy.py" for entry in words.get("operations", ()))


def stop(canary: Wave, rest: Wave, code: int, outcomes: Mapping[str, str]) -> str | None:
    """Why the second wave does not begin, as told to the user; None where it does.

    + code: exit code of the first wave
    + outcomes: what the first wave told of each box; empty where it ended before any was reached
    """
    ill = [name for name in canary.names if outcomes.get(name) not in WELL]
    if code == 0 and not ill:
        return None
    failed = [name for name in ill if outcomes.get(name) == "failed"]
    if code == 130:
        why = f"{canary.title} was interrupted"
    elif failed:
        why = f"{canary.title} failed on {_listed(failed)}"
    elif ill:
        why = f"{canary.title} did not finish on {_listed(ill)}"
    else:
        why = f"{canary.title} ended with {code}"
    many = len(rest.names) != 1
    mend = "" if code in (0, 130) else "mend it and "
    return (
        f"{why}; the other {f'{len(rest.names)} boxes were' if many else 'box was'} left alone"
        f" ({_listed(rest.names)}): {mend}run the same command again, or go on without the"
        f" canaries by --exclude {CANARY} (--limit NAME for one box)"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def part(waves: tuple[Wave, Wave]) -> tuple[Wave, IO[str] | None]:
    """Have a child of this process deploy to the canaries, and this one to the rest after it.

    Returns twice, in the child and then in this process, with the wave that is each one's own and,
    in the child, the pipe that its record goes to. Where the child does not end well, this process
    ends with a sentence and the child's code.

    A copy of this process, and not pyinfra called once more: the words of the command line, the
    folder that --chdir went to, and the passwords that pyinfra has asked for are the same by
    themselves. Neither a connection nor a thread has been made yet.
    """
    canary, rest = waves
    click.echo(
        f"--> {canary.title}: {_listed(canary.names)}; then, where that ends well:"
        f" {_listed(rest.names)}",
        err=True,
    )
    # Files, and not their numbers: of those gevent, with which pyinfra patches os, puts off the
    # closing until its loop runs (26.9), which it does not before there are connections.
    reader, writer = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), "rw", strict=True))
    sys.stdout.flush()
    sys.stderr.flush()
    waiting = _Waiting()
    # A signal that came between the fork and the note of the child would be lost to it.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    waiting.child = os.fork()
    if waiting.child == 0:
        reader.close()
        waiting.over()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return canary, writer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    writer.close()
    code, outcomes = waiting.result(reader)
    sentence = stop(canary, rest, code, outcomes)
    if sentence:
        click.echo(f"\n--> {sentence}.", err=True)
        raise SystemExit(code or 1)
    click.echo(f"\n--> {rest.title}: {_listed(rest.names)}", err=True)
    return rest, None


def _received(reader: IO[str]) -> bytes | None:
    """What there is to read, empty at the end; None after a while without anything.

    Python looks for signals before it waits: one that comes in between is seen when the wait ends.
    """
    # gevent's own select, which pyinfra puts in its place, would run its loop in here.
    wait = get_original("select", "select")
    return os.read(reader.fileno(), 1 << 16) if wait([reader], [], [], 0.2)[0] else None


class _Waiting:
    """Waits for the child; what shall end this process ends the child as well."""

    def __init__(self) -> None:
        self.child = 0
        self.interrupted = False
        self.before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # A terminal's Ctrl-C reaches the child by itself, which takes the first one alone.
        self.interrupted = self.interrupted or number == signal.SIGINT
        with suppress(ProcessLookupError):
            if self.child:
                os.kill(self.child, number)

    def over(self) -> None:
        """Signals are again what they were before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def result(self, reader: IO[str]) -> tuple[int, dict[str, str]]:
        """The child's exit code as a shell gives it, and its boxes' outcomes."""
        text = b""
        with reader:
            while (data := _received(reader)) != b"":
                text += data or b""
        _, status = os.waitpid(self.child, 0)
        self.over()
        code = os.waitstatus_to_exitcode(status)
        code = 130 if self.interrupted else 128 - code if code < 0 else code
        boxes = json.loads(text)["boxes"] if text else {}
        return code, {name: box["outcome"] for name, box in boxes.items()}
