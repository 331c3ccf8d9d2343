"""Facts about the service: its unit, process, port, answers and logs."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from boxtools.doctor.world import Answer, Run, World, listed
from boxtools.settings import Settings

PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "Result"),
    *("ExecMainStatus", "UnitFileState"),
)
LINES = 400  # of the service's log
KERNEL_LINES = 20_000  # since boot; a box that faults all the time writes more


@dataclass(frozen=True)
class Unit:
    """systemd's view; ``known`` is False where systemd does not answer."""

    known: bool
    loaded: bool = False
    active: str = ""  # active, activating, inactive, failed, ...
    result: str = ""  # success, exit-code, signal, start-limit-hit, ...
    status: str = ""  # exit code of the main process
    pid: int = 0
    restarts: int = 0
    enabled: str = ""


@dataclass(frozen=True)
class Process:
    """The service's process; None is what may not be read."""

    pid: int
    argv: list[str]
    environment: dict[str, str] | None
    gids: tuple[int, ...] | None
    directory: str | None


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket."""

    address: str
    port: int
    uid: int
    pid: int | None = None
    program: str = ""


@dataclass(frozen=True)
class Service:
    """The service as it is now."""

    unit: Unit
    process: Process | None
    listeners: tuple[Listener, ...]  # on the service's port
    answer: Answer
    log: tuple[str, ...] | None  # last lines since boot, oldest first; None: may not be read
    kernel_log: tuple[str, ...] | None  # since boot


def read_service(world: World, settings: Settings) -> Service:
    """Look at all of it."""
    unit = read_unit(world, settings.service)
    port = port_of(settings.url)
    return Service(
        unit=unit,
        process=read_process(world, unit.pid) if unit.pid else None,
        listeners=tuple(read_listeners(world, port)),
        answer=world.ask(settings.url),
        log=read_log(world.run, "--unit", settings.service, "--lines", str(LINES)),
        kernel_log=read_log(world.run, "--dmesg", "--lines", str(KERNEL_LINES)),
    )


def port_of(url: str) -> int:
    """TCP port of a URL."""
    try:
        parts = urlsplit(url)
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return 0


def read_unit(world: World, service: str) -> Unit:
    """Ask systemd about the unit."""
    said = world.run(["systemctl", "show", "--property", ",".join(PROPERTIES), service])
    shown = dict(line.partition("=")[::2] for line in said.out.splitlines())
    if "ActiveState" not in shown:
        return Unit(False)
    return Unit(
        True,
        shown.get("LoadState") == "loaded",
        shown["ActiveState"],
        shown.get("Result", ""),
        shown.get("ExecMainStatus", ""),
        _count(shown.get("MainPID")),
        _count(shown.get("NRestarts")),
        shown.get("UnitFileState", ""),
    )


def _count(word: str | None) -> int:
    return int(word) if word and word.isascii() and word.isdigit() and len(word) < 10 else 0


def read_process(world: World, pid: int) -> Process | None:
    """Command line, variables and groups of a process; None where it is gone."""
    argv = _words(world, f"/proc/{pid}/cmdline")
    if not argv:
        return None
    pairs = [word.partition("=") for word in _words(world, f"/proc/{pid}/environ")]
    status = re.search(r"^Groups:([\d \t]*)$", world.text(f"/proc/{pid}/status"), re.MULTILINE)
    try:
        directory = str(world.path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        directory = None
    return Process(
        pid,
        argv,
        {name: value for name, _, value in pairs} if pairs else None,
        tuple(int(number) for number in status[1].split()) if status else None,
        directory,
    )


def _words(world: World, path: str) -> list[str]:
    content = world.text(path).rstrip("\0")
    return content.split("\0") if content else []


def read_listeners(world: World, port: int) -> list[Listener]:
    """Who listens on the port."""
    found: dict[str, Listener] = {}
    for table in ("tcp", "tcp6"):
        for line in world.text(f"/proc/net/{table}").splitlines()[1:]:
            fields = line.split()
            if len(fields) >= 10 and fields[3] == "0A":
                address, at = parse_address(fields[1])
                if at == port and address:
                    found[fields[9]] = Listener(address, port, _count(fields[7]))
    if not found:
        return []
    owners = _owners(world, set(found))
    return [
        Listener(one.address, one.port, one.uid, *owners.get(inode, (None, "")))
        for inode, one in found.items()
    ]


def parse_address(field: str) -> tuple[str, int]:
    """Address and port of a field of ``/proc/net/tcp``; ("", 0) for what is none.

    Each group of eight digits is a word in the machine's byte order, which is little-endian.
    """
    match = re.fullmatch(r"((?:[0-9A-F]{8}){1,4}):([0-9A-F]{4})", field)
    if not match or len(match[1]) not in (8, 32):
        return "", 0
    words = [bytes.fromhex(match[1][i : i + 8])[::-1] for i in range(0, len(match[1]), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(match[2], 16)


def _owners(world: World, inodes: set[str]) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for process in listed(world.path("/proc")):
        if not process.name.isdigit() or found.keys() == inodes:
            continue
        for descriptor in listed(process / "fd"):
            try:
                match = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
            except OSError:
                continue
            if match and match[1] in inodes:
                name = world.text(f"/proc/{process.name}/comm").strip()
                found[match[1]] = (int(process.name), name)
    return found


def read_log(run: Run, *words: str) -> tuple[str, ...] | None:
    """Lines of the journal since boot; None where it may not be read or there is none."""
    said = run(["journalctl", "--no-pager", "--boot", "--output", "cat", *words])
    lines = tuple(line[:2000] for line in said.out.splitlines() if line[:3] != "-- ")
    # Without the groups adm or systemd-journal it ends with 0, shows nothing, and says why.
    return lines if said.code == 0 and (lines or not said.err) else None
