"""The programs of strixbox/box, run on this machine as they run on a box."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strixbox.programs import source

ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name


OTHER = "nobody"  # an account that may do nothing

# What footprint.py is asked about, where nothing is there.
NO_FOOT: dict[str, Any] = {
    **{"paths": [], "inside": [], "known": {}, "kept": [], "units": [], "packages": [], "user": ME},
    **dict.fromkeys(("mount", "fstab", "bashrc", "backups"), "/none"),
}
# What survey.py is asked about, of a box that has none of it.
SURVEY: dict[str, Any] = {
    "user": "nobody-here",
    "home": "/no/home",
    "port": 1,
    "service": "none.service",
    "seal": "/none",
    "directories": ["/etc/passwd/x"],
}


def _python_for_other() -> str | None:
    """A Python that the other account can read, where this is root; root's own often is not."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam(OTHER)
    for program in (sys.executable, "/usr/bin/python3"):
        command = [program, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            answer = subprocess.run(
                command, user=account.pw_uid, group=account.pw_gid, extra_groups=[], check=False
            )
        except OSError:
            continue
        if answer.returncode == 0:
            return program
    return None


OTHERS_PYTHON = _python_for_other()
needs_root = pytest.mark.skipif(
    OTHERS_PYTHON is None, reason="only root can work as another account"
)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of the other account's; pytest's own are closed to it."""
    outer = Path(tempfile.mkdtemp(prefix="strixbox-test-"))
    outer.chmod(0o755)
    folder = outer / "theirs"
    folder.mkdir()
    shutil.chown(folder, OTHER)
    yield folder
    shutil.rmtree(outer)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file that is root's alone, and is the same when the test ends."""
    path = tmp_path / "secret"
    path.write_text("root's\n")
    path.chmod(0o600)
    yield path
    assert path.read_text() == "root's\n"
    assert path.stat().st_uid == os.geteuid()
    assert path.stat().st_mode & 0o777 == 0o600


def started(program: str, order: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a writer with its order on stdin, in a Python of its own."""
    return subprocess.run(
        [OTHERS_PYTHON or sys.executable, "-I", "-c", source(program)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def asked(program: str, query: dict[str, Any]) -> Any:
    """Run a reader with its query as argument and return its answer."""
    answer = subprocess.run(
        [OTHERS_PYTHON or sys.executable, "-I", "-c", source(program), json.dumps(query)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(answer.stdout)


def agent() -> subprocess.Popen[str]:
    """Start the agent; it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", source("agent")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert json.loads(process.stdout.readline()) == {"agent": 1}
    return process


def tell(process: subprocess.Popen[str], **line: Any) -> None:
    """Send the agent one line."""
    assert process.stdin
    process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that the agent says."""
    assert process.stdout
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def hold(folder: Path, holder: str, patience: float = 0) -> tuple[subprocess.Popen[str], Any]:
    """Start a holder of the lock, which logs what it is told; its process and first answer."""
    process = agent()
    order = {
        "run": str(folder / "run"),
        "writing": str(folder / "writing"),
        "holder": holder,
        "patience": patience,
    }
    log = str(folder / "log" / "changes.jsonl")
    tell(process, log=log, about={"run": "7", "who": holder})
    tell(process, lock=order)  # last: a word to an agent that waits for the lock ends it
    return process, hear(process)
