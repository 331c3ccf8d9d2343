"""podman, called with the flags that real systemd boxes need on these machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

HOST_PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "gpg": "gnupg",
    "git": "git",
    "ssh-keygen": "openssh-client",
    "newuidmap": "uidmap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
    "iptables": "iptables",  # netavark 1.4 sets up the network with it
}
HOST_FILES = {
    "/usr/lib/podman/netavark": "netavark",
}

# Without these runc fails with 'setrlimit' where the machine gives no CAP_SYS_RESOURCE.
LIMITS = (*("--ulimit", "nofile=1024:20000", "--ulimit", "nproc=5000:5000", "--pids-limit=-1"),)


class LabError(RuntimeError):
    """The lab could not do something; the message says what and the mend."""


def run(
    *words: str,
    check: bool = True,
    text: str | None = None,
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine; failing, the error tells its last words."""
    try:
        answer = subprocess.run(
            words,
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(words)[:160]} did not end within {timeout:.0f} s") from None
    if check and answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise LabError(f"{' '.join(words)[:160]} failed: {said[-1] if said else 'no word'}")
    return answer


def podman(
    *words: str, check: bool = True, text: str | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run podman with runc: crun refuses hybrid cgroups."""
    return run("podman", "--runtime", "runc", *words, check=check, text=text, timeout=timeout)


# Every systemd watches with several; of 128, the kernel's default for an account, some 18 boxes
# take all, and the next one never comes up (inotify(7)).
WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
MANY = 1024


def have_watchers() -> None:
    """Let many boxes run at once, until the machine boots again, where this may be changed."""
    try:
        if int(WATCHERS.read_text(encoding="ascii")) < MANY:
            WATCHERS.write_text(str(MANY), encoding="ascii")
    except (OSError, ValueError):
        return  # some 18 boxes run without


def install_host_packages(more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Install what the lab needs on this machine and does not find.

    + more: packages by programs that somebody needs besides
    """
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root: rootless containers have no address to ssh to; use sudo"
        )
    needed = {**HOST_PACKAGES, **more}
    missing = {package for program, package in needed.items() if not shutil.which(program)}
    missing |= {package for file, package in HOST_FILES.items() if not Path(file).exists()}
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"install these first: {', '.join(sorted(missing))}")
    print(f"lab: installing {', '.join(sorted(missing))}", flush=True)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run(*environment, "apt-get", "update", "--quiet")
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")
    run(*environment, *install, *sorted(missing))


def image_exists(image: str) -> bool:
    """Whether podman has the image."""
    return podman("image", "exists", image, check=False).returncode == 0
