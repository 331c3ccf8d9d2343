"""Judges a box before anything is changed: findings with a code, evidence, verdict and a mend."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from strixbox.config import Config
from strixbox.dpkg import is_on_disk
from strixbox.models import crowded, obstacles, plan, unmounted
from strixbox.rocm_support import BREAKS, Row, Standing, release_of_wheel, row_of

Verdict = Literal["ok", "warn", "refuse", "accepted"]
GIB = 1 << 30
# Radeon 8060S / 8050S, gfx1151.
STRIX_HALO_PCI = "0x1586"
STRIX_HALO_KFD = "110501"
# Seconds between the clocks of box and controller; TLS and apt's signatures fail with a wrong one.
CLOCKS_APART = 86_400
TO_7_2 = "put the box into the group rocm_7_2 in boxes.yaml"
# AMD's Ryzen pages name the OEM kernel; noble's own 6.8 does not know the chip at all.
NEWER_KERNEL = (
    "sudo apt install linux-oem-24.04c (or linux-generic-hwe-24.04, 6.17.0-19.19 or newer),"
    " then reboot"
)
KNOWS_THE_CHIP = (6, 11)
# What AMD's table says of a release on a kernel.
STANDINGS: dict[Standing, tuple[Verdict, str]] = {
    "supported": ("ok", "AMD supports them together on this chip"),
    "unstable": ("warn", "AMD calls them unstable together on this chip"),
    "unsupported": ("warn", "AMD does not support them together on this chip"),
}
# GPU hangs and memory faults on this chip (ROCm issue 5724); what the driver calls MES.
BROKEN_MES = "0x83"
# What apt's and uv's downloads in /var take of the room that ROCm and a release need.
DOWNLOADS = 0.25
# Pictures, ComfyUI's database and half a download, in the home.
HOME_GIB = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    code: str
    verdict: Verdict
    evidence: str
    mend: str = ""


Check = Callable[[dict[str, Any], Config], Iterator[Finding]]


def distribution(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """The distribution and architecture that packages and wheels are made for."""
    found = f"{survey['distribution']} {survey['machine']}"
    right = survey["distribution"] == cfg.box.distribution and survey["machine"] == "x86_64"
    mend = f"install {cfg.box.distribution} for amd64; ROCm's packages are built for it"
    yield Finding("OS.DISTRIBUTION", "ok" if right else "refuse", found, mend)


def system(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """systemd, writable file systems, and a dpkg that is not halfway."""
    yield Finding(
        "OS.SYSTEMD",
        "ok" if survey["init"] == "systemd" else "refuse",
        f"process 1 is {survey['init']}",
        "boot the box with systemd",
    )
    read_only = ", ".join(survey["read_only"])
    yield Finding(
        "OS.READ_ONLY",
        "refuse" if read_only else "ok",
        f"read-only: {read_only or 'nothing'}",
        "see dmesg for disk errors, then sudo mount -o remount,rw /",
    )
    yield Finding(
        "APT.INTERRUPTED",
        "warn" if survey["interrupted"] else "ok",
        "dpkg has unfinished work" if survey["interrupted"] else "dpkg is in order",
        "this run mends it (dpkg --configure -a), or waits for the dpkg that is at it",
    )


def clock(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """A clock that signatures can be checked with."""
    here = time.time()
    sane = abs(survey["time"] - here) < CLOCKS_APART
    told = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (survey["time"], here))
    yield Finding(
        "OS.CLOCK",
        "ok" if sane else "refuse",
        "{} UTC, here {} UTC".format(*told)
        + f"; synchronised: {survey['synchronised'] or 'unknown'}",
        "sudo timedatectl set-ntp true",
    )


def processor(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """CPU and memory."""
    right = "Ryzen AI Max" in survey["cpu"] or "RYZEN AI MAX" in survey["cpu"]
    yield Finding(
        "CPU.MODEL",
        "ok" if right else "warn",
        survey["cpu"] or "unknown",
        "this toolkit is tuned for the Ryzen AI Max series",
    )
    memory = survey["memory"] / GIB
    # Up to 96 GiB may be carved out for the GPU in the firmware and are not seen by the kernel.
    seen = memory + sum(int(gpu["vram"] or 0) for gpu in survey["gpus"]) / GIB
    yield Finding(
        "RAM.SIZE",
        "ok" if seen > cfg.box.ram_gib * 0.9 else "warn",
        f"{memory:.0f} GiB, {seen:.0f} GiB with the GPU's share; expected {cfg.box.ram_gib}",
        "set box_ram_gib to what the box has",
    )
    # box_ram_gib is what was bought; a RAM disk can only be made of what the kernel has.
    most = math.ceil(memory / 2)
    yield Finding(
        "RAM.TMPFS",
        "ok" if cfg.tmpfs.size_gib <= most else "refuse",
        f"RAM disk of {cfg.tmpfs.size_gib} GiB in {memory:.0f} GiB of the kernel's memory",
        f"set tmpfs_size_gib to {most} or less, or carve out less for the GPU in the BIOS",
    )


def gpu(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """The GPU on the bus, the kernel's compute driver, and its devices."""
    found = ", ".join(g["device"] for g in survey["gpus"]) or "no AMD GPU"
    right = any(g["device"] == STRIX_HALO_PCI for g in survey["gpus"])
    yield Finding(
        "GPU.PCI",
        "ok" if right else "refuse",
        f"PCI: {found}",
        "this toolkit is for the Radeon 8060S (1002:1586); see lspci -nn",
    )
    mend = "the amdgpu driver did not start: see dmesg | grep amdgpu"
    if (kernel_version(survey["kernel"]) or KNOWS_THE_CHIP) < KNOWS_THE_CHIP:
        mend = f"kernel {survey['kernel']} is too old for this chip: {NEWER_KERNEL}"
    targets = ", ".join(survey["gfx_targets"]) or "none"
    yield Finding(
        "GPU.KFD",
        "ok" if STRIX_HALO_KFD in survey["gfx_targets"] and survey["kfd"] else "refuse",
        f"KFD targets: {targets}; /dev/kfd {'there' if survey['kfd'] else 'absent'}",
        mend,
    )
    yield Finding(
        "GPU.RENDER",
        "ok" if survey["render"] else "refuse",
        "a render node is there" if survey["render"] else "no /dev/dri/renderD*",
        mend,
    )


def memory_pools(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """Carve-out and GTT: advice only, both belong to the owner."""
    for pool in (g for g in survey["gpus"] if g["device"] == STRIX_HALO_PCI):
        vram, gtt = int(pool["vram"] or 0) / GIB, int(pool["gtt"] or 0) / GIB
        yield Finding(
            "GPU.CARVE_OUT",
            "ok" if vram <= 4 else "warn",
            f"{vram:.1f} GiB are carved out in the firmware",
            "set the UMA frame buffer to 512 MB in the BIOS; the driver takes the rest from GTT",
        )
        # Of the memory that the kernel has, whatever the BIOS carved out: 24 GiB stay for the rest.
        memory = survey["memory"] / GIB
        pages = int(max(memory - 24, memory / 2) * GIB / 4096)
        yield Finding(
            "GPU.GTT",
            "ok" if gtt >= memory * 0.45 else "warn",
            f"GTT is {gtt:.1f} GiB of the kernel's {memory:.0f}",
            f"for more: options ttm pages_limit={pages} in /etc/modprobe.d/ttm.conf, then"
            " sudo update-initramfs -u and reboot",
        )


def kernel(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """The kernel against the ROCm release (AMD's table for RDNA 3.5), and releases that break."""
    # Without apt's ROCm there is only what the wheels bring.
    torch = cfg.python.torch.version if cfg.python.torch else ""
    release = cfg.rocm.version or release_of_wheel(torch)
    if not release:
        yield Finding("KERNEL.ROCM", "ok", f"kernel {survey['kernel']}; torch {torch} uses no ROCm")
        return
    fixed = kernel_is_fixed(survey["kernel"])
    row = row_of(release)
    mends = [] if fixed else [NEWER_KERNEL]
    if release in BREAKS or row is None or row.fixed != "supported":
        mends.append(TO_7_2)
    verdict, told = standing_of(release, row, fixed)
    yield Finding(
        "KERNEL.ROCM",
        verdict,
        f"kernel {survey['kernel']} with ROCm {release}: {told}"
        + ("" if fixed else "; the kernel is not known to have the two fixes that the chip needs"),
        "; and ".join(mends),
    )


def standing_of(release: str, row: Row | None, fixed: bool) -> tuple[Verdict, str]:
    """Verdict and sentence; only what is known to break is refused."""
    if release in BREAKS:
        return "refuse", "hipMalloc of this release crashes on this chip"
    if row is None:
        return "warn", "this release is not in AMD's table for this chip"
    return STANDINGS[row.fixed if fixed else row.older]


def kernel_version(release: str) -> tuple[int, int] | None:
    """Major and minor version; None of a name that has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else None


def kernel_is_fixed(release: str) -> bool:
    """Whether a kernel is known to have the two commits that gfx1151 needs (7f26af7, 7445db6).

    HWE from 6.17.0-19, OEM from 6.14.0-1018, any from 6.18.4 (AMD, RDNA 3.5 page). Build numbers
    are each flavour's own: 6.17.0-1005-oem and -azure count from 1000 and are older than the
    fixes, and AMD names no build of theirs.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)(?:-(\d+))?(?:-(\w+))?", release)
    if not match:
        return False
    version = tuple(int(part) for part in match.groups()[:3])
    build, flavour = int(match.group(4) or 0), match.group(5)
    if version >= (6, 18, 4):
        return True
    if flavour == "oem":
        return version == (6, 14, 0) and build >= 1018
    return version == (6, 17, 0) and 19 <= build < 1000


def driver(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """amdgpu-dkms and firmware."""
    # Held or stopped half-way, it shadows the kernel's driver all the same.
    installed = is_on_disk(survey["driver"])
    yield Finding(
        "DRIVER.DKMS",
        "warn" if installed else "ok",
        f"amdgpu-dkms: {survey['driver'] or 'absent'}",
        "this run purges it: it shadows the kernel's own driver; reboot afterwards",
    )
    yield firmware(survey)


def firmware(survey: dict[str, Any]) -> Finding:
    """The GPU's scheduler firmware (MES), as the running driver tells it."""
    there = any(g["device"] == STRIX_HALO_PCI for g in survey["gpus"])
    versions, package = survey["mes"], survey["firmware"] or "unknown"
    code = "FIRMWARE.BROKEN"
    if BROKEN_MES in versions:
        return Finding(
            code,
            "refuse",
            f"MES firmware {BROKEN_MES} hangs this GPU (ROCm issue 5724); package {package}",
            "sudo apt update && sudo apt install --only-upgrade linux-firmware, remove"
            " amdgpu-dkms-firmware where it is installed, then reboot",
        )
    if versions or not there:
        return Finding(code, "ok", f"MES firmware {', '.join(versions) or 'of no GPU'}")
    return Finding(
        code,
        "warn",
        f"MES firmware unknown: debugfs does not tell it; package {package} says nothing of it",
        f"sudo mount -t debugfs none /sys/kernel/debug, then run again; {BROKEN_MES} is broken",
    )


def leftovers(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """HSA_OVERRIDE_GFX_VERSION outside of our own files."""
    found = survey["overrides"]
    yield Finding(
        "ENV.OVERRIDE",
        "warn" if found else "ok",
        "; ".join(found) or "no HSA_OVERRIDE_GFX_VERSION of others",
        "remove these lines: the toolkit sets the variable where its stack needs it, and nowhere"
        " else is it anything but harmful",
    )


def room(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """Disk room for what is still to be built, on each disk; of later needs a warning only."""
    release = cfg.comfyui.release_disk_gib
    # ii, or hi where it is held.
    rocm = cfg.rocm.disk_gib if cfg.rocm.version and survey["rocm"][1:2] != "i" else 0
    now = 0 if survey["sealed"] else release
    # GiB needed now, and with the next upgrade. /opt/strixbox may be a link to another disk.
    needs = {"/opt": (rocm, rocm), "/opt/strixbox": (now, now + release)}
    verdict: Verdict = "ok"
    told = []
    for paths in by_disk(survey["disks"]):
        disk = survey["disks"][paths[0]]
        left = disk.get("left", 0) / GIB  # asked for only where the rest is not enough
        free = disk["free"] / GIB + left
        least, later = (
            float(sum(need[i] for path, need in needs.items() if path in paths)) for i in (0, 1)
        )
        if "/var/cache" in paths:
            # What is downloaded to the disk of its place is part of what is needed there in all.
            elsewhere = [need for path, need in needs.items() if path not in paths]
            least += DOWNLOADS * sum(need[0] for need in elsewhere)
            later += DOWNLOADS * sum(need[1] for need in elsewhere)
        if cfg.box.home in paths:
            later += HOME_GIB
        if free < least:
            verdict = "refuse"
        elif free < later and verdict == "ok":
            verdict = "warn"
        told.append(
            f"{' and '.join(paths)}: {free:.0f} GiB free{_of_dead_runs(left)},"
            f" {math.ceil(least)} needed now,"
            f" {math.ceil(later)} with the next upgrade"
        )
    yield Finding(
        "DISK.ROOM",
        verdict,
        "; ".join(told),
        "free disk room, or put a larger disk there: a mount, or for /opt/strixbox a link",
    )


def _of_dead_runs(left: float) -> str:
    """What of the room is not free yet."""
    if not left:
        return ""
    return f", {left:.1f} of them what earlier runs left and this one clears or goes on with"


def by_disk(disks: dict[str, dict[str, int]]) -> list[list[str]]:
    """The paths that share a disk, together."""
    found: dict[int, list[str]] = {}
    for path, disk in disks.items():
        found.setdefault(disk["device"], []).append(path)
    return list(found.values())


def user(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """The account, its home, and the directories that it is to have."""
    right = survey["home"] == cfg.box.home
    yield Finding(
        "USER.HOME",
        "ok" if right else "refuse",
        f"home of {cfg.box.user}: {survey['home'] or 'no such account'}",
        f"set box_home to {survey['home']}" if survey["home"] else "set box_user or create it",
    )
    yield Finding(
        "USER.DIRECTORIES",
        "refuse" if survey["closed"] else "ok",
        "; ".join(survey["closed"]) or f"{cfg.box.user} has or may make its directories",
        f"ComfyUI runs as {cfg.box.user}: sudo chown {cfg.box.user}: DIRECTORY gives it one; or set"
        " comfyui_base_directory or models_archive to another",
    )


def port(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """The service's port is free or its own."""
    yield Finding(
        "PORT.TAKEN",
        "refuse" if survey["port"] else "ok",
        f"port {cfg.comfyui.port}: {survey['port'] or 'free or our own'}",
        "stop that program, or set comfyui_port",
    )


def models(
    known: Mapping[str, Any], tier: Mapping[str, Any] | None, cfg: Config, freed: Mapping[int, int]
) -> tuple[Finding, ...]:
    """The archive's disk, what stands in models' places, and the room that they need.

    + known: what strixbox/box/verified_files.py tells
    + tier: what strixbox/box/model_tier.py tells of the archive; None where there is none
    + freed: bytes by device that this run makes free before
    """
    archive, active = cfg.models.archive, cfg.comfyui.models_directory
    todo = plan(cfg.models.manifest, active, archive, known)
    away = unmounted(archive, tier) if archive and tier else None
    looks = {
        "MODELS.ARCHIVE": ([away] if away else [], archive or "one tier"),
        # Of an archive that is not there, nothing can be told.
        "MODELS.PLACE": ([] if away else obstacles(todo), f"{len(todo)} to be put in order"),
        "MODELS.ROOM": ([] if away else list(crowded(todo, known, freed)), "enough"),
    }
    findings = (
        Finding(
            code, "refuse" if found else "ok", "; ".join(e for e, _ in found) or good, _mend(found)
        )
        for code, (found, good) in looks.items()
    )
    return tuple(accepted(finding, cfg.box.accept) for finding in findings)


def _mend(found: list[tuple[str, str]]) -> str:
    return "; ".join(dict.fromkeys(mend for _, mend in found))


def boot(survey: dict[str, Any], cfg: Config) -> Iterator[Finding]:
    """Secure Boot, for the record: the kernel's own driver is signed."""
    yield Finding("BOOT.SECURE", "ok", f"Secure Boot: {survey['secure_boot']}")


CHECKS: tuple[Check, ...] = (
    distribution,
    system,
    clock,
    processor,
    gpu,
    memory_pools,
    kernel,
    driver,
    leftovers,
    room,
    user,
    port,
    boot,
)


def examine(survey: dict[str, Any], cfg: Config) -> tuple[Finding, ...]:
    """All findings; what box_accept names keeps its evidence and no longer refuses or warns."""
    return tuple(
        accepted(finding, cfg.box.accept) for check in CHECKS for finding in check(survey, cfg)
    )


def accepted(finding: Finding, accept: dict[str, str]) -> Finding:
    """The finding as it counts on a box whose owner accepted it."""
    if finding.verdict == "ok" or finding.code not in accept:
        return finding
    return replace(finding, verdict="accepted", mend=f"accepted: {accept[finding.code]}")
