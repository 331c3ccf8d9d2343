"""What every operation of ours has in common."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from gevent import GreenletExit
from pyinfra import logger
from pyinfra.api.arguments_typed import PyinfraOperation
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import FactProcessError, PyinfraError
from pyinfra.api.operation import operation
from pyinfra.context import host, state

from strixbox import journal
from strixbox.agent import AGENTS, GONE
from strixbox.answers import answers_of
from strixbox.facts import BoxFact
from strixbox.lost import AGENT_ENDED, LOST, why_lost
from strixbox.programs import QueryTooLong, Question, Refusal, in_parts

P = ParamSpec("P")
T = TypeVar("T")
Steps = Generator[StringCommand, None, None]


# By box and operation: the sentence of an operation whose planning shows that it would fail.
FORESEEN: dict[tuple[str, str], str] = {}

# By box: checks of verify that could not be made, and why.
UNKNOWN: dict[str, list[str]] = {}


# By box: why a run did not begin on it.
REFUSED: dict[str, str] = {}


class BoxTrouble(Exception):
    """Trouble of one box, told in one sentence: what, where, the mend."""


def box_operation(steps: Callable[P, Steps]) -> PyinfraOperation[P]:
    """A pyinfra operation in which ``BoxTrouble``, or a defect, fails its own host and no other."""

    @wraps(steps)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Steps:
        try:
            for command in steps(*args, **kwargs):
                if state.is_executing:
                    journal.begin(host.name)
                yield command
        except BoxTrouble as trouble:
            # Planning stops at the first command, so it sees a failure as a change.
            if not state.is_executing:
                FORESEEN[host.name, host.current_op_hash or ""] = str(trouble)
            journal.say(host.name, str(trouble))
            yield Refusal(str(trouble))
        except Exception as error:
            # A defect of ours, which in pyinfra 3.10 would end the run for all boxes at once.
            logger.error("".join(traceback.format_exception(error)))
            yield Refusal(
                f"strixbox itself failed here, before it changed anything more:"
                f" {type(error).__name__}: {error}; please report it with the lines above."
            )

    return operation()(guarded)


def ask(fact: type[BoxFact[T]], /, **query: Any) -> T:
    """The fact's value as it is on the box now.

    A question about more things than fit into one command is asked in parts.

    Raises:
        BoxTrouble: where the box did not answer, so that nothing is decided on a guess.
    """
    known, table = answers_of(host.name), fact.table
    if table is None:
        key = (fact, json.dumps(query, sort_keys=True))
        value: T = known.get(key, lambda: _in_parts(fact, "paths", query))
        return value
    words = query.pop(table)
    key = (fact, json.dumps(query, sort_keys=True))
    answers = known.table(key, words, lambda w: _in_parts(fact, table, query | {table: w}))
    return cast(T, answers)


def ask_early(fact: type[BoxFact[T]], /, **query: Any) -> T:
    """The same while deploy.py is read, outside of operations: without an answer the box is failed.

    Nothing is planned for it on a guess, and the other boxes go on.
    """
    try:
        return ask(fact, **query)
    except BoxTrouble as trouble:
        refuse(str(trouble))


def refuse(sentence: str) -> NoReturn:
    """End this box's run before its first operation, with a sentence; the other boxes go on."""
    REFUSED[host.name] = sentence
    logger.error(f"{host.print_prefix}{sentence}")
    # The host itself: pyinfra's `host` names another one, or none, by the time of the summary.
    state.fail_hosts({state.inventory.get_host(host.name)})
    # Ends the planning of this box alone; any other exception would end it for all.
    raise GreenletExit


def _in_parts(fact: type[BoxFact[T]], name: str, query: dict[str, Any]) -> Any:
    if not isinstance(query.get(name), tuple):
        return _ask(fact, **query)
    value, *more = (_ask(fact, **query | {name: part}) for part in in_parts(query[name]))
    for other in more:
        value = merged(value, other)
    return value


def _ask(fact: type[BoxFact[T]], /, **query: Any) -> T:
    lost = why_lost(host.name)
    if lost is not None:
        raise BoxTrouble(f"Nothing more was done on this box: {lost}.")
    try:
        value: T | None = box_fact(fact, **query)
    except (PyinfraError, FactProcessError, *GONE):
        # pyinfra ends the run where the box that does not answer is the last.
        value = None
    except QueryTooLong as error:
        raise BoxTrouble(
            f"The question {fact.__name__} does not fit into one command: {error}; name fewer"
            " things in the setting that this operation is about."
        ) from None
    if value is None:
        raise BoxTrouble(
            f"The box did not answer the question {fact.__name__}; the lines above say why."
            " Mend that and run the same command again."
        )
    return value


def box_fact(fact: type[BoxFact[T]], /, **query: Any) -> T | None:
    """The fact's value from the box's agent.

    Where that has no answer, pyinfra asks, which tells the box's words and fails the box. It asks
    too where the commands shall be seen (-vv).
    """
    agent = AGENTS.get(host.name)
    if agent and not host.state.print_fact_input:
        question = fact().command(**query)
        text = agent.ask(question) if isinstance(question, Question) else None
        if text is not None:
            return fact().process(text.splitlines())
        if agent.gone:
            LOST[host.name] = AGENT_ENDED
    value: T | None = host.get_fact(fact, **query)
    return value


def merged(one: Any, other: Any) -> Any:
    """The answers to two parts of a question as one: lists and tables are joined, deep ones too."""
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: merged(one[key], other[key]) for key in one.keys() & other.keys()}
        return one | other | both
    return other


def say(text: str) -> None:
    """Tell what this operation changes, named so that the log can be read alone.

    Also by every account of the box: neither secrets nor the content of files.
    """
    host.log(text)
    journal.say(host.name, text)
