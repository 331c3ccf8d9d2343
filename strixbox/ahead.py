"""What the last run asked of a box while nothing had to change, asked by the next one all at once.

A run that finds nothing to change asks what the one before it asked. Sent together in its first
moment, the questions are answered while this side works on, without a round trip for each.

Only questions are remembered, under ``runs/asked``, and never an answer: every run looks at the box
anew. A question that is not among them is asked when it comes up, and an answer that nobody asks
for is not heard. With the first command that is run no answer to what was asked ahead counts any
more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyinfra.api.exceptions import FactProcessError

from strixbox.agent import AGENTS, Agent
from strixbox.answers import ANSWERS
from strixbox.facts import BoxFact
from strixbox.programs import QueryTooLong, Question, in_parts
from strixbox.tree import ROOT

FACTS = {fact.__name__: fact for fact in BoxFact.__subclasses__()}


def remember(entry: str, box: str) -> None:
    """Keep the questions of a run that has changed nothing on the box.

    + entry: what was run, as ``deploy``
    """
    if box not in ANSWERS:
        return
    rows = [
        {"fact": fact.__name__, "query": query, "words": list(words)}
        for (fact, query), words in ANSWERS[box].asked.items()
        # A table about nothing needs no answer; what waits for something, only when there is need.
        if (words or fact.table is None) and not json.loads(query).get("patience")
    ]
    path = _path(entry, box)
    text = json.dumps(rows) + "\n"
    if _text(path) == text:
        return
    # Another run of this checkout may write it too; and where it cannot be written, the next run
    # asks one by one.
    aside = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.touch(mode=0o600)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)


def ask_ahead(entry: str, box: str) -> None:
    """Ask them, where there are any, and wait for no answer.

    + entry: what is run
    """
    if box not in AGENTS or box not in ANSWERS:
        return
    agent, known = AGENTS[box], ANSWERS[box]
    asked = list(_questions(_text(_path(entry, box))))
    numbers = agent.ask_ahead(question for question, *_ in asked)
    for number, (_, fact, key, words) in zip(numbers, asked, strict=False):  # not all, if too many
        known.expect(key, words, _hearing(agent, number, fact))


def _questions(
    text: str,
) -> Iterator[tuple[Question, type[BoxFact[Any]], tuple[type[BoxFact[Any]], str], tuple[str, ...]]]:
    """Each with its fact, the key of its answer, and the words that a table is asked about.

    What cannot be made sense of, as of another version of the toolkit, is left out.
    """
    try:
        rows = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return
    for row in rows if isinstance(rows, list) else ():
        try:
            fact, query, words = FACTS[row["fact"]], json.loads(row["query"]), row["words"]
            parts = in_parts([str(word) for word in words]) if fact.table else [()]
            for part in parts:
                about = {fact.table: part} if fact.table else {}
                question = fact().command(**query, **about)
                if isinstance(question, Question):
                    yield question, fact, (fact, row["query"]), part
        except (KeyError, TypeError, ValueError, QueryTooLong, RecursionError):
            continue


def _hearing(agent: Agent, number: int, fact: type[BoxFact[Any]]) -> Callable[[], Any]:
    def hear() -> Any:
        text = agent.heard(number)
        try:
            return None if text is None else fact().process(text.splitlines())
        except FactProcessError:
            return None

    return hear


def _path(entry: str, box: str) -> Path:
    return ROOT / "runs" / "asked" / entry / f"{quote(box, safe='')}.json"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
