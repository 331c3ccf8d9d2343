"""The programs of strixbox/box, run on this machine as they run on a box."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from typing import Any

from strixbox.programs import source

ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name


def started(program: str, order: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a writer with its order on stdin, in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-I", "-c", source(program)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def asked(program: str, query: dict[str, Any]) -> Any:
    """Run a reader with its query as argument and return its answer."""
    answer = subprocess.run(
        [sys.executable, "-I", "-c", source(program), json.dumps(query)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(answer.stdout)
