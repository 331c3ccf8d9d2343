"""Tables, JSON and bars, with and without a terminal."""

from __future__ import annotations

import json
import math
from typing import Any

import click
import pytest
from boxtools.output import Progress, json_option, remarks, screen, show, size
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.console import Group
from rich.table import Table
from rich.text import Text


class Model(BaseModel):
    """Something to be shown."""

    name: str
    bytes: int | None = None


def table(*rows: str) -> Table:
    """A table of one column."""
    made = Table("name")
    for row in rows:
        made.add_row(row)
    return made


def test_json_is_one_object_and_the_view_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(Model(name="größe [red]"), True, table("unseen"))
    told = capsys.readouterr()
    assert json.loads(told.out) == {"name": "größe [red]", "bytes": None}
    assert told.out.endswith("}\n")
    assert told.err == ""


def test_the_view_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show({"name": "unseen"}, False, table("seen"))
    told = capsys.readouterr().out
    assert "seen" in told
    assert "unseen" not in told
    assert "\x1b" not in told


def test_remarks_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    remarks().print("[bold]:smile:[/bold] 7")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", ":smile: 7\n")


def test_long_rows_are_not_cut_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "n" * 150
    show({}, False, table(name))
    assert name in capsys.readouterr().out
    assert screen().width == 200


def test_no_line_ends_in_blanks_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = Table("name", "what", box=None, expand=True)
    wide.add_row("short", "x")
    wide.add_row("a longer one", "")
    show({}, False, Group(wide, Text("end ")))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert [line for line in lines if line != line.rstrip()] == []
    assert [line.split()[0] for line in lines] == ["name", "short", "a", "end"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_never_written(
    capsys: pytest.CaptureFixture[str], number: float
) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        show({"a": 1, "b": number}, True, "")
    assert capsys.readouterr().out == ""  # not even a part of it


def test_the_option_arrives_as_as_json() -> None:
    @click.command()
    @json_option
    def command(as_json: bool) -> None:
        click.echo(repr(as_json))

    assert CliRunner().invoke(command, []).output == "False\n"
    assert CliRunner().invoke(command, ["--json"]).output == "True\n"
    assert "Print the result as JSON" in CliRunner().invoke(command, ["--help"]).output


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("boxtools.output.time.monotonic", lambda: now)
    with Progress("reading", 1000, "MiB") as progress:
        progress.at(1)
        progress.at(2)
        now += Progress.EVERY
        progress.at(600.5)
        progress.at(700)
        now += Progress.EVERY
        progress.at(1000)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "reading: begins",
        "reading: 600.5/1000 MiB",
        "reading: 1000/1000 MiB",
    ]


@pytest.mark.parametrize("what", ["[red]name[/red]", "[/]", "a [b"])
def test_progress_names_are_no_markup(capsys: pytest.CaptureFixture[str], what: str) -> None:
    with Progress(what, 2):
        pass
    assert capsys.readouterr().err == f"{what}: begins\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (6_938_078_334, "6.5 GiB"),
        (-2048, "-2.0 KiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_are_in_binary_units(number: float | None, text: str) -> None:
    assert size(number) == text


@given(st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=True))
def test_every_number_has_a_size(number: Any) -> None:
    assert isinstance(size(number), str)
