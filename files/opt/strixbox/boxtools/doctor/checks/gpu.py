"""The GPU, its devices and memory, kernel and firmware (AMD's RDNA 3.5 page, ROCm's tracker)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding, unknown
from boxtools.doctor.machine import GROUPS
from boxtools.gpu import STRIX_HALO

GIB = 1 << 30
DMESG = "see why: sudo dmesg | grep -i amdgpu"
TO_7_2 = "put the box into the group rocm_7_2 in boxes.yaml and run the deploy"
HOT = 90.0  # degrees Celsius; ROCm issue 6035 tells of reboots from 87 to 91


def for_gpu(facts: Facts) -> bool:
    """Whether this stack uses a GPU at all; a CPU build of torch does not."""
    return facts.settings.hip is not None


def present(facts: Facts) -> Iterator[Finding]:
    """The GPU on the bus and the compute driver."""
    gpu, targets = facts.machine.gpu, facts.machine.targets
    if not for_gpu(facts):
        yield Finding(code="GPU.PRESENT", verdict="ok", evidence="this stack is a CPU build")
        return
    yield Finding(
        code="GPU.PRESENT",
        verdict="ok" if gpu and gpu.device == STRIX_HALO else "warn" if gpu else "wrong",
        evidence=f"GPU {gpu.title}" if gpu else "no AMD GPU in /sys/class/drm",
        meaning="The toolkit is made for the Radeon 8060S (1002:1586)."
        if gpu
        else "The kernel's driver amdgpu did not take a GPU, so everything would run on the CPU.",
        mend="compare with lspci -nn | grep -i display" if gpu else DMESG,
    )
    yield Finding(
        code="GPU.KFD",
        verdict="ok" if targets else "wrong",
        evidence=f"KFD targets: {', '.join(targets) or 'none'}",
        meaning="ROCm reaches the GPU through the kernel's compute driver, KFD.",
        mend=DMESG,
    )


def devices(facts: Facts) -> Iterator[Finding]:
    """Device nodes, and whether the service's account may use them."""
    machine = facts.machine
    account = machine.account
    if account.uid is None:
        yield Finding(
            code="USER.ACCOUNT",
            verdict="wrong",
            evidence=f"there is no account {account.name}",
            meaning="The service runs as this account.",
            mend="set box_user to an account of the box and run the deploy",
        )
        return
    yield Finding(code="USER.ACCOUNT", verdict="ok", evidence=f"account {account.name}")
    if not for_gpu(facts):
        return
    missing = [name for name in GROUPS if name not in account.groups]
    yield Finding(
        code="USER.GROUPS",
        verdict="wrong" if missing else "ok",
        evidence=f"{account.name} is not in {', '.join(missing)}"
        if missing
        else f"{account.name} is in {', '.join(GROUPS)}",
        meaning="Without these groups torch finds no GPU and ComfyUI works on the CPU.",
        mend=f"sudo usermod -aG render,video {account.name}, then log in anew and"
        f" sudo systemctl restart {facts.settings.service}",
    )
    paths = {device.path for device in machine.devices}
    nodes = "/dev/kfd" in paths and any("render" in path for path in paths)
    yield Finding(
        code="GPU.NODES",
        verdict="ok" if nodes else "wrong",
        evidence=f"{', '.join(sorted(paths)) or 'neither /dev/kfd nor /dev/dri/renderD*'}",
        meaning="ROCm opens /dev/kfd and a render node; a container must be given both.",
        mend=DMESG,
    )
    closed = [device for device in machine.devices if not device.usable]
    told = ", ".join(f"{d.path} ({d.mode:04o}, group {d.group})" for d in closed)
    if not nodes and not closed:
        yield Finding(
            code="GPU.ACCESS",
            verdict="unknown",
            evidence="not all of the GPU's devices are there",
            meaning="Who may open them is seen once GPU.NODES is mended.",
        )
        return
    yield Finding(
        code="GPU.ACCESS",
        verdict="wrong" if closed else "ok",
        evidence=f"{account.name} may not open {told}"
        if closed
        else f"{account.name} may open the GPU's devices",
        meaning="ROCm reports no GPU when its devices cannot be opened.",
        mend="sudo udevadm trigger --subsystem-match=kfd --subsystem-match=drm, then see the"
        " group of the devices and that the account is in it",
    )


def pools(facts: Facts) -> Iterator[Finding]:
    """Carve-out and GTT: both are the same memory, and neither is a limit of 16 GB."""
    gpu = facts.machine.gpu
    if gpu is None or not gpu.apu or not for_gpu(facts):
        return
    if gpu.vram_total is not None:
        yield Finding(
            code="GPU.CARVE_OUT",
            verdict="ok" if gpu.vram_total <= 4 * GIB else "warn",
            evidence=f"{gpu.vram_total / GIB:.1f} GiB are set aside for the GPU in the firmware",
            meaning="Nothing else can use that memory; the GPU takes what it needs from GTT.",
            mend="set the UMA frame buffer to 512 MB in the BIOS",
        )
    if gpu.gtt_total is not None:
        ram = facts.settings.ram_gib
        pages = max(ram - 24, ram // 2) * GIB // 4096
        yield Finding(
            code="GPU.GTT",
            # The driver's own default is half of the memory that the kernel sees.
            verdict="ok" if gpu.gtt_total + (gpu.vram_total or 0) >= ram * 0.45 * GIB else "warn",
            evidence=f"GTT is {gpu.gtt_total / GIB:.1f} GiB",
            meaning="So much of the box's memory the GPU may use at most.",
            mend=f"write 'options ttm pages_limit={pages}' to /etc/modprobe.d/ttm.conf, then"
            " sudo update-initramfs -u and reboot",
        )


def heat(facts: Facts) -> Iterator[Finding]:
    """Temperature, and settings that keep the clocks low."""
    gpu = facts.machine.gpu
    if gpu is not None and gpu.temperature is not None:
        limit = min(HOT, gpu.temperature_limit - 5 if gpu.temperature_limit else HOT)
        clock = f", {gpu.clock:.0f} MHz" if gpu.clock is not None else ""
        yield Finding(
            code="GPU.TEMPERATURE",
            verdict="ok" if gpu.temperature < limit else "warn",
            evidence=f"{gpu.temperature:.0f} degrees Celsius{clock}",
            meaning="Near its limit the chip lowers its clocks; some boxes switch off.",
            mend="clean the fans, give the box air, or choose a lower power mode in the BIOS",
        )
    low = [setting for setting in facts.machine.power if setting.split()[-1] in LOW]
    yield Finding(
        code="GPU.POWER",
        verdict="warn" if low else "ok",
        evidence=", ".join(low or facts.machine.power) or "no power profile is told",
        meaning="This setting keeps the clocks low.",
        mend="sudo powerprofilesctl set performance, or"
        " echo auto | sudo tee /sys/class/drm/card*/device/power_dpm_force_performance_level",
    )


LOW = ("low-power", "quiet", "low", "profile_min_sclk", "cool")


def kernel(facts: Facts) -> Iterator[Finding]:
    """The kernel against the ROCm release (AMD's table for RDNA 3.5)."""
    release, stack = facts.machine.kernel, facts.settings.stack.removeprefix("rocm-")
    if not for_gpu(facts):
        return
    if not release:
        yield unknown("KERNEL.ROCM", "the kernel's release")
        return
    fixed = kernel_is_fixed(release)
    if stack.startswith("6.4"):
        state = "does not support" if fixed else "calls unstable"
        yield Finding(
            code="KERNEL.ROCM",
            verdict="warn",
            evidence=f"kernel {release}: AMD {state} ROCm {stack} with it on this chip",
            meaning="ROCm before 7.2 is not supported on gfx1151 by any kernel.",
            mend=TO_7_2,
        )
        return
    yield Finding(
        code="KERNEL.ROCM",
        verdict="ok" if fixed else "warn",
        evidence=f"kernel {release} with ROCm {stack}",
        meaning="Two commits that gfx1151 needs are missing in older kernels: page faults, hangs.",
        mend="sudo apt install linux-generic-hwe-24.04 (6.17.0-19.19 or newer), then reboot",
    )


def kernel_is_fixed(release: str) -> bool:
    """Whether a kernel has the two commits that gfx1151 needs (7f26af7 and 7445db6).

    Ubuntu's HWE from 6.17.0-19, its OEM from 6.14.0-1018, any from 6.18.4 (AMD's RDNA 3.5 page).
    """
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:-(\d{1,6}))?", release)
    if not match:
        return False
    major, minor, patch, build = (int(part or 0) for part in match.groups())
    if (major, minor, patch) >= (6, 18, 4):
        return True
    if "oem" in release:
        return (major, minor) > (6, 14) or ((major, minor) == (6, 14) and build >= 1018)
    return (major, minor) == (6, 17) and build >= 19


def driver(facts: Facts) -> Iterator[Finding]:
    """amdgpu-dkms and firmware."""
    dkms, firmware = facts.machine.dkms, facts.machine.firmware
    if not for_gpu(facts):
        return
    if dkms is None or firmware is None:
        yield unknown("DRIVER.DKMS", "dpkg's list")
        return
    # Held or stopped half-way it shadows the driver all the same: dpkg-query(1), db:Status-Abbrev.
    installed = dkms[1:2] in tuple("iUFHWt")
    yield Finding(
        code="DRIVER.DKMS",
        verdict="warn" if installed else "ok",
        evidence=f"amdgpu-dkms: {dkms or 'absent'}",
        meaning="It shadows the kernel's own driver; AMD's engineers advise against it here.",
        mend="sudo apt purge amdgpu-dkms amdgpu-dkms-firmware, then reboot",
    )
    bad = "20251125" in firmware
    yield Finding(
        code="FIRMWARE.BROKEN",
        verdict="wrong" if bad else "ok",
        evidence=f"linux-firmware: {firmware or 'not a package'}",
        meaning="Firmware 20251125 makes the GPU hang under ROCm (issues 5724, 5616).",
        mend="sudo apt update && sudo apt install --only-upgrade linux-firmware, then reboot",
    )


CHECKS = (present, devices, pools, heat, kernel, driver)
