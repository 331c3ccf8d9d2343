"""What dead runs left on a box is cleared by the next one."""

from __future__ import annotations

from pyinfra.context import host

from strixbox.config import Config
from strixbox.facts import Leftovers
from strixbox.leftovers import dead, query
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.programs import write
from strixbox.release import Release

MIB = 1 << 20


@box_operation
def leftovers_cleared(cfg: Config, release: Release) -> Steps:
    """Clear what runs left that were killed, cut off or without power.

    + cfg: the box's settings
    + release: the release that shall be in use; what is there of it is built on

    Only what strixbox itself made goes, and of that neither what this run resumes nor what a living
    process has open.
    """
    asked = query(cfg)
    left = dead(ask(Leftovers, query=asked), cfg, release)
    if not left:
        host.noop("no dead run left anything")
        return
    for one in left:
        say(f"remove {one.path} ({one.bytes / MIB:.1f} MiB), left by a run that did not end well")
    yield write("leftovers", {"query": asked, "paths": [one.path for one in left]}, live=True)
