"""Git checkouts at exact commits."""

from __future__ import annotations

from pyinfra.context import host

from strixbox.facts import Checkouts
from strixbox.layout import BACKUPS
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.programs import write
from strixbox.release import Checkout


@box_operation
def git_checkouts(checkouts: tuple[Checkout, ...]) -> Steps:
    """Have each path at its commit without local edits; no network where it already is.

    + checkouts: path, URL and commit of each

    pyinfra's git.repo cannot clone a commit, and fetches on every run for a tag.
    """
    wrong = moved(checkouts)
    if not wrong:
        host.noop(f"{len(checkouts)} checkouts are at their commits")
        return
    for checkout, change in wrong.items():
        say(f"{checkout.path}: {change}")
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


def moved(checkouts: tuple[Checkout, ...]) -> dict[Checkout, str]:
    """Checkouts that are not as they shall be, each with what is to be done, in a few words.

    + checkouts: path, URL and commit of each
    """
    states = ask(Checkouts, paths=tuple(checkout.path for checkout in checkouts))
    wrong = {}
    for checkout in checkouts:
        now = states[checkout.path]
        if now["commit"] != checkout.commit or now["edited"]:
            edited = f", edited: {', '.join(now['edited'])}" if now["edited"] else ""
            before = (now["commit"] or "absent")[:12]
            wrong[checkout] = f"{before}{edited} -> {checkout.commit[:12]}"
    return wrong
