"""Hosts and groups: boxes.yaml, or the lab's boxes; checked before any connection."""

import click
from pyinfra.context import state

from strixbox.groups import command_line_data, read_group_data
from strixbox.inventory import (
    InventoryError,
    boxes_file,
    checked_boxes,
    have_known_hosts,
)
from strixbox.run import expect
from strixbox.selection import names_nothing
from strixbox.upstream import improve

improve()
_context = click.get_current_context(silent=True)
_words = _context.params if _context else {}
try:
    _boxes = checked_boxes(boxes_file(), read_group_data(), command_line_data(_context))
    for _entry in _boxes.entries:
        have_known_hosts(_entry.known_hosts)
except InventoryError as _error:
    click.echo("No box was touched; mend these settings first:", err=True)
    for _mistake in _error.mistakes:
        click.echo(f"  {_mistake}", err=True)
    raise SystemExit(2) from None

_nothing = names_nothing(_boxes, _words.get("limit", ()), _words.get("exclude", ()))
if _nothing:
    click.echo(f"No box was touched: {_nothing}.", err=True)
    raise SystemExit(2)

_boxes = expect(state, _boxes)

all = _boxes.hosts()  # noqa: A001 - the name that pyinfra gives to the list of every host
globals().update(_boxes.groups())
