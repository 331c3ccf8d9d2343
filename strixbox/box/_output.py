"""Part of programs: another program is run, and what it says is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


def ran(words: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Exit code and words of a program, with more variables than this one has.

    Bytes that are no UTF-8 are replaced: one package's maintainer in Latin-1 stops nothing.
    """
    return subprocess.run(
        words,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
