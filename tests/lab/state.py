"""Runs on a box: its state as a flat mapping, so that two states can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess

# What changes by itself, each with the reason. Everything else on the disk is compared.
IGNORED = (
    (r"^/(proc|sys|dev|run|tmp)(/|$)", "not on the disk"),
    (r"^/var/log/", "logs"),
    (r"^/var/tmp/", "temporary by definition"),
    (r"^/var/cache/", "caches: apt's indexes, uv, ldconfig; they decide nothing"),
    (r"^/var/lib/apt/(lists|periodic|extended_states$)", "apt's indexes, compared by dpkg below"),
    (r"^/var/lib/systemd/(timers|random-seed|coredump|linger|timesync|catalog)", "systemd's own"),
    (r"^/var/lib/dpkg/(lock|triggers|.*-old$)", "locks and the copy dpkg makes on every call"),
    (r"^/var/lib/(private|sudo)(/|$)", "sudo's lecture marks"),
    (r"^/etc/(machine-id|mtab|resolv\.conf|hosts|hostname|ld\.so\.cache)$", "the container's own"),
    (r"^/root/\.(cache|local|bash_history)(/|$)", "caches of root's programs"),
    (r"^/home/[^/]+/\.(cache|sudo_as_admin_successful|bash_history)(/|$)", "caches"),
    (r"/__pycache__(/|$)", "byte code"),
    (r"/ComfyUI/user/(comfyui\.db|.*\.log)", "ComfyUI's database and logs while it runs"),
    (r"/ComfyUI/temp(/|$)", "ComfyUI's temporary files"),
    (r"/\.git/(index|FETCH_HEAD|logs/)", "git refreshes its index when it is asked for status"),
    (r"^/(boot|media|mnt|srv)$", "mount points of the container"),
)
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
        directories[:] = [d for d in directories if not SKIP.search(os.path.join(folder, d) + "/")]
        for name in (*directories, *names):
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


def main() -> dict[str, str]:
    """Paths, ``dpkg:``, ``hold:``, ``unit:`` and ``mount:`` keys."""
    state = walk()
    for line in lines("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}${Version}\n"):
        package, _, rest = line.partition(" ")
        state[f"dpkg:{package}"] = rest
    for package in lines("apt-mark", "showhold"):
        state[f"hold:{package}"] = "held"
    for line in lines("systemctl", "list-unit-files", "--no-legend", "--plain"):
        unit, enabled = line.split()[:2]
        state[f"unit:{unit}"] = enabled
    for unit in ("comfyui.service", "strixbox-preload.service"):
        state[f"active:{unit}"] = " ".join(lines("systemctl", "is-active", unit))
        state[f"pid:{unit}"] = " ".join(lines("systemctl", "show", "-p", "MainPID", unit))
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
