"""Part of programs: progress lines of work that goes on when nobody listens any more."""

from __future__ import annotations

import os
import sys


def tell(text: str) -> None:
    """Print one line; where the connection was cut, it and what follows go nowhere.

    BrokenPipeError would end a program that is to finish its work, and with it apt or dpkg in the
    middle of a package, or the way back to a release that answers.
    """
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
