"""Writer: runs a program of apt's or dpkg's, and waits for whoever has its locks.

apt-get waits for dpkg's lock by itself (DPkg::Lock::Timeout), but neither for that of the lists nor
in apt-mark; one loop for all of them says what it waits for, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from typing import Any

from strixbox.box._telling import tell

# A lock that cannot even be opened (read-only, no such directory) is another failure.
LOCKED = re.compile(r"Could not get lock|(?:is|was) locked by another process")
HOLDER = re.compile(r"held by process (\d+ \([^)]*\))|another process with pid (\d+)")
KEPT = 200  # lines of output that are shown where it fails
PAUSE = 2.0
TELL = 20.0  # seconds between two lines of progress


def run(words: list[str]) -> tuple[int, list[str]]:
    """Exit code and last lines; tells now and then how far it is."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    kept: deque[str] = deque(maxlen=KEPT)
    told = time.monotonic()
    with subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            kept.append(line.rstrip())
            if time.monotonic() - told > TELL and line.strip():
                told = time.monotonic()
                tell(line.strip()[:150])
    return process.returncode, list(kept)


def holder(lines: list[str]) -> str:
    """Who has the lock, as apt or dpkg tells it."""
    found = HOLDER.search("\n".join(lines))
    return f"process {found.group(1) or found.group(2)}" if found else "another process"


def reason(lines: list[str]) -> str:
    """What apt or dpkg names as the error; its last word where it names none."""
    named = [n for n, line in enumerate(lines) if line.startswith(("E: ", "dpkg: error"))]
    said = [line for line in lines if line.strip()][-1:] or ["it said nothing"]
    if named:
        # dpkg names the package, and on the next line the cause.
        more = lines[named[0]].endswith(":")
        said = lines[named[0] : named[0] + 1 + more]
    return " ".join(line.strip() for line in said).removeprefix("E: ").rstrip(".:")


def main(order: dict[str, Any]) -> None:
    """``{"words", "patience", "failed", "mend"}``: a command, seconds to wait at most for a lock.

    ``failed`` says what has not come about where the command fails, ``mend`` what to do then.
    """
    end = time.monotonic() + order["patience"]
    told = 0.0
    while True:
        code, lines = run(order["words"])
        if code == 0:
            return
        if not any(LOCKED.search(line) for line in lines):
            print("\n".join(lines), file=sys.stderr)
            raise SystemExit(f"{order['failed']}: {reason(lines)}. {order['mend']}")
        if time.monotonic() >= end:
            raise SystemExit(
                f"{holder(lines)} has had the lock of apt or dpkg for {order['patience']} s; see"
                " what it waits for (ps, or an open question of a package), end it, then run again"
            )
        if not told or time.monotonic() - told > TELL:
            told = time.monotonic()
            tell(f"waiting for {holder(lines)}, which has the lock of apt or dpkg")
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(json.load(sys.stdin))
