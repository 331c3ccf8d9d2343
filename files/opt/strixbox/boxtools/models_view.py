"""How models, moves and verdicts are shown to people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from boxtools.catalogue import ModelFile
from boxtools.hashes import Verified
from boxtools.output import size
from boxtools.tierplan import Proposal

DAY = 86400.0


def printable(text: str) -> str:
    """A name without what a terminal would obey, or cannot show: names are anybody's."""
    return "".join(character if character.isprintable() else "?" for character in text)


def models(files: Sequence[ModelFile]) -> Table:
    """One model a line."""
    table = Table("Model", "Tier", "Kind", "Size", "Last use", "In RAM", box=None, pad_edge=False)
    for model in files:
        table.add_row(
            escape(printable(model.key)),
            escape(printable(_tier(model))),
            escape(printable(_kind(model))),
            size(model.size),
            _ago(model.used),
            _resident(model),
        )
    return table


def _tier(model: ModelFile) -> str:
    if model.leads_to is not None:
        return f"link to {model.leads_to}"
    return f"{model.tier}, linked" if model.linked else model.tier


def _kind(model: ModelFile) -> str:
    count = model.parameters or 0
    weights = f"{count / 1e9:.1f} B" if count >= 1e8 else f"{count / 1e6:.1f} M" if count else ""
    parts = (model.kind or "unknown", model.dtype, weights, "cut short" if model.cut else "")
    return " ".join(part for part in parts if part)


def _ago(used: float | None) -> str:
    if used is None:
        return "-"
    days = (time.time() - used) / DAY
    return "today" if days < 1 else f"{days:.0f} d ago"


def _resident(model: ModelFile) -> str:
    if model.resident is None or not model.size:
        return "-"
    return f"{model.resident / model.size:.0%}"


def verified(results: Sequence[Verified]) -> Table:
    """One verdict a line."""
    table = Table("Model", "Verdict", "sha256", "Wanted", box=None, pad_edge=False)
    for result in results:
        wanted = "" if result.good else (result.wanted or "")[:16]
        table.add_row(
            escape(printable(result.key)), result.verdict, (result.sha256 or "")[:16], wanted
        )
    return table


def moves(proposal: Proposal) -> Table | str:
    """One proposed move a line."""
    table = Table("Model", "Move", "Size", "Last use", box=None, pad_edge=False)
    for to, files in (("to the archive", proposal.archive), ("back", proposal.activate)):
        for model in files:
            table.add_row(escape(printable(model.key)), to, size(model.size), _ago(model.used))
    return table if table.row_count else "nothing to move"
