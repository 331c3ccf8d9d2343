"""Reader: what preflight must know of a box; changes nothing, and copes with every missing file."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import pwd
import re
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._disk import disk
from strixbox.box._listening import listening
from strixbox.box._regular import regular

# pam_env.conf(5) has words of its own before the equals sign.
OVERRIDE = re.compile(
    r"^[^#\n]*\bHSA_OVERRIDE_GFX_VERSION(?:[ \t]+(?:DEFAULT|OVERRIDE))?[ \t]*=.*$", re.MULTILINE
)
BLOCK = re.compile(r"# >>> strixbox >>>.*?# <<< strixbox <<<", re.DOTALL)
# Where variables are set for everybody: by PAM, by systemd, by login shells.
FOR_ALL = (
    "/etc/environment",
    "/etc/environment.d/*.conf",
    "/etc/security/pam_env.conf",
    "/etc/systemd/system.conf",
    "/etc/systemd/system.conf.d/*.conf",
    "/etc/systemd/user.conf",
    "/etc/systemd/user.conf.d/*.conf",
    "/etc/systemd/system/*.service",
    "/etc/systemd/system/*.d/*.conf",
    "/etc/systemd/user/*.service",
    "/etc/systemd/user/*.d/*.conf",
    "/etc/profile",
    "/etc/profile.d/*",
    "/etc/bash.bashrc",
    "/etc/zsh/zshenv",
    "/etc/zsh/zprofile",
    "/etc/zsh/zshrc",
)
OF_USER = (
    ".profile",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".zshenv",
    ".zprofile",
    ".zshrc",
    ".pam_environment",
    ".config/environment.d/*.conf",
    ".config/systemd/user/*.service",
    ".config/systemd/user/*.d/*.conf",
)

# What takes room, each perhaps on a disk of its own; ROCm is in /opt itself.
PLACES = ("/opt", "/opt/strixbox", "/var/cache")
LIMIT = 1 << 20  # bytes of a shell's file


def text(path: str) -> str:
    """Content of a file, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def output(*words: str) -> str:
    """Output of a program, empty where there is none."""
    try:
        answer = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def packages(*names: str) -> dict[str, str]:
    """dpkg's status and version of packages, as ``ii 1.2``; empty for an unknown one."""
    shown = output("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}${Version}\n", *names)
    found = dict(line.partition(" ")[::2] for line in shown.splitlines())
    return {name: found.get(name, "").strip() for name in names}


def distribution() -> str:
    """ID and VERSION_ID of os-release, as ubuntu-24.04."""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text("/etc/os-release"), re.MULTILINE))
    return f"{fields.get('ID', 'unknown')}-{fields.get('VERSION_ID', 'unknown')}"


def gpus() -> list[dict[str, str]]:
    """AMD display controllers on the PCI bus, with their memory pools in bytes."""
    found = []
    for device in sorted(glob.glob("/sys/bus/pci/devices/*")):
        kind = text(f"{device}/class").strip()
        if text(f"{device}/vendor").strip() == "0x1002" and kind.startswith("0x03"):
            found.append(
                {
                    "device": text(f"{device}/device").strip(),
                    "vram": text(f"{device}/mem_info_vram_total").strip(),
                    "gtt": text(f"{device}/mem_info_gtt_total").strip(),
                }
            )
    return found


def gfx_targets() -> list[str]:
    """gfx_target_version of every KFD node that is a GPU; 110501 is gfx1151."""
    nodes = glob.glob("/sys/class/kfd/kfd/topology/nodes/*/properties")
    found = (re.search(r"^gfx_target_version (\d+)", text(n), re.MULTILINE) for n in nodes)
    return sorted(m.group(1) for m in found if m and m.group(1) != "0")


def overrides(home: str, user: str, root: str = "") -> list[str]:
    """``file: line`` wherever HSA_OVERRIDE_GFX_VERSION is set outside of our own files."""
    found = settings([root + path for path in FOR_ALL])
    # As the account: what it put there leads no further than it may go itself.
    with suppress(KeyError), acting_as(user):
        found += settings([os.path.join(glob.escape(home), name) for name in OF_USER])
    return found


def settings(patterns: Sequence[str]) -> list[str]:
    """The same in files by their patterns; what is no file might be read without end."""
    found = []
    for path in (p for pattern in patterns for p in sorted(glob.glob(pattern))):
        with suppress(OSError):
            told = regular(path, LIMIT)[0].decode(errors="replace")
            lines = OVERRIDE.findall(BLOCK.sub("", told))
            found += [f"{path}: {line.strip()}" for line in lines]
    return found


def listener(port: int) -> str | None:
    """Program that listens on the TCP port, None where nobody does."""
    inodes = listening(port)
    if not inodes:
        return None
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) in inodes:
                pid = descriptor.split("/")[2]
                return f"{text(f'/proc/{pid}/comm').strip()} (process {pid})"
        except OSError:
            continue
    return "a program that cannot be seen"


def service_holds(service: str, port: int) -> bool:
    """Whether our own service runs with this port.

    Its command line tells: other processes' sockets cannot be seen by every root.
    """
    pid = output("systemctl", "show", "--property", "MainPID", "--value", service).strip()
    words = text(f"/proc/{pid}/cmdline").split("\0")
    return ("--port", str(port)) in pairwise(words)


def account(user: str) -> str | None:
    """Home directory of the account."""
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return None


def writable(path: str) -> bool:
    """Whether the file system of ``path`` takes writes."""
    try:
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False


def closed(directories: list[str], user: str) -> list[str]:
    """Why missing directories cannot be made by the account; empty where there is no such one."""
    found: dict[str, None] = {}
    with suppress(KeyError), acting_as(user):
        for path in directories:
            there = path
            while not os.path.lexists(there):
                there = os.path.dirname(there)
            if there == path:
                continue  # a link whose disk is not there too: it stays as it is
            if not os.path.isdir(there):
                found[f"{there} is no directory"] = None
            elif not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
                found[f"{there} takes nothing from {user}"] = None
    return list(found)


def mes_firmware() -> list[str]:
    """Versions of the GPU's scheduler firmware (MES) as the running driver tells them to root.

    The package's version does not: noble's is 20240318.git... with later files put in.
    """
    found: set[str] = set()
    for path in glob.glob("/sys/kernel/debug/dri/*/amdgpu_firmware_info"):
        found.update(mes_versions(text(path)))
    return sorted(found)


def mes_versions(told: str) -> list[str]:
    """Versions in the text of amdgpu_firmware_info, as 0x83; MES_KIQ is another firmware."""
    lines = re.findall(
        r"^MES feature version: \d+, firmware version: 0x([0-9a-f]+)$", told, re.MULTILINE
    )
    return [hex(int(version, 16)) for version in lines if int(version, 16)]


def secure_boot() -> str:
    """on, off or unknown, from the EFI variable's last byte."""
    for path in glob.glob("/sys/firmware/efi/efivars/SecureBoot-*"):
        try:
            with open(path, "rb") as stream:
                return "on" if stream.read()[-1:] == b"\x01" else "off"
        except OSError:
            break
    return "unknown"


def synchronised() -> str:
    """yes or no, from the kernel's own estimate, as timedatectl tells it.

    timedatectl starts a service to ask for that (systemd, src/basic/time-util.c: ntp_synced).
    """
    clock = ctypes.create_string_buffer(256)  # struct timex; all zeros: nothing is set
    if ctypes.CDLL(None).adjtimex(clock) < 0:
        return ""
    (largest_error,) = struct.unpack_from("=q", clock.raw, 24)  # microseconds
    return "yes" if largest_error < 16_000_000 else "no"


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"user", "home", "port", "service", "seal", "directories"}``.

    ``directories`` are those that the account makes where they are missing, parents first.
    """
    meminfo = re.search(r"^MemTotal:\s+(\d+) kB", text("/proc/meminfo"), re.MULTILINE)
    cpu = re.search(r"^model name\s*:\s*(.+)$", text("/proc/cpuinfo"), re.MULTILINE)
    known = packages("amdgpu-dkms", "linux-firmware", "rocm-core")
    ours = service_holds(query["service"], query["port"])
    kernel = os.uname()
    return {
        "distribution": distribution(),
        "machine": kernel.machine,
        "kernel": kernel.release,
        "cpu": cpu.group(1).strip() if cpu else "",
        "memory": int(meminfo.group(1)) * 1024 if meminfo else 0,
        "gpus": gpus(),
        "gfx_targets": gfx_targets(),
        "kfd": os.path.exists("/dev/kfd"),
        "render": bool(glob.glob("/dev/dri/renderD*")),
        "disks": {path: disk(path) for path in (*PLACES, query["home"])},
        "sealed": os.path.exists(query["seal"]),
        "rocm": known["rocm-core"],
        "driver": known["amdgpu-dkms"],
        "firmware": known["linux-firmware"].partition(" ")[2],
        "mes": mes_firmware(),
        "overrides": overrides(query["home"], query["user"]),
        "secure_boot": secure_boot(),
        "time": int(time.time()),
        "synchronised": synchronised(),
        "home": account(query["user"]),
        "closed": closed(query["directories"], query["user"]),
        "interrupted": any(map(str.isdigit, os.listdir("/var/lib/dpkg/updates")))
        if os.path.isdir("/var/lib/dpkg/updates")
        else False,
        "read_only": [path for path in ("/", "/etc", "/opt", "/var") if not writable(path)],
        "init": text("/proc/1/comm").strip(),
        "port": None if ours else listener(query["port"]),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
