"""Boxes that a run has lost its hold of: nothing more is done there.

The lock of a box lives as long as its agent. Where that has ended, another run may be at work.
"""

from __future__ import annotations

from collections.abc import Callable

# By box: why nothing more is done there.
LOST: dict[str, str] = {}
# By box with an agent: whether that lives, as far as is known here.
_ALIVE: dict[str, Callable[[], bool]] = {}

AGENT_ENDED = (
    "its agent ended, and with it the run's lock; see that the box is on and has memory, then run"
    " the same command again"
)


def watch(box: str, alive: Callable[[], bool]) -> None:
    """A box is held for as long as ``alive`` says so; it is called before every command."""
    _ALIVE[box] = alive


def why_lost(box: str) -> str | None:
    """Why nothing more is done on a box; None where it is held, or needs no hold."""
    if box in _ALIVE and not _ALIVE[box]():
        LOST.setdefault(box, AGENT_ENDED)
    return LOST.get(box)
