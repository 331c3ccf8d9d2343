"""Mends that are safe: nothing is deleted that is not ours, and every one can be run twice."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boxtools.copyfile import PART, TAG
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding
from boxtools.doctor.machine import Account
from boxtools.doctor.software import PLAIN, settings_of
from boxtools.doctor.world import World
from boxtools.errors import Trouble

START = 180.0  # seconds for the server to answer; what the deploy allows
OFF = "# turned off by strixbox doctor: "
# In a shell's file a statement stays in its place: `then` with nothing but a comment is an error.
SHELL_OFF = f": {OFF}"


@dataclass(frozen=True)
class Fix:
    """One mend. ``plan`` says what it would do, line by line; ``apply`` does it.

    ``root``: it needs root. ``asks``: it changes a file of the user's, so the user is asked.
    """

    name: str
    says: str
    root: bool
    asks: bool
    plan: Callable[[Facts, World], list[str]]
    apply: Callable[[Facts, World], None]


def wanted(findings: list[Finding]) -> list[Fix]:
    """The fixes that the findings name, each once, in a fixed order."""
    names = {finding.safe_fix for finding in findings if finding.verdict != "ok"}
    return [fix for fix in FIXES if fix.name in names]


@contextlib.contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Act as the account where we are root: a link of the user's cannot lead us elsewhere."""
    if os.geteuid() != 0 or account.uid in (None, 0):
        yield
        return
    before = os.getegid(), os.getgroups()
    gid = account.gids[0] if account.gids else before[0]
    os.setgroups(account.gids)
    os.setegid(gid)
    os.seteuid(account.uid or 0)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def write_over(path: Path, content: bytes) -> None:
    """Replace a file's content at once, keeping its mode."""
    mode = path.stat().st_mode & 0o7777
    aside = path.with_name(f"{path.name}.strixbox-new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.chmod(mode)
    aside.replace(path)


# --- the service ------------------------------------------------------------------------------


def _plan_start(facts: Facts, world: World) -> list[str]:
    service = facts.settings.service
    return [f"systemctl reset-failed {service}", f"systemctl start {service}"]


def _start(facts: Facts, world: World) -> None:
    service = facts.settings.service
    world.run(["systemctl", "reset-failed", service])
    said = world.run(["systemctl", "start", service])
    if said.code != 0:
        raise Trouble(
            f"{service} does not start ({(said.err.strip() or 'no reason given')[:200]});"
            f" see journalctl -u {service} -n 50"
        )
    until = time.monotonic() + START
    while time.monotonic() < until:
        if world.ask(facts.settings.url).stats is not None:
            return
        if world.run(["systemctl", "is-active", service]).out.strip() not in (
            "active",
            "activating",
        ):
            raise Trouble(f"{service} ended again; see journalctl -u {service} -n 50")
        time.sleep(1)
    raise Trouble(f"{service} runs but does not answer; see journalctl -u {service} -n 50")


# --- TunableOp --------------------------------------------------------------------------------


def _results(facts: Facts) -> Path | None:
    tuned = facts.software.tuned
    return Path(tuned.path) if tuned and tuned.exists else None


def _backup(path: Path, now: float) -> Path:
    """A name beside ``path`` that nothing has."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    name = path.with_name(f"{path.name}.backup-{stamp}")
    number = 1
    while os.path.lexists(name):
        name = path.with_name(f"{path.name}.backup-{stamp}-{number}")
        number += 1
    return name


def _plan_aside(facts: Facts, world: World) -> list[str]:
    path = _results(facts)
    return [f"move {path} to {_backup(path, world.now())}"] if path else []


def _aside(facts: Facts, world: World) -> None:
    path = _results(facts)
    if path is not None and path.is_file():
        path.rename(_backup(path, world.now()))


# --- downloads --------------------------------------------------------------------------------


def _plan_parts(facts: Facts, world: World) -> list[str]:
    return [f"remove {path}" for path in facts.software.models.parts]


def _parts(facts: Facts, world: World) -> None:
    with acting_as(facts.machine.account):
        for name in facts.software.models.parts:
            path = Path(name)
            if path.suffix == PART and path.is_file() and not path.is_symlink():
                path.unlink()
                Path(name.removesuffix(PART) + TAG).unlink(missing_ok=True)


# --- our own directory ------------------------------------------------------------------------


def _plan_owner(facts: Facts, world: World) -> list[str]:
    path = facts.settings.state
    make = [] if path.is_dir() else [f"create {path}"]
    return [*make, f"give {path} and all in it to {facts.machine.account.name}"]


def _owner(facts: Facts, world: World) -> None:
    account, top = facts.machine.account, facts.settings.state
    if account.uid is None:
        raise Trouble(f"there is no account {account.name}; run the deploy on this box once more")
    gid = account.gids[0] if account.gids else -1
    top.mkdir(parents=True, exist_ok=True)
    os.chown(top, account.uid, gid, follow_symlinks=False)
    for place, folders, names in os.walk(top):
        for name in (*folders, *names):
            os.chown(Path(place) / name, account.uid, gid, follow_symlinks=False)


# --- the user's login files -------------------------------------------------------------------


def without_override(content: str, off: str = SHELL_OFF) -> str:
    """The text with every line outside of our block turned off that only sets the override."""
    doomed = {number for number, line in settings_of(content) if PLAIN.fullmatch(line)}
    lines = content.splitlines(keepends=True)
    return "".join(f"{off}{line}" if n in doomed else line for n, line in enumerate(lines, 1))


def _off(path: Path) -> str:
    # environment.d(5) holds assignments and comments, no statements.
    return OFF if path.suffix == ".conf" else SHELL_OFF


def _login_files(facts: Facts, world: World) -> list[Path]:
    found = facts.software.leftovers
    names = dict.fromkeys(one.path for one in found if one.of_user and one.plain)
    return [world.path(name) for name in names]


def _plan_login(facts: Facts, world: World) -> list[str]:
    told: list[str] = []
    with acting_as(facts.machine.account):
        for path in _login_files(facts, world):
            before = _content(path)
            after = without_override(before, _off(path))
            told += difflib.unified_diff(
                before.splitlines(), after.splitlines(), str(path), str(path), lineterm="", n=1
            )
            told.append(f"the file as it is now is kept as {_backup(path, world.now())}")
    return told


def _content(path: Path) -> str:
    # Bytes that are no UTF-8 must come back as they were.
    return path.read_bytes().decode("utf-8", errors="surrogateescape")


def _login(facts: Facts, world: World) -> None:
    with acting_as(facts.machine.account):
        for path in _login_files(facts, world):
            path = path.resolve()  # a link stays a link, as with dotfiles in a repository
            before = _content(path)
            after = without_override(before, _off(path))
            if after == before:
                continue
            kept = _backup(path, world.now())
            kept.touch(mode=path.stat().st_mode & 0o7777, exist_ok=False)
            write_over(kept, before.encode("utf-8", errors="surrogateescape"))
            write_over(path, after.encode("utf-8", errors="surrogateescape"))


FIXES: tuple[Fix, ...] = (
    Fix("state-owner", "give the tools' directory its owner", True, False, _plan_owner, _owner),
    Fix(
        "tunableop-aside",
        "put TunableOp's results of another version aside",
        False,
        False,
        _plan_aside,
        _aside,
    ),
    Fix("part-leftovers", "remove dead downloads", False, False, _plan_parts, _parts),
    Fix(
        "bashrc-override",
        "turn HSA_OVERRIDE_GFX_VERSION off in the user's login files",
        False,
        True,
        _plan_login,
        _login,
    ),
    # Last: what was mended before may be why it did not start.
    Fix("start-service", "start the service", True, False, _plan_start, _start),
)
