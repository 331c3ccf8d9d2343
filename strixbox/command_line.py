"""The words that pyinfra was called with: runs that would do nothing, or not what they say."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
from pyinfra.api.state import StateStage
from pyinfra.context import host, state

from strixbox.config import RUN_DATA

# Entries that change nothing.
READ_ONLY = frozenset({"verify"})


def run_data(pairs: Iterable[str]) -> dict[str, str]:
    """Data of this run alone from ``--data KEY=VALUE``, as it was typed.

    pyinfra makes a number of what reads like one: of a release's name, another name.
    """
    split = (pair.partition("=") for pair in pairs)
    return {key: value for key, separator, value in split if separator and key in RUN_DATA}


def wrong_run_data(entry: str, pairs: Iterable[str]) -> str | None:
    """What is wrong with the data of this run alone, and the mend; None where nothing is.

    + entry: what is run, as ``rollback``
    """
    for key, value in run_data(pairs).items():
        wanted, pattern, form = RUN_DATA[key]
        if entry != wanted:
            return f"--data {key} is for {wanted}.py; {entry}.py has no use for it, leave it out"
        if not pattern.fullmatch(value):
            return f"--data {key}={value} is not valid; write {form}"
    return None


# As they were typed. click's context is there for the inventory, and not where pyinfra reads
# deploy.py for a box: each has a greenlet of its own.
_TOLD: dict[str, str] = {}


def note_run_data(pairs: Iterable[str]) -> None:
    """Keep the data of this run alone for ``told_data``."""
    _TOLD.update(run_data(pairs))


def told_data(key: str) -> str | None:
    """Data of this run alone, as it was typed; None where it was not.

    With an inventory of somebody's own, which notes none, what pyinfra made of it.
    """
    if key in _TOLD:
        return _TOLD[key]
    value = host.data.get(key)
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def dry_run() -> bool:
    """Whether pyinfra was called with --dry."""
    context = click.get_current_context(silent=True)
    return bool(context and context.params.get("dry")) or "--dry" in sys.argv


def idle(entry: str, words: Mapping[str, Any], *, terminal: bool) -> str | None:
    """Why a run would not do what it is for, and the mend; None where it would.

    pyinfra (3.10) ends with 0 after it has only planned, and after --no-wait whatever failed.

    + words: those of the command line, by pyinfra's names
    + terminal: whether there is one to ask on
    """
    if words.get("debug_facts") or words.get("debug_operations"):
        return None
    if words.get("no_wait"):
        return "with --no-wait pyinfra ends with 0 also where boxes fail; leave it out"
    if words.get("group_data"):
        return "--group-data is not looked at before boxes are; put its files into group_data/"
    yes, dry, told_as_json = (words.get(name) for name in ("yes", "dry", "json_output"))
    if entry in READ_ONLY:
        if dry:
            return f"a dry run of {entry}.py looks at nothing; leave --dry out: it changes nothing"
        if told_as_json and not yes:
            return f"{entry}.py --json looks at nothing without -y; add it: nothing is changed"
        return None
    if yes or dry or (terminal and not told_as_json):
        return None
    why = "with --json nothing is asked" if told_as_json else "there is no terminal to ask on"
    return (
        f"{why} before boxes are changed; add -y to change them without asking, or --dry to see"
        " what would change"
    )


def answer_questions(entry: str) -> None:
    """Have pyinfra not ask before what changes nothing, and tell of a question without an answer.

    pyinfra 3.10 asks in one function, which no setting but -y reaches, ends with 0 where the answer
    is no, and with a traceback where the terminal is at its end (Ctrl-D).
    """
    # Not above: pyinfra_cli patches the standard library with gevent as soon as it is imported.
    from pyinfra_cli import cli

    ask = cli._do_confirm

    def confirm(question: str) -> bool:
        executing = state.current_stage == StateStage.Execute
        if entry in READ_ONLY and not executing:
            return True
        told = "run the same command again to finish"
        if not executing:
            told = "no box was changed; press Enter to go on, or add -y to be asked nothing"
        try:
            if ask(question):
                return True
        except EOFError:
            click.echo(f"\n--> Nobody answered: {told}.", err=True)
            raise SystemExit(2) from None
        click.echo(f"\n--> The answer was no: {told}.", err=True)
        raise SystemExit(1)

    cli._do_confirm = confirm
