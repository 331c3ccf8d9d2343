"""What the boxes answered, for as long as nothing has changed on them.

Operations ask the same things: what one wants to know, the next looks at once more, and the check
at the end looks at everything. An answer is remembered only within a run, until a command has been
run on its box, and for a few seconds, since what others do to a box is not heard of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

FRESH = 10  # seconds


class Answers:
    """Answers of one box by what was asked.

    + drop: tells whoever asked ahead that nothing of it is wanted any more
    """

    def __init__(self, drop: Callable[[], None] = lambda: None) -> None:
        self._drop = drop
        self._known: dict[Any, tuple[float, Any]] = {}
        # When it was asked for, what waits for it, and of a table the word.
        self._coming: dict[Any, tuple[float, Callable[[], Any], str | None]] = {}
        # All that was asked, in its order; of tables the words too.
        self.asked: dict[Any, dict[str, None]] = {}

    def forget(self) -> None:
        """Something may have changed on the box."""
        self._known.clear()
        self._coming.clear()
        self._drop()

    def expect(self, key: Any, words: tuple[str, ...], hear: Callable[[], Any]) -> None:
        """The answer to ``key`` is under way.

        + words: those that it tells of, where it is a table
        + hear: waits for it; None where it fails
        """
        asked, once = time.monotonic(), cache(hear)
        if words:
            self._coming |= {(key, word): (asked, once, word) for word in words}
        else:
            self._coming[key] = (asked, once, None)

    def get(self, key: Any, ask: Callable[[], Any]) -> Any:
        """The answer to one question, which is asked where it is not known."""
        self.asked.setdefault(key, {})
        self._hear(key)
        if not self._fresh(key):
            self._put(key, ask(), time.monotonic())
        return self._known[key][1]

    def table(
        self, key: Any, words: tuple[str, ...], ask: Callable[[tuple[str, ...]], dict[str, Any]]
    ) -> dict[str, Any]:
        """The answers about ``words``; those that are not known are asked for together."""
        self.asked.setdefault(key, {}).update(dict.fromkeys(words))
        for word in words:  # before their age is told: one may keep the others waiting
            self._hear((key, word))
        missing = tuple(word for word in words if not self._fresh((key, word)))
        if missing:
            for word, answer in ask(missing).items():
                self._put((key, word), answer, time.monotonic())
        return {word: self._known[key, word][1] for word in words}

    def _put(self, key: Any, answer: Any, at: float) -> None:
        self._known[key] = (at, answer)

    def _hear(self, key: Any) -> None:
        if key in self._coming:
            asked, hear, word = self._coming.pop(key)
            answer = hear()
            if answer is not None:
                # As old as its question: the box may have answered at once.
                self._put(key, answer if word is None else answer[word], asked)

    def _fresh(self, key: Any) -> bool:
        return key in self._known and time.monotonic() - self._known[key][0] < FRESH


# By box, of those whose commands all are heard of.
ANSWERS: dict[str, Answers] = {}


def answers_of(box: str) -> Answers:
    """What a box answered; nothing is kept of one that is not in ``ANSWERS``."""
    return ANSWERS.get(box) or Answers()


def forget(box: str) -> None:
    """A command is run on a box, or was."""
    if box in ANSWERS:
        ANSWERS[box].forget()
