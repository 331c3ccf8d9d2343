"""The GPU as the kernel tells it: sysfs and hwmon, without root and without ROCm's tools.

rocm-smi and amd-smi show N/A for most of this on gfx1151 through ROCm 7.2 (ROCm issue 6035), while
amdgpu's own files are right. Paths and units: the kernel's Documentation/gpu/amdgpu/thermal.rst,
driver-misc.rst and Documentation/hwmon/sysfs-interface.rst. What an APU has of them is decided in
drivers/gpu/drm/amd/pm/amdgpu_pm.c (hwmon_attributes_visible): no power cap, no memory clock and
one temperature; amdgpu's ``gpu_metrics`` fills some of these gaps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boxtools import gpu_metrics

AMD = "0x1002"
STRIX_HALO = "1002:1586"  # Radeon 8060S and 8050S, gfx1151


@dataclass(frozen=True)
class Gpu:
    """One reading of one GPU; None is what this GPU or driver does not tell."""

    card: str  # card0, card1, ...
    device: str  # PCI vendor:device, e.g. 1002:1586
    source: str = "sysfs"
    busy: float | None = None  # percent
    vram_total: int | None = None  # bytes, also below
    vram_used: int | None = None
    gtt_total: int | None = None
    gtt_used: int | None = None
    temperature: float | None = None  # degrees Celsius, edge sensor
    power: float | None = None  # watts; of the whole package on an APU
    clock: float | None = None  # MHz, shader clock
    memory_clock: float | None = None  # MHz
    gfx: str | None = None  # target of the compilers, e.g. gfx1151
    apu: bool = False  # shares the box's memory: VRAM is a part that the firmware set aside
    temperature_limit: float | None = None  # degrees Celsius, where the driver throttles
    power_limit: float | None = None  # watts
    voltage: float | None = None  # volts
    read_rate: float | None = None  # bytes per second from RAM, CPU and GPU together
    write_rate: float | None = None
    # Counters in the order of gpu_metrics.THROTTLES: what grew between two readings held it back.
    throttles: tuple[int, ...] | None = None

    @property
    def tells(self) -> bool:
        """Whether there is anything in it but the card's name."""
        readings = (self.busy, self.vram_used, self.gtt_used, self.temperature, self.power)
        return any(reading is not None for reading in readings)

    @property
    def used(self) -> int | None:
        """VRAM and GTT in use together: on an APU both are the same memory."""
        if self.vram_used is None or self.gtt_used is None:
            return self.vram_used if self.gtt_used is None else self.gtt_used
        return self.vram_used + self.gtt_used

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.gfx} ({self.device})" if self.gfx else self.device


def read_gpus(root: Path = Path("/")) -> list[Gpu]:
    """Every AMD GPU, in the order of their cards."""
    cards = (root / "sys/class/drm").glob("card*")
    found = [path for path in cards if re.fullmatch(r"card[0-9]+", path.name)]
    found.sort(key=lambda path: int(path.name[4:]))
    nodes = dict(kfd_targets(root)) if found else {}
    return [_read(path, nodes) for path in found if _text(path / "device/vendor") == AMD]


def kfd_targets(root: Path = Path("/")) -> Iterator[tuple[str, str]]:
    """Render node and compiler target of every GPU that ROCm can use, e.g. renderD128, gfx1151."""
    for path in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
        lines = [line.split() for line in (_text(path) or "").splitlines()]
        values = {line[0]: line[1] for line in lines if len(line) == 2}
        target = gfx_name(values.get("gfx_target_version", ""))
        if target:
            yield f"renderD{values.get('drm_render_minor', '?')}", target


def gfx_name(version: str) -> str | None:
    """Compiler target of KFD's ``gfx_target_version``: 110501 is gfx1151, 90010 is gfx90a.

    None for a CPU's 0 and for what is no version.
    """
    if not re.fullmatch(r"[1-9][0-9]{4,5}", version):
        return None
    number = int(version)
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"


def _read(card: Path, nodes: dict[str, str]) -> Gpu:
    device = card / "device"
    hwmon = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
    ids = [(_text(device / name) or "0x????")[2:] for name in ("vendor", "device")]
    render = next((path.name for path in sorted(device.glob("drm/renderD*"))), "")
    metrics = gpu_metrics.parse(_binary(device / "gpu_metrics"))
    return Gpu(
        card.name,
        ":".join(ids),
        busy=_first(_number(device / "gpu_busy_percent"), metrics.busy),
        vram_total=_bytes(device / "mem_info_vram_total"),
        vram_used=_bytes(device / "mem_info_vram_used"),
        gtt_total=_bytes(device / "mem_info_gtt_total"),
        gtt_used=_bytes(device / "mem_info_gtt_used"),
        temperature=_first(_number(hwmon / "temp1_input", 1e3), metrics.temperature),
        # power1_average where the firmware averages, power1_input where it does not (kernel 6.3).
        power=_first(
            _number(hwmon / "power1_average", 1e6),
            _number(hwmon / "power1_input", 1e6),
            metrics.power,
        ),
        clock=_first(
            _number(hwmon / "freq1_input", 1e6),
            metrics.clock,
            current_level(device / "pp_dpm_sclk"),
        ),
        memory_clock=_first(
            _number(hwmon / "freq2_input", 1e6),
            metrics.memory_clock,
            current_level(device / "pp_dpm_mclk"),
        ),
        gfx=nodes.get(render),
        # Only APUs have a voltage for their northbridge (amdgpu_pm.c).
        apu=":".join(ids) == STRIX_HALO or (hwmon / "in1_input").exists(),
        temperature_limit=_number(hwmon / "temp1_crit", 1e3),
        power_limit=_number(hwmon / "power1_cap", 1e6),
        voltage=_number(hwmon / "in0_input", 1e3),
        read_rate=metrics.read_rate,
        write_rate=metrics.write_rate,
        throttles=metrics.throttles,
    )


def current_level(path: Path) -> float | None:
    """MHz of the level that a ``pp_dpm_*`` file marks with an asterisk."""
    for line in (_text(path) or "").splitlines():
        match = re.fullmatch(r"\s*\w+:\s*([0-9]{1,6})\s*Mhz\s*\*", line, re.IGNORECASE)
        if match:
            return float(match.group(1))
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # absent, or the driver answers EINVAL, EPERM or ENODATA for this GPU
        return None


def _binary(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _number(path: Path, unit: float = 1.0) -> float | None:
    text = _text(path)
    try:
        number = float(text) / unit if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bytes(path: Path) -> int | None:
    number = _number(path)
    # Used memory has been seen to run below zero, which reads as nearly 2**64 (ROCm issue 5750).
    return int(number) if number is not None and 0 <= number < 1 << 60 else None


def _first(*readings: float | None) -> float | None:
    return next((reading for reading in readings if reading is not None), None)
