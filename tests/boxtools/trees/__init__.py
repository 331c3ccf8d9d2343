"""Boxes as the kernel shows them: sysfs, KFD and /proc below a directory.

Which files there are, and their units: Documentation/gpu/amdgpu/thermal.rst and driver-misc.rst,
and ``hwmon_attributes_visible`` of drivers/gpu/drm/amd/pm/amdgpu_pm.c, which gives an APU of
GC 11.5.1 neither power1_cap nor freq2_input nor temp2, and only APUs in1_input.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from boxtools.gpu_metrics import Table

GIB = 1 << 30
DRM = "sys/class/drm"
KFD = "sys/class/kfd/kfd/topology/nodes"


def write(path: Path, content: str | bytes) -> Path:
    """A file with everything above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return path


def unreadable(path: Path) -> None:
    """In place of a file whose read fails, as with EINVAL: for root, too, a directory does."""
    path.unlink()
    path.mkdir()


def metrics(**values: int) -> bytes:
    """A gpu_metrics table of format 3.0; what is not named is unknown, which is all ones."""
    table = Table.from_buffer_copy(b"\xff" * ctypes.sizeof(Table))
    for name, value in {
        "structure_size": ctypes.sizeof(Table),
        "format_revision": 3,
        "content_revision": 0,
        **values,
    }.items():
        setattr(table, name, value)
    return bytes(table)


def throttled(*counters: int) -> bytes:
    """A table with the seven throttle counters."""
    table = Table.from_buffer_copy(metrics())
    table.throttle_residency = (ctypes.c_uint32 * 7)(*counters)
    return bytes(table)


def apu(root: Path, card: int = 1) -> Path:
    """Strix Halo with 512 MB carved out and 62 GiB of GTT; returns its device directory."""
    device = root / DRM / f"card{card}/device"
    files = {
        "vendor": "0x1002",
        "device": "0x1586",
        "gpu_busy_percent": "97",
        "mem_info_vram_total": str(GIB // 2),
        "mem_info_vram_used": str(GIB // 4),
        "mem_info_gtt_total": str(62 * GIB),
        "mem_info_gtt_used": str(12 * GIB),
        "pp_dpm_sclk": "0: 600Mhz\n1: 1100Mhz *\n2: 2900Mhz",
        "pp_dpm_mclk": "0: 400Mhz\n1: 800Mhz\n2: 1000Mhz *",
        "hwmon/hwmon5/name": "amdgpu",
        "hwmon/hwmon5/temp1_input": "71000",
        "hwmon/hwmon5/power1_average": "98123000",
        "hwmon/hwmon5/freq1_input": "2885000000",
        "hwmon/hwmon5/in0_input": "987",
        "hwmon/hwmon5/in1_input": "812",
    }
    for name, content in files.items():
        write(device / name, content)
    (device / "drm/renderD128").mkdir(parents=True)
    (device / f"drm/card{card}").mkdir()
    (root / DRM / f"card{card}-HDMI-A-1").mkdir()  # a connector is no card
    write(root / KFD / "0/properties", "cpu_cores_count 32\ngfx_target_version 0")
    write(
        root / KFD / "1/properties",
        "cpu_cores_count 0\nsimd_count 80\ngfx_target_version 110501\ndrm_render_minor 128",
    )
    return device


def discrete(root: Path, card: int = 0) -> Path:
    """A Radeon RX 7900 XT."""
    device = root / DRM / f"card{card}/device"
    files = {
        "vendor": "0x1002",
        "device": "0x744c",
        "gpu_busy_percent": "3",
        "mem_info_vram_total": str(20 * GIB),
        "mem_info_vram_used": str(GIB),
        "mem_info_gtt_total": str(16 * GIB),
        "mem_info_gtt_used": "0",
        "hwmon/hwmon2/temp1_input": "45000",
        "hwmon/hwmon2/temp1_crit": "100000",
        "hwmon/hwmon2/power1_average": "265000000",
        "hwmon/hwmon2/power1_cap": "265000000",
        "hwmon/hwmon2/freq1_input": "2400000000",
        "hwmon/hwmon2/freq2_input": "1249000000",
    }
    for name, content in files.items():
        write(device / name, content)
    (device / "drm/renderD129").mkdir(parents=True)
    write(
        root / KFD / "2/properties",
        "cpu_cores_count 0\ngfx_target_version 110000\ndrm_render_minor 129",
    )
    return device


def proc(root: Path, available: int = 90, total: int = 125) -> None:
    """Memory in GiB, and processors that worked a quarter of their time."""
    kib = {
        "MemTotal": total << 20,
        "MemFree": 10 << 20,
        "MemAvailable": available << 20,
        "Cached": 40 << 20,
        "Shmem": 4 << 20,
        "SwapTotal": 8 << 20,
        "SwapFree": 7 << 20,
    }
    lines = [f"{name}: {value:8} kB" for name, value in kib.items()]
    write(root / "proc/meminfo", "\n".join([*lines, "HugePages_Total:       0"]))
    write(root / "proc/stat", "cpu  200 0 50 700 50 0 0 0 99 0\ncpu0 200 0 50 700 50 0 0 0 99 0")
    write(root / "proc/loadavg", "1.25 0.50 0.25 2/900 4242")


def client(root: Path, pid: int, fd: int, fdinfo: str, target: str = "/dev/dri/renderD128") -> None:
    """An open GPU device of a process."""
    process = root / "proc" / str(pid)
    write(process / "comm", "python3")
    write(process / "status", "Name: python3\nVmRSS:\t 2097152 kB")
    write(process / f"fdinfo/{fd}", fdinfo)
    (process / "fd").mkdir(exist_ok=True)
    (process / f"fd/{fd}").symlink_to(target)
