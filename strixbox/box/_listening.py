"""Part of programs: who listens on a TCP port of this machine."""

from __future__ import annotations

import os


def listening(port: int) -> set[str]:
    """The sockets that listen on the port, as links of /proc/PID/fd name them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii", errors="replace") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{row[9]}]")
    return found


def processes(control_group: str) -> list[str]:
    """Processes of a unit, by its ControlGroup; none where this machine has no such hierarchy."""
    found: list[str] = []
    for folder, _, names in os.walk(f"/sys/fs/cgroup{control_group}") if control_group else ():
        if "cgroup.procs" in names:
            try:
                with open(f"{folder}/cgroup.procs", encoding="ascii") as stream:
                    found += stream.read().split()
            except OSError:
                continue
    return found


def have(process: str, sockets: set[str]) -> bool | None:
    """Whether a process has one of the sockets open; None where that cannot be seen.

    Not every root may look: one in a container has no CAP_SYS_PTRACE.
    """
    folder = f"/proc/{process}/fd"
    try:
        names = os.listdir(folder)
    except PermissionError:
        return None
    except OSError:
        return False  # it has ended
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") in sockets:
                return True
        except PermissionError:
            return None
        except OSError:
            continue
    return False
