"""Output for people and for programs: tables and bars where there is a terminal, JSON on request.

Results go to stdout, progress and remarks to stderr, so that ``strixbox ... --json | jq`` works.
rich leaves colours and moving bars away where stdout is no terminal or NO_COLOR is set.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.markup import escape

F = TypeVar("F", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers; click's own lets "nan" through, which no comparison stops."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, if it is one."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number in the range {self._describe_range()}.", param, ctx)
        return number


def json_option(command: F) -> F:
    """Give a command ``--json``; it arrives as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


class _Screen(Console):
    """rich ends the process with 1 where nobody reads on; that is for ``cli.main`` to judge."""

    def on_broken_pipe(self) -> None:
        """Say what happened."""
        raise BrokenPipeError

    def print(self, *objects: Any, **words: Any) -> None:
        """Print; where it is no terminal, without the blanks that fill tables up to their width."""
        if self.is_terminal:
            super().print(*objects, **words)
            return
        with self.capture() as told:
            super().print(*objects, **words)
        self.file.write(re.sub(r" +$", "", told.get(), flags=re.MULTILINE))
        self.file.flush()


def screen() -> Console:
    """Console for results; as wide as it must be where nobody's terminal limits it."""
    console = _Screen(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    return console


def remarks() -> Console:
    """Console for progress and remarks."""
    return Console(stderr=True, highlight=False, emoji=False)


def show(value: BaseModel | dict[str, Any], as_json: bool, view: RenderableType) -> None:
    """Print a result: ``value`` as JSON, or ``view`` for people."""
    if as_json:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        # Never NaN or Infinity: they are not JSON, and jq stops at them.
        sys.stdout.write(json.dumps(plain, indent=1, allow_nan=False) + "\n")
    else:
        screen().print(view)


class Progress:
    """A moving bar on a terminal; elsewhere a line at the start, every few seconds, and the end."""

    EVERY = 5.0  # seconds between lines where there is no terminal

    def __init__(self, what: str, total: float, unit: str = "") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.what = what
        self.total = total
        self.unit = unit
        self.said = 0.0
        self.console = remarks()
        self.bar: Bar | None = None
        if self.console.is_terminal:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), unit)
            self.bar = Bar(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self.task = self.bar.add_task(escape(what), total=total)

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        else:
            self.console.print(f"{self.what}: begins", markup=False, soft_wrap=True)
            self.said = time.monotonic()
        return self

    def __exit__(self, *problem: object) -> None:
        if self.bar:
            self.bar.stop()

    def at(self, done: float) -> None:
        """Tell that ``done`` of the total is done."""
        if self.bar:
            self.bar.update(self.task, completed=done)
        elif time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            line = f"{self.what}: {done:g}/{self.total:g} {self.unit}".rstrip()
            self.console.print(line, markup=False, soft_wrap=True)


def size(number: float | None) -> str:
    """Bytes in binary units, ``-`` for an unknown number."""
    if number is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
