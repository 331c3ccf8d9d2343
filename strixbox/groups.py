"""group_data and the command line's ``--data``, read before pyinfra has an inventory."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import click

from strixbox.inventory import ROOT


def read_group_data(folder: Path = ROOT / "group_data") -> dict[str, dict[str, Any]]:
    """Values of every ``group_data`` file by group; names with a leading underscore are private."""
    return {
        file.stem: {
            key: value
            for key, value in runpy.run_path(str(file)).items()
            if not key.startswith("_")
        }
        for file in sorted(folder.glob("*.py"))
    }


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
