"""A test box: a container with systemd as PID 1, sshd, and an account with sudo."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from strixbox.lab import NUMBER
from tests.lab.podman import LIMITS, LabError, podman, run

PREFIX = "strixbox-" if NUMBER == 1 else f"strixbox{NUMBER}-"
NETWORK = f"{PREFIX}lab"
SUBNET_PREFIX = f"10.89.{76 + NUMBER}"
LABEL = f"strixbox={NUMBER}"
MIRROR_ADDRESS = f"{SUBNET_PREFIX}.2"
START = (
    *("--systemd=always", "--cap-add", "SYS_ADMIN", "--network", NETWORK),
    *("--add-host", f"mirror.lab:{MIRROR_ADDRESS}", "--add-host", f"radeon.lab:{MIRROR_ADDRESS}"),
    *LIMITS,
)


# Process 1 of each container as this machine numbers it, with the time at which it was started.
_INIT: dict[str, tuple[int, str]] = {}
_ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


def entered(container: str, words: list[str], text: str) -> subprocess.CompletedProcess[str]:
    """Run words as root within a container's namespaces: 7 ms, where podman exec takes 0.3 s."""
    if container not in _INIT or _start_time(_INIT[container][0]) != _INIT[container][1]:
        pid = int(podman("inspect", "--format", "{{.State.Pid}}", container).stdout)
        started = _start_time(pid) if pid else ""
        if not started:
            return subprocess.CompletedProcess(words, 125, "", f"{container} does not run")
        _INIT[container] = pid, started
    enter = ("nsenter", "--all", f"--target={_INIT[container][0]}", "--")
    return run(*enter, *words, check=False, text=text, environment=_ENVIRONMENT)


def _start_time(pid: int) -> str:
    """When a process started, so that a number that was given anew is not taken for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # starttime of proc(5)


@cache
def _state_program() -> str:
    return files("tests.lab").joinpath("state.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Box:
    """One running box."""

    name: str
    address: str
    key: Path

    @property
    def container(self) -> str:
        """Name of the container."""
        return PREFIX + self.name

    def run(
        self, command: str | list[str], *, user: str = "root", check: bool = True, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line or words inside the box."""
        words = ["sh", "-c", command] if isinstance(command, str) else command
        if user == "root":
            answer = entered(self.container, words, text)
        else:
            answer = podman(
                *("exec", "-i", "--user", user, self.container), *words, check=False, text=text
            )
        if check and answer.returncode != 0:
            raise LabError(f"{self.name}: {command} failed: {answer.stdout}{answer.stderr}")
        return answer

    def read(self, path: str) -> str:
        """Text of a file on the box."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: str, *, owner: str = "root", mode: str = "644") -> None:
        """Write a file on the box."""
        self.run(["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path], text=text)
        self.run(["chown", owner, path])
        self.run(["chmod", mode, path])

    def main_pid(self, unit: str) -> str:
        """Process of a running service."""
        return self.run(["systemctl", "show", "--value", "--property=MainPID", unit]).stdout.strip()

    def state(self) -> dict[str, str]:
        """Files, packages, units and mounts, for telling whether a run changed anything."""
        found: dict[str, str] = json.loads(self.run(["python3", "-"], text=_state_program()).stdout)
        return found

    def _ssh_answers(self) -> bool:
        """Whether sshd greets; noble starts it by socket, so no unit's state tells."""
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    @contextmanager
    def clock(self, offset: str) -> Iterator[None]:
        """Have Python, and what it starts, see another time, e.g. ``+10y``.

        A container shares the kernel's clock. sshd's sandbox kills an sshd that is told otherwise.
        """
        library = self.run("ls /usr/lib/*/faketime/libfaketimeMT.so.1").stdout.strip()
        words = f"exec env LD_PRELOAD={library} FAKETIME={offset} /usr/bin/python3"
        self.write("/usr/local/bin/python3", f'#!/bin/sh\n{words} "$@"\n', mode="755")
        try:
            yield
        finally:
            self.run("rm /usr/local/bin/python3")

    def power_off(self) -> None:
        """End it at once, as when the power fails."""
        _INIT.pop(self.container, None)
        podman("kill", self.container)

    def power_on(self) -> None:
        """Start it again with the disk it had."""
        podman("start", self.container)
        self.wait()

    def remove(self) -> None:
        """Take it away with its disk."""
        _INIT.pop(self.container, None)
        podman("rm", "--force", "--time", "0", "--volumes", self.container, check=False)

    def wait(self, seconds: float = 60) -> None:
        """Wait until systemd is up and sshd answers."""
        end = time.monotonic() + seconds
        state = ""
        while time.monotonic() < end:
            state = self.run("systemctl is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded") and self._ssh_answers():
                return
            time.sleep(0.2)
        raise LabError(f"{self.name} did not come up in {seconds:.0f} s (systemd: {state})")


def start_box(name: str, image: str, key: Path) -> Box:
    """Start a box from an image, in place of one of that name."""
    container = PREFIX + name
    _INIT.pop(container, None)
    podman("rm", "--force", "--time", "0", "--volumes", container, check=False)
    address = fixed_address(name, key.parent)
    podman(
        *("run", "--detach", *START, "--hostname", name, "--name", container),
        *("--ip", address, "--mac-address", mac_of(address)),
        *("--label", LABEL, "--label", "strixbox-kind=box", image, "/sbin/init"),
    )
    box = Box(name, address_of(container), key)
    box.wait()
    return box


def fixed_address(name: str, folder: Path) -> str:
    """The box's own address: it stays the same when the power comes back, or the box anew.

    box1, box2, ... have 11, 12, ...; other names get numbers from 50 on as they come, noted in
    ``folder``.
    """
    match = re.fullmatch(r"box(\d{1,2})", name)
    if match:
        return f"{SUBNET_PREFIX}.{10 + int(match.group(1))}"
    note = folder / "addresses.json"
    known: list[str] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else []
    if name not in known:
        known.append(name)
        note.write_text(json.dumps(known), encoding="utf-8")
    return f"{SUBNET_PREFIX}.{50 + known.index(name)}"


def mac_of(address: str) -> str:
    """A hardware address that goes with an address of the lab.

    A new box at an old one's address is otherwise looked for at the old hardware address until
    this machine's neighbour table forgets it, which takes up to a minute.
    """
    octets = (int(part) for part in address.split("."))
    return ":".join(["02", "5b", *(f"{octet:02x}" for octet in octets)])


def address_of(container: str) -> str:
    """IPv4 address of a container in the lab's network."""
    form = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
    return podman("inspect", "--format", form, container).stdout.strip()


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs between two states, one line each."""
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


# What two runs that end alike still differ in, each with the reason.
UNSETTLED = re.compile(
    r"pid:"
    r"|/etc/(group|gshadow|passwd|shadow)-:"  # copies that gpasswd and useradd make on every call
    r"|/var/backups/"  # times in its index, and what dpkg-db-backup keeps
    r"|/var/lib/strixbox/files\.json:"  # inodes and times of verified files
    r"|/var/lib/strixbox/generations/[^/]+/answered:"  # when it answered last
    r"|/opt/strixbox/releases/[^/]+/release\.json:"  # when it was built
    # uv notes the time of a wheel's file, and the hash of that note.
    r"|/opt/strixbox/releases/.*\.dist-info/(uv_cache\.json|RECORD):"
)


def settled_difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs between two boxes that were brought to the same state."""
    return [line for line in difference(before, after) if not UNSETTLED.match(line)]
