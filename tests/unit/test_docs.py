"""What is written for users is what the code does."""

from __future__ import annotations

import re

from boxtools.cli import COMMANDS

from strixbox.codes import CODES
from strixbox.docs import README, shown, with_table
from strixbox.inventory import ROOT


def test_the_settings_table_is_that_of_the_schema() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: bin/uv run python -m strixbox.docs"


def test_a_default_fits_into_a_cell() -> None:
    assert shown("6.4.2") == "`6.4.2`"
    assert shown("a" * 40) == "`aaaaaaaaaaaa…`"
    assert shown([{"name": "x" * 60}]) == "1 entry"
    assert shown(None) == "`None`"


def test_every_finding_is_documented_once() -> None:
    text = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+\.[A-Z_]+)`", text, re.MULTILINE)
    assert sorted(rows) == sorted(CODES)


def test_every_file_that_the_readme_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    for name in re.findall(r"`(bin/\w+|\w+\.py|[a-z.]+\.yaml)\b", text):
        planned = {"boxes.yaml"}
        assert name in planned or (ROOT / name).exists(), name


def test_every_shipped_file_has_a_use() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("strixbox", "tasks", "files", "bin")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    for folder in ("templates", "files"):
        for path in (ROOT / folder).rglob("*"):
            name = path.name.removesuffix(".j2")
            if path.is_file() and path.parent.name != "locks":
                assert name.partition(".")[0] in code, path


def test_the_readme_tells_of_every_command_and_exit_code() -> None:
    text = README.read_text(encoding="utf-8")
    told = text[text.index("One command over ssh") : text.index("How fast the tools themselves")]
    assert "130 after Ctrl-C" in told
    assert "`strixbox models download " in told
    assert [name for name in COMMANDS if not re.search(rf"`(strixbox )?{name}\b", told)] == []
