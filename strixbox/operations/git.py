"""Git checkouts at exact commits."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.context import host

from strixbox.facts import Checkouts
from strixbox.layout import BACKUPS
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.programs import write


@dataclass(frozen=True)
class Checkout:
    """A repository at a commit, at a path of its own."""

    path: str
    url: str
    commit: str


@box_operation
def git_checkouts(checkouts: tuple[Checkout, ...]) -> Steps:
    """Have each path at its commit without local edits; no network where it already is.

    + checkouts: path, URL and commit of each

    pyinfra's git.repo cannot clone a commit, and fetches on every run for a tag.
    """
    states = ask(Checkouts, paths=tuple(checkout.path for checkout in checkouts))
    wrong = [
        checkout
        for checkout in checkouts
        if states[checkout.path]["commit"] != checkout.commit or states[checkout.path]["edited"]
    ]
    if not wrong:
        host.noop(f"{len(checkouts)} checkouts are at their commits")
        return
    for checkout in wrong:
        now = states[checkout.path]
        edited = f", edited: {', '.join(now['edited'])}" if now["edited"] else ""
        say(
            f"{checkout.path}: {(now['commit'] or 'absent')[:12]}{edited} -> {checkout.commit[:12]}"
        )
    for checkout in wrong:
        yield write(
            "checkout",
            {
                "path": checkout.path,
                "url": checkout.url,
                "commit": checkout.commit,
                "backups": BACKUPS,
            },
            live=True,
        )
