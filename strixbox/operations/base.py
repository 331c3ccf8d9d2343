"""What every operation of ours has in common."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pyinfra.api.arguments_typed import PyinfraOperation
from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase
from pyinfra.api.operation import operation
from pyinfra.context import host, state

from strixbox.programs import Refusal

P = ParamSpec("P")
T = TypeVar("T")
Steps = Generator[StringCommand, None, None]


# By box and operation: the sentence of an operation whose planning shows that it would fail.
FORESEEN: dict[tuple[str, str], str] = {}


class BoxTrouble(Exception):
    """Trouble of one box, told in one sentence: what, where, the mend."""


def box_operation(steps: Callable[P, Steps]) -> PyinfraOperation[P]:
    """A pyinfra operation in which ``BoxTrouble`` fails its own host and no other."""

    @wraps(steps)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Steps:
        try:
            yield from steps(*args, **kwargs)
        except BoxTrouble as trouble:
            # Planning stops at the first command, so it sees a failure as a change.
            if not state.is_executing:
                FORESEEN[host.name, host.current_op_hash or ""] = str(trouble)
            yield Refusal(str(trouble))

    return operation()(guarded)


def ask(fact: type[FactBase[T]], /, **query: Any) -> T:
    """The fact's value as it is on the box now.

    Raises:
        BoxTrouble: where the box did not answer, so that nothing is decided on a guess.
    """
    value: T | None = host.get_fact(fact, **query)
    if value is None:
        raise BoxTrouble(
            f"The box did not answer the question {fact.__name__}; the lines above say why."
            " Mend that and run the same command again."
        )
    return value


def say(text: str) -> None:
    """Tell what this operation changes, named so that the log can be read alone."""
    host.log(text)
