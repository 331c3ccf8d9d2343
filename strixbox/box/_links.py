"""Part of programs: a link that leads somewhere else from one instant to the next."""

from __future__ import annotations

import os

from strixbox.box._atomic import ASIDE


def point(link: str, target: str) -> None:
    """Have ``link`` lead to ``target``, by one rename."""
    aside = link + ASIDE
    if os.path.lexists(aside):
        os.unlink(aside)
    os.symlink(target, aside)
    os.replace(aside, link)


def lead(link: str, target: str) -> None:
    """Have ``link`` lead to ``target``; nothing but a link is replaced by it.

    Raises:
        SystemExit: where something else stands there.
    """
    if os.path.lexists(link) and not os.path.islink(link):
        raise SystemExit(f"{link} is a file or directory, not a link; move it away and run again")
    point(link, target)
