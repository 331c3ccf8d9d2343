"""Monitor, htop and the service's log side by side in a tmux session.

tmux's targets are prefixes of names; ``=name`` is that name and no other (tmux(1), COMMANDS).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from boxtools.errors import Trouble, WrongUse
from boxtools.settings import ENVIRONMENT

SESSION = "comfyui_monitor"
SIZE = ("-x", "200", "-y", "50")  # until a terminal attaches; 80x24 is too little for three panes
LINES = "100"  # of the log that were there before
TIMEOUT = 10.0  # seconds for an answer of tmux


def check_name(name: str) -> None:
    """See that tmux takes the name as it is.

    Raises:
        WrongUse: where it would change it or read a window or pane into it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise WrongUse(f"{name!r} is no name for a session: letters, digits, - and _ only")


def exists(name: str) -> bool:
    """Whether the session runs."""
    return _tmux("has-session", "-t", f"={name}").returncode == 0


def create(name: str, monitor: Sequence[str], service: str) -> bool:
    """Start the session, detached; False where another start was quicker.

    Raises:
        Trouble: where tmux cannot. Nothing of a half-made session stays.
    """
    log = ["journalctl", "--follow", "--unit", service, "--lines", LINES]
    begun = _tmux(
        *("new-session", "-d", "-s", name, *SIZE, "-n", "comfyui"), *_environment(), *monitor
    )
    if begun.returncode != 0:
        if "duplicate session" in begun.stderr:
            return False
        raise Trouble(f"tmux starts no session {name}: {_reason(begun)}; see tmux list-sessions")
    window = f"={name}:comfyui"
    steps = (
        # A pane whose program fails stays and shows why.
        ("set-option", "-w", "-t", window, "remain-on-exit", "failed"),
        ("split-window", "-h", "-l", "45%", "-t", window, _processes()),
        ("split-window", "-v", "-l", "50%", "-t", window, *log),
        ("select-pane", "-t", f"{window}.{{top-left}}"),
    )
    for words in steps:
        done = _tmux(*words)
        if done.returncode != 0:
            kill(name)
            raise Trouble(f"tmux cannot {words[0]}: {_reason(done)}; is it tmux 3.2 or newer?")
    return True


def attach(name: str) -> None:
    """Show the session in this terminal; does not come back, except from inside tmux.

    Raises:
        Trouble: where tmux cannot.
    """
    if os.environ.get("TMUX"):
        # tmux within tmux is refused: the terminal that is in one changes over to ours.
        done = _tmux("switch-client", "-t", f"={name}")
        if done.returncode != 0:
            raise Trouble(f"tmux does not switch: {_reason(done)}; tmux attach -t {name}")
        return
    sys.stdout.flush()
    program = _program()
    os.execv(program, [program, "attach-session", "-t", f"={name}"])  # noqa: S606 - no shell


def kill(name: str) -> bool:
    """End the session and the programs in it; False where there is none."""
    return _tmux("kill-session", "-t", f"={name}").returncode == 0


def _environment() -> list[str]:
    # The panes live in the environment of tmux's server, which may be days older than this.
    value = os.environ.get(ENVIRONMENT)
    return ["-e", f"{ENVIRONMENT}={value}"] if value else []


def _processes() -> str:
    return "htop" if shutil.which("htop") else "top"


def _program() -> str:
    program = shutil.which("tmux")
    if program is None:
        raise Trouble("tmux is not installed: sudo apt install tmux htop")
    return program


def _tmux(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [_program(), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Trouble(
            f"tmux did not answer within {TIMEOUT:.0f} s; is its server stopped? tmux kill-server"
        ) from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[:200] or f"it ends with {done.returncode}"
