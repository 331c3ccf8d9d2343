"""The box as the doctor may touch it: files, programs, HTTP. Tests hand in another one."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from boxtools import tunableop
from boxtools.errors import Trouble, reason
from boxtools.gpu import Gpu
from boxtools.server import Server
from boxtools.watch import read_gpu

TIMEOUT = 20.0  # seconds for a program; journalctl over a large journal takes a few
PATIENCE = 10.0  # seconds for the server: it answers at once while it renders
MOST = 1 << 20  # bytes that are read of any one file


@dataclass(frozen=True)
class Said:
    """What a program said; ``code`` is None where it is absent or did not end in time."""

    code: int | None
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class Answer:
    """The server's answer to ``/system_stats``; ``trouble`` says why there is none."""

    seconds: float
    stats: dict[str, Any] | None = None
    trouble: str = ""
    tuning: bool | None = None  # whether TunableOp tunes now; None where our nodes do not tell


@dataclass(frozen=True)
class Room:
    """Room on the disk of a path, in bytes."""

    total: int
    free: int


Run = Callable[..., Said]


def run(words: list[str], *, directory: Path | None = None, user: str | None = None) -> Said:
    """Run a program, bounded in time and with the messages that are matched against.

    ``user`` is who runs it where we are root; else it is the caller.
    """
    drop: dict[str, Any] = {}
    try:
        if user is not None and os.geteuid() == 0:
            account = pwd.getpwnam(user)
            groups = os.getgrouplist(user, account.pw_gid)
            drop = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
        answer = subprocess.run(
            words,
            cwd=directory,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            **drop,
        )
    except (OSError, subprocess.SubprocessError, KeyError, ValueError):
        return Said(None)
    return Said(answer.returncode, answer.stdout, answer.stderr)


def ask(url: str) -> Answer:
    """Ask the server for ``/system_stats``."""
    begun = time.monotonic()
    try:
        answer = Server(url).http.get(f"{url}/system_stats", timeout=PATIENCE)
        stats = answer.json() if answer.status_code == 200 else None
        trouble = "" if stats is not None else f"it answers {answer.status_code}"
    except requests.Timeout:
        stats, trouble = None, f"no answer within {PATIENCE:.0f} s"
    except (ValueError, RecursionError):
        stats, trouble = None, "no JSON in its answer"
    except requests.RequestException as error:
        stats, trouble = None, reason(error)
    seconds = time.monotonic() - begun
    if stats is not None and not isinstance(stats, dict):
        return Answer(seconds, None, "its answer is no JSON object")
    return Answer(seconds, stats, trouble, tuning_now(url) if stats else None)


def tuning_now(url: str) -> bool | None:
    """Whether TunableOp tunes in the server at ``url``, by our nodes; None where they do not tell.

    The environment does not tell: torch begins with tuning on, and warm-up switches it off.
    """
    try:
        state = tunableop.ask(Server(url))
    except Trouble:
        return None
    return state.tuning if state.supported else None


def room(path: Path) -> Room | None:
    """Room where ``path`` is or would be; None where nothing of it exists."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(place)
            return Room(usage.total, usage.free)
    return None


@dataclass(frozen=True)
class World:
    """Everything that reaches out of the process."""

    root: Path = Path("/")
    run: Run = run
    ask: Callable[[str], Answer] = ask
    room: Callable[[Path], Room | None] = room
    gpu: Callable[[Path], Gpu | None] = read_gpu
    now: Callable[[], float] = time.time
    uid: int = field(default_factory=os.geteuid)

    @property
    def is_root(self) -> bool:
        """Whether everything may be read and mended."""
        return self.uid == 0

    def path(self, path: str | Path) -> Path:
        """``path`` of the box below our root."""
        return self.root / str(path).lstrip("/")

    def text(self, path: str | Path) -> str:
        """Text of a file of the box, its first MiB; empty where it cannot be read."""
        return text(self.path(path))


def text(path: Path) -> str:
    """Text of a regular file, its first MiB; empty where it cannot be read.

    A pipe or a device in a place where a file is expected must not make the doctor wait for ever.
    """
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            return stream.read(MOST).decode("utf-8", errors="replace")
    except OSError:
        return ""


def parse_object(content: str) -> dict[str, Any]:
    """A JSON object; empty for whatever else the text is."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def listed(directory: Path) -> list[Path]:
    """Entries of a directory in order; none where it cannot be read."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def walked(top: Path, most: int = 50_000) -> Iterator[Path]:
    """Files and links below ``top``, not following links to directories; at most so many."""
    seen = 0
    for place, folders, names in os.walk(top):
        folders.sort()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*names, *links]):
            yield Path(place) / name
            seen += 1
            if seen >= most:
                return


def name_of_group(number: int | None) -> str:
    """Name of a group, its number where it has none."""
    try:
        return "?" if number is None else grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)
