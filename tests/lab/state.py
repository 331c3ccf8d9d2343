"""Runs on a box: its state as a flat mapping, so that two states can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import time

# What changes by itself, each with the reason. Everything else is compared, /tmp too.
IGNORED = (
    (r"^/(proc|sys|dev|run)(/|$)", "the kernel's, or gone with the next boot"),
    (r"^/tmp/systemd-private-", "PrivateTmp= of a service that runs, by a random name"),
    (r"^/tmp/\.(ICE|X11|XIM|Test|font)-unix(/|$)", "made by systemd-tmpfiles at every boot"),
    (r"^/tmp/comfyui_cache/", "the RAM disk's content; the mount itself is compared below"),
    (r"^/var/log/", "logs"),
    (r"^/var/tmp/", "temporary by definition"),
    (r"^/var/cache/", "caches: apt's indexes, uv, ldconfig; they decide nothing"),
    (r"^/var/lib/apt/(lists|periodic)", "apt's indexes; what they led to is compared by dpkg"),
    (r"^/var/lib/apt/extended_states$", "its order changes; compared by apt-mark below"),
    (r"^/var/lib/systemd/(timers|random-seed|coredump|timesync|catalog)", "systemd's own"),
    (r"^/var/lib/dpkg/(lock|triggers|.*-old$)", "locks and the copy dpkg makes on every call"),
    (r"^/var/lib/private(/|$)", "state of systemd's DynamicUser= services, none of them ours"),
    (r"^/var/lib/sudo(/|$)", "sudo's lecture marks"),
    (r"^/etc/(machine-id|mtab|resolv\.conf|hosts|hostname)$", "the container's own"),
    (r"^/etc/ld\.so\.cache$", "ldconfig's cache of libraries that are compared"),
    (r"^/root/\.(cache|local|bash_history)(/|$)", "caches of root's programs"),
    (r"^/home/[^/]+/\.cache(/|$)", "caches"),
    (r"^/home/[^/]+/\.(sudo_as_admin_successful|bash_history)$", "marks of logins"),
    (r"/__pycache__(/|$)", "byte code"),
    (r"/ComfyUI/user/(comfyui\.db|.*\.log)", "ComfyUI's database and logs while it runs"),
    (r"/ComfyUI/temp(/|$)", "ComfyUI's temporary files"),
    (r"/\.git/(index|FETCH_HEAD|logs/)", "git refreshes its index when it is asked for status"),
    (r"^/(boot|media|mnt|srv)$", "mount points of the container"),
)
OURS = ("comfyui*", "strixbox-*")
SERVER = "comfyui.service"  # runs on; the others are one-shots
SKIP = re.compile("|".join(pattern for pattern, _ in IGNORED))


def entry(path: str) -> str:
    """Type, mode, owner and content of one path."""
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    text = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
    if stat.S_ISLNK(info.st_mode):
        return f"{text} -> {os.readlink(path)}"
    if kind == stat.S_IFREG:
        with open(path, "rb") as stream:
            return f"{text} {hashlib.file_digest(stream, 'sha256').hexdigest()}"
    return text


def walk() -> dict[str, str]:
    """Every path that is compared."""
    found: dict[str, str] = {}
    for folder, directories, names in os.walk("/"):
        found_here = (*directories, *names)
        directories[:] = [d for d in directories if not SKIP.search(os.path.join(folder, d) + "/")]
        for name in found_here:
            path = os.path.join(folder, name)
            if SKIP.search(path):
                continue
            try:
                found[path] = entry(path)
            except OSError:
                continue
    return found


def lines(*words: str) -> list[str]:
    """Output lines of a program."""
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    return answer.stdout.splitlines()


def settled_units() -> dict[str, tuple[str, str]]:
    """Active state and process of every unit that is ours, once those that end have ended."""
    end = time.monotonic() + 30
    while True:
        listed = lines("systemctl", "list-unit-files", "--no-legend", "--plain", *OURS)
        found = {}
        for unit in (line.split()[0] for line in listed):
            words = ("systemctl", "show", "--value", "--property", "ActiveState,MainPID", unit)
            first, second = lines(*words)
            # In systemd's own order, which is not that of the question.
            pid, active = (first, second) if first.isdigit() else (second, first)
            found[unit] = (active, pid)
        running = [u for u, (active, _) in found.items() if u != SERVER and active == "activating"]
        if not running or time.monotonic() > end:
            return found
        time.sleep(0.2)


def main() -> dict[str, str]:
    """Paths, ``dpkg:``, ``hold:``, ``auto:``, ``unit:``, ``active:`` and ``mount:`` keys."""
    units = settled_units()
    state = walk()
    for line in lines("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}${Version}\n"):
        package, _, rest = line.partition(" ")
        state[f"dpkg:{package}"] = rest
    for package in lines("apt-mark", "showhold"):
        state[f"hold:{package}"] = "held"
    for package in lines("apt-mark", "showauto"):
        state[f"auto:{package}"] = "installed for another one"
    for line in lines("systemctl", "list-unit-files", "--no-legend", "--plain"):
        unit, enabled = line.split()[:2]
        state[f"unit:{unit}"] = enabled
    for unit, (active, pid) in units.items():
        state[f"active:{unit}"] = active
        state[f"pid:{unit}"] = pid
    for line in lines("findmnt", "--list", "--noheadings", "--output", "TARGET,FSTYPE,OPTIONS"):
        target, fstype, options = line.split(None, 2)
        if not target.startswith(("/proc", "/sys", "/dev", "/run")):
            # The container's own layers differ from box to box.
            kept = [
                o
                for o in options.split(",")
                if not o.startswith(("lower", "upper", "work", "uuid"))
            ]
            state[f"mount:{target}"] = f"{fstype} {','.join(kept)}"
    return state


if __name__ == "__main__":
    print(json.dumps(main()))
