"""The RAM disk: its entry in fstab and the mount itself."""

from __future__ import annotations

from typing import Any

from pyinfra.context import host

from strixbox.box.fstab_entry import with_entry
from strixbox.config import Tmpfs
from strixbox.facts import FileText, TmpfsMount
from strixbox.layout import BACKUPS
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import show_changes
from strixbox.programs import UNWRITTEN, Run, write

FLAGS = ("nosuid", "nodev")


def fstab_entry(tmpfs: Tmpfs, ids: list[int]) -> str:
    """The line of fstab: private to the account, bounded, and no obstacle to booting."""
    options = f"size={tmpfs.size_gib}G,mode=0700,uid={ids[0]},gid={ids[1]},nosuid,nodev,nofail"
    path = tmpfs.path.replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011")
    return f"tmpfs {path} tmpfs {options} 0 0"


def place_trouble(
    path: str, place: dict[str, Any] | None, mount: dict[str, Any] | None = None
) -> tuple[str, str] | None:
    """Why no RAM disk may be mounted there, and the mend; None where it may.

    + place: kind of what stands there and the names that a mount would hide; None where something
        is mounted
    + mount: what is mounted there
    """
    if mount and mount["fstype"] != "tmpfs":
        return (
            f"{path} is the mount point of a {mount['fstype']} file system",
            "set tmpfs_path to another directory",
        )
    if place is None or place["kind"] == "absent":
        return None
    if place["kind"] != "directory":
        # Under /tmp anybody may have put a link there, which mount would follow.
        return (
            f"{path} shall be a mount point but is a {place['kind']}",
            "remove it and run again",
        )
    if place["holds"]:
        some = ", ".join(place["holds"][:3])
        return (
            f"{path} shall be a mount point but holds {len(place['holds'])} files or directories"
            f" ({some}), which would be hidden",
            "move them away, or set tmpfs_path to another directory, then run again",
        )
    return None


def mount_is_right(tmpfs: Tmpfs, now: dict[str, Any]) -> bool:
    """Whether a tmpfs of this size with these flags is mounted."""
    mount = now["mount"]
    return bool(
        mount
        and mount["fstype"] == "tmpfs"
        and mount["size"] == tmpfs.size_gib << 30
        and set(FLAGS) <= set(mount["flags"])
    )


def is_owned(now: dict[str, Any]) -> bool:
    """Whether the account alone may use what is mounted."""
    return bool(now["root"] == {"mode": "700", "ids": now["ids"]})


def mount_troubles(tmpfs: Tmpfs, now: dict[str, Any]) -> tuple[str, ...]:
    """In words, what differs between the RAM disk as it is and as it shall be.

    + now: what the fact TmpfsMount tells
    """
    ids = now["ids"]
    right = mount_is_right(tmpfs, now)
    checks = (
        (right, f"{tmpfs.path} is not mounted with its size and flags"),
        (not right or is_owned(now), f"{tmpfs.path} is not its account's alone"),
        (
            ids is not None and now["fstab"] == [fstab_entry(tmpfs, ids)],
            "its line in /etc/fstab differs",
        ),
        (not now["stale"], "systemd has not read /etc/fstab as it is now"),
    )
    return tuple(trouble for holds, trouble in checks if not holds)


@box_operation
def tmpfs_mount(tmpfs: Tmpfs, user: str) -> Steps:
    """Have the RAM disk in fstab and mounted; a change of size remounts it and keeps its files.

    + tmpfs: path and size
    + user: the account that alone may use it
    """
    now = ask(TmpfsMount, path=tmpfs.path, user=user)
    if now["ids"] is None:
        raise BoxTrouble(f"There is no account {user} on the box; create it or set box_user.")
    trouble = place_trouble(tmpfs.path, now["place"], now["mount"])
    if trouble:
        raise BoxTrouble("; ".join(trouble) + ".")
    if not mount_troubles(tmpfs, now):
        host.noop(f"{tmpfs.path} is mounted with {tmpfs.size_gib} GiB")
        return
    entry = fstab_entry(tmpfs, now["ids"])
    in_fstab = now["fstab"] == [entry]
    owned = is_owned(now)
    right = mount_is_right(tmpfs, now)
    if not in_fstab:
        say(f"/etc/fstab: {entry}")
        text = ask(FileText, path="/etc/fstab")
        wanted = with_entry(text.encode(), tmpfs.path, entry).decode()
        show_changes("/etc/fstab", text, wanted)
        # findmnt --verify asks for the directory, which systemd would make at boot.
        yield Run("mkdir", "-p", tmpfs.path, mend=UNWRITTEN)
        yield write(
            "fstab_entry",
            {"fstab": "/etc/fstab", "path": tmpfs.path, "entry": entry, "backups": BACKUPS},
            live=True,
        )
    if not in_fstab or now["stale"]:
        yield Run("systemctl", "daemon-reload", mend="systemd could not read its units again.")
    if not right:
        say(f"{tmpfs.path}: mount with {tmpfs.size_gib} GiB")
        yield from _mount(tmpfs, now["mount"])
    if not (right and owned):
        yield Run("chown", f"{now['ids'][0]}:{now['ids'][1]}", tmpfs.path, mend=UNWRITTEN)
        yield Run("chmod", "700", tmpfs.path, mend=UNWRITTEN)


def _mount(tmpfs: Tmpfs, mount: dict[str, Any] | None) -> Steps:
    if mount is None:
        yield Run("mkdir", "-p", tmpfs.path, mend=UNWRITTEN)
        yield Run("mount", tmpfs.path, mend=f"{tmpfs.path} could not be mounted; see dmesg.")
    else:
        options = ",".join(["remount", f"size={tmpfs.size_gib}G", *FLAGS])
        yield Run(
            *("mount", "-o", options, tmpfs.path),
            mend=f"{tmpfs.path} could not be remounted: it may hold more than"
            f" {tmpfs.size_gib} GiB; stop comfyui.service, empty it and run again.",
        )
