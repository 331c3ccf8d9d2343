"""Facts about the machine: the account, the GPU's devices, kernel, memory, disks, settings."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from boxtools.doctor.world import World, listed, name_of_group
from boxtools.errors import Trouble
from boxtools.gpu import Gpu, kfd_targets
from boxtools.host import Memory, memory
from boxtools.settings import Settings

GROUPS = ("render", "video")
# A file system on which ComfyUI's temporary files are in memory.
IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Account:
    """The account that runs the service; ``uid`` is None where there is none."""

    name: str
    uid: int | None = None
    home: str = ""
    groups: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Device:
    """A device node and whether the account may open it for reading and writing."""

    path: str
    owner: int
    group: str
    mode: int  # permission bits
    usable: bool


@dataclass(frozen=True)
class Disk:
    """A file system that matters; sizes in bytes, None where it cannot be asked."""

    what: str
    path: str
    total: int | None
    free: int | None
    kind: str  # ext4, tmpfs, ..., empty where unknown


@dataclass(frozen=True)
class Machine:
    """The machine as it is now."""

    account: Account
    devices: tuple[Device, ...]
    gpu: Gpu | None
    targets: tuple[str, ...]  # of KFD, e.g. gfx1151
    kernel: str  # release, as uname -r
    dkms: str | None  # amdgpu-dkms: status and version, empty where absent, None where unknown
    firmware: str | None  # version of the package linux-firmware, as above
    memory: Memory | None
    disks: tuple[Disk, ...]
    power: tuple[str, ...]  # "platform_profile low-power", "power_dpm_force_... low"
    time: float  # seconds since 1970
    synchronised: bool | None
    state_owner: int | None  # uid that owns settings.state, None where it is absent


def read_machine(world: World, settings: Settings) -> Machine:
    """Look at all of it."""
    account = read_account(world, settings.user)
    return Machine(
        account=account,
        devices=tuple(_devices(world, account)),
        gpu=world.gpu(world.root),
        targets=tuple(target for _, target in kfd_targets(world.root)),
        kernel=world.text("/proc/sys/kernel/osrelease").strip(),
        dkms=_package(world, "amdgpu-dkms"),
        firmware=_package(world, "linux-firmware"),
        memory=_memory(world),
        disks=tuple(_disks(world, settings)),
        power=tuple(_power(world)),
        time=world.now(),
        synchronised=_synchronised(world),
        state_owner=_owner(settings.state),
    )


def read_account(world: World, user: str) -> Account:
    """The account, by whatever the box's name service is: files, LDAP, systemd."""
    fields = world.run(["getent", "passwd", user]).out.strip().split(":")
    if len(fields) < 7 or not fields[2].isdecimal():
        return Account(user)
    numbers = world.run(["id", "-G", user]).out.split()
    names = world.run(["id", "-Gn", user]).out.split()
    gids = tuple(int(number) for number in numbers if number.isdecimal())
    return Account(user, int(fields[2]), fields[5], tuple(names), gids)


def may_use(info_mode: int, owner: int, group: int, account: Account) -> bool:
    """Whether the permission bits let the account read and write."""
    if account.uid == 0:
        return True
    if account.uid == owner:
        return info_mode & 0o600 == 0o600
    if group in account.gids:
        return info_mode & 0o060 == 0o060
    return info_mode & 0o006 == 0o006


def _devices(world: World, account: Account) -> list[Device]:
    nodes = [world.path("/dev/kfd")]
    nodes += [p for p in listed(world.path("/dev/dri")) if re.fullmatch(r"renderD\d+", p.name)]
    found = []
    for node in nodes:
        try:
            info = node.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(info.st_mode)
        usable = may_use(mode, info.st_uid, info.st_gid, account)
        path = "/" + str(node.relative_to(world.root))
        found.append(Device(path, info.st_uid, name_of_group(info.st_gid), mode, usable))
    return found


def _package(world: World, name: str) -> str | None:
    said = world.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Version}", name])
    if said.code is None:
        return None
    # dpkg-query ends with 1 for a package that it never heard of.
    return said.out.strip() if said.code == 0 else ""


def _memory(world: World) -> Memory | None:
    try:
        return memory(world.root)
    except Trouble:
        return None


def _disks(world: World, settings: Settings) -> list[Disk]:
    places = [
        ("releases", settings.current.parent),
        ("ComfyUI", settings.base_directory),
        ("archive", settings.archive),
        ("temporary files", settings.temp_directory),
        ("state", settings.state),
    ]
    table = mounts(world.text("/proc/self/mounts"))
    found = []
    for what, path in places:
        if path is None:
            continue
        room = world.room(path)
        total, free = (room.total, room.free) if room else (None, None)
        found.append(Disk(what, str(path), total, free, kind_of(table, path)))
    return found


def mounts(table: str) -> dict[str, str]:
    """File system by mount point, from ``/proc/self/mounts``."""
    found = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 3:
            # The kernel writes space, tab, newline and backslash in octal (proc.rst, seq_file).
            place = re.sub(r"\\([0-3][0-7]{2})", lambda m: chr(int(m[1], 8)), words[1])
            found[place] = words[2]  # a later mount hides an earlier one
    return found


def kind_of(table: dict[str, str], path: Path) -> str:
    """File system that ``path`` is on; empty where the table does not say."""
    for place in (path, *path.parents):
        if str(place) in table:
            return table[str(place)]
    return ""


def _power(world: World) -> list[str]:
    found = []
    profile = world.text("/sys/firmware/acpi/platform_profile").strip()
    if profile:
        found.append(f"platform_profile {profile[:40]}")
    for card in listed(world.path("/sys/class/drm")):
        level = world.text(
            Path("/sys/class/drm") / card.name / "device/power_dpm_force_performance_level"
        ).strip()
        if level and re.fullmatch(r"card\d+", card.name):
            found.append(f"power_dpm_force_performance_level {level[:40]}")
    return found


def _synchronised(world: World) -> bool | None:
    said = world.run(["timedatectl", "show", "--property", "NTPSynchronized", "--value"])
    return {"yes": True, "no": False}.get(said.out.strip())


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None
