"""The RAM disk: its entry in fstab and the mount itself."""

from __future__ import annotations

from typing import Any

from pyinfra.context import host

from strixbox.config import Tmpfs
from strixbox.facts import TmpfsMount
from strixbox.layout import BACKUPS
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.programs import Run, write

FLAGS = ("nosuid", "nodev")


def fstab_entry(tmpfs: Tmpfs, ids: list[int]) -> str:
    """The line of fstab: private to the account, bounded, and no obstacle to booting."""
    options = f"size={tmpfs.size_gib}G,mode=0700,uid={ids[0]},gid={ids[1]},nosuid,nodev,nofail"
    path = tmpfs.path.replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011")
    return f"tmpfs {path} tmpfs {options} 0 0"


def mount_is_right(tmpfs: Tmpfs, now: dict[str, Any]) -> bool:
    """Whether a tmpfs of this size with these flags is mounted."""
    mount = now["mount"]
    return bool(
        mount
        and mount["fstype"] == "tmpfs"
        and mount["size"] == tmpfs.size_gib << 30
        and set(FLAGS) <= set(mount["flags"])
    )


@box_operation
def tmpfs_mount(tmpfs: Tmpfs, user: str) -> Steps:
    """Have the RAM disk in fstab and mounted; a change of size remounts it and keeps its files.

    + tmpfs: path and size
    + user: the account that alone may use it
    """
    now = ask(TmpfsMount, path=tmpfs.path, user=user)
    if now["ids"] is None:
        raise BoxTrouble(f"There is no account {user} on the box; create it or set box_user.")
    entry = fstab_entry(tmpfs, now["ids"])
    in_fstab = now["fstab"] == [entry]
    owned = now["root"] == {"mode": "700", "ids": now["ids"]}
    right = mount_is_right(tmpfs, now)
    if in_fstab and right and owned and not now["stale"]:
        host.noop(f"{tmpfs.path} is mounted with {tmpfs.size_gib} GiB")
        return
    if not in_fstab:
        say(f"/etc/fstab: {entry}")
        # findmnt --verify asks for the directory, which systemd would make at boot.
        yield Run("mkdir", "-p", tmpfs.path, mend="")
        yield write(
            "fstab_entry",
            {"fstab": "/etc/fstab", "path": tmpfs.path, "entry": entry, "backups": BACKUPS},
        )
    if not in_fstab or now["stale"]:
        yield Run("systemctl", "daemon-reload", mend="systemd could not read its units again.")
    if not right:
        say(f"{tmpfs.path}: mount with {tmpfs.size_gib} GiB")
        yield from _mount(tmpfs, now["mount"])
    if not (right and owned):
        yield Run("chown", f"{now['ids'][0]}:{now['ids'][1]}", tmpfs.path, mend="")
        yield Run("chmod", "700", tmpfs.path, mend="")


def _mount(tmpfs: Tmpfs, mount: dict[str, Any] | None) -> Steps:
    if mount is None:
        yield Run("mkdir", "-p", tmpfs.path, mend="")
        yield Run("mount", tmpfs.path, mend=f"{tmpfs.path} could not be mounted; see dmesg.")
    elif mount["fstype"] == "tmpfs":
        options = ",".join(["remount", f"size={tmpfs.size_gib}G", *FLAGS])
        yield Run(
            *("mount", "-o", options, tmpfs.path),
            mend=f"{tmpfs.path} could not be remounted: it may hold more than"
            f" {tmpfs.size_gib} GiB; stop comfyui.service, empty it and run again.",
        )
    else:
        raise BoxTrouble(
            f"{tmpfs.path} is the mount point of a {mount['fstype']} file system;"
            " set tmpfs_path to another directory."
        )
