"""This checkout, and whoever runs it: what records and the boxes' logs say of a run."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from functools import cache

from strixbox.inventory import ROOT


@cache
def ask_git() -> subprocess.Popen[str] | None:
    """Start git, which takes a while to tell whether the checkout is edited; None without git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.Popen(
            [*git, "--exclude=*"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None


@cache
def toolkit_commit() -> str:
    """Commit of this checkout, with ``+`` where it has local edits; ``unknown`` without git."""
    git = ask_git()
    return (git.communicate()[0].strip() if git else "") or "unknown"


def who() -> tuple[str, str]:
    """The account that runs this, by number where it has no name, and this machine's name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        user = str(os.getuid())
    return user, socket.gethostname()
