"""What a run changes, told to the box's own log (strixbox/box/agent.py) while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from strixbox.agent import GONE

# The log can be read by every account of the box: no password of a URL, whoever said it.
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


class Journal:
    """One box: gathers what the operation under way says, and tells what it came to.

    Nothing waits for the box before the run ends.

    + tell: sends a line to the box's agent
    + last_words: tells it that nothing follows, and reads what it has said besides answers
    """

    def __init__(
        self, tell: Callable[..., object], last_words: Callable[[], Iterable[dict[str, Any]]]
    ) -> None:
        self.tell = tell
        self.last_words = last_words
        self.operation = ""
        self.says: list[str] = []
        self.changes = False  # whether the operation under way has changed anything
        self.told = False  # whether anything was told
        self.lost = False  # whether something could not be told

    def start(self, operation: str) -> None:
        """An operation begins; most of them change nothing."""
        self.operation = operation
        self.says = []
        self.changes = False

    def say(self, text: str) -> None:
        """The operation says what it changes."""
        self.says.append(_LOGIN.sub("", text))

    def begin(self) -> None:
        """The operation is about to change the box."""
        if not self.changes:
            self.changes = True
            self._tell(begun=self.operation)

    def stop(self, seconds: float, outcome: str) -> None:
        """The operation ended: ``changed`` where it began to change anything, or did not end well.

        + outcome: changed, failed or interrupted
        """
        if self.changes or outcome != "changed":
            entry = {"operation": self.operation, "outcome": outcome, "says": self.says}
            self._tell(done=entry | {"seconds": round(seconds, 3)})

    def end(self, outcome: str) -> str | None:
        """The run ended; why its changes are not in the box's log, None where they are."""
        if not self.told:
            return None
        self._tell(end=outcome)
        try:
            words = [str(w["unlogged"]) for w in self.last_words() if "unlogged" in w]
        except GONE:
            self.lost = True
        else:
            if words:
                return words[0]
        return "the connection ended" if self.lost else None

    def _tell(self, **line: Any) -> None:
        self.told = True
        try:
            self.tell(**line)
        except GONE:  # which ends the operation that asks next
            self.lost = True


# By box, of those whose changes are logged.
JOURNALS: dict[str, Journal] = {}


def say(box: str, text: str) -> None:
    """The operation under way on a box says what it changes."""
    if box in JOURNALS:
        JOURNALS[box].say(text)


def begin(box: str) -> None:
    """The operation under way on a box is about to change it."""
    if box in JOURNALS:
        JOURNALS[box].begin()
