"""Part of programs: a link that leads somewhere else from one instant to the next."""

from __future__ import annotations

import os


def point(link: str, target: str) -> None:
    """Have ``link`` lead to ``target``, by one rename."""
    aside = f"{link}.strixbox-new"
    if os.path.lexists(aside):
        os.unlink(aside)
    os.symlink(target, aside)
    os.replace(aside, link)
