"""group_data and the command line's ``--data``, read before pyinfra has an inventory."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import click

from strixbox.config import RUN_DATA
from strixbox.inventory import NO_PASSWORDS, PASSWORDS, ROOT, InventoryError


def read_group_data(folder: Path = ROOT / "group_data") -> dict[str, dict[str, Any]]:
    """Values of every ``group_data`` file by group, as pyinfra will read them.

    Names with a leading underscore are private, and what a file imports is none of its values.

    Raises:
        InventoryError: naming a file that does not run.
    """
    return {file.stem: _values(file) for file in sorted(folder.glob("*.py"))}


def _values(file: Path) -> dict[str, Any]:
    try:
        imported = {
            alias.asname or alias.name.partition(".")[0]
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        found = runpy.run_path(str(file))
    except Exception as error:  # whatever a file of somebody's does
        raise InventoryError(
            [f"group_data/{file.name} does not run: {type(error).__name__}: {error}; mend it"]
        ) from None
    values = {k: v for k, v in found.items() if not k.startswith("__") and k not in imported}
    for name in sorted(values.keys() & PASSWORDS):
        raise InventoryError([f"group_data/{file.name}: {name}: {NO_PASSWORDS}"])
    for name in sorted(values.keys() & RUN_DATA.keys()):
        raise InventoryError([f"group_data/{file.name}: {name} is for one run alone; use --data"])
    return {key: value for key, value in values.items() if not key.startswith("_")}


def command_line_data(context: click.Context | None) -> dict[str, Any]:
    """What ``--data key=value`` overrides, parsed as pyinfra parses it; empty without a CLI."""
    # Not above: pyinfra_cli patches the standard library with gevent as soon as it is imported.
    from pyinfra_cli.util import parse_cli_arg

    pairs = context.params.get("data", ()) if context else ()
    return {
        key: parse_cli_arg(value)
        for key, separator, value in (pair.partition("=") for pair in pairs)
        if separator
    }
