"""amdgpu's ``gpu_metrics`` table, as far as it tells more than the other files of an APU.

Layout: struct gpu_metrics_v3_0 in the kernel's drivers/gpu/drm/amd/include/kgd_pp_interface.h,
which the driver of Strix Halo fills (smu_v14_0_0_ppt.c). Other formats are not read: discrete
cards tell the same in files of their own.
"""

from __future__ import annotations

from ctypes import LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from dataclasses import dataclass

# Why the firmware held the chip back, in the table's order.
THROTTLES = {
    "prochot": "an external signal (PROCHOT)",
    "spl": "the sustained power limit",
    "fppt": "the fast power limit",
    "sppt": "the slow power limit",
    "thm_core": "the temperature of the CPU cores",
    "thm_gfx": "the temperature of the GPU",
    "thm_soc": "the temperature of the SoC",
}
# The driver fills the table with ones first, and with values as far as the firmware has them.
UNKNOWN = (0xFFFF, 0xFFFFFFFF)


class Table(LittleEndianStructure):
    """gpu_metrics_v3_0, aligned as C aligns it."""

    _fields_ = (
        ("structure_size", c_uint16),
        ("format_revision", c_uint8),
        ("content_revision", c_uint8),
        ("temperature_gfx", c_uint16),  # hundredths of a degree Celsius
        ("temperature_soc", c_uint16),
        ("temperature_core", c_uint16 * 16),
        ("temperature_skin", c_uint16),
        ("average_gfx_activity", c_uint16),  # percent
        ("average_vcn_activity", c_uint16),
        ("average_ipu_activity", c_uint16 * 8),
        ("average_core_c0_activity", c_uint16 * 16),
        ("average_dram_reads", c_uint16),  # MB/s
        ("average_dram_writes", c_uint16),
        ("average_ipu_reads", c_uint16),
        ("average_ipu_writes", c_uint16),
        ("system_clock_counter", c_uint64),
        ("average_socket_power", c_uint32),  # mW
        ("average_ipu_power", c_uint16),
        ("average_apu_power", c_uint32),
        ("average_gfx_power", c_uint32),
        ("average_dgpu_power", c_uint32),
        ("average_all_core_power", c_uint32),
        ("average_core_power", c_uint16 * 16),
        ("average_sys_power", c_uint16),
        ("stapm_power_limit", c_uint16),
        ("current_stapm_power_limit", c_uint16),
        ("average_gfxclk_frequency", c_uint16),  # MHz
        ("average_socclk_frequency", c_uint16),
        ("average_vpeclk_frequency", c_uint16),
        ("average_ipuclk_frequency", c_uint16),
        ("average_fclk_frequency", c_uint16),
        ("average_vclk_frequency", c_uint16),
        ("average_uclk_frequency", c_uint16),
        ("average_mpipu_frequency", c_uint16),
        ("current_coreclk", c_uint16 * 16),
        ("current_core_maxfreq", c_uint16),
        ("current_gfx_maxfreq", c_uint16),
        ("throttle_residency", c_uint32 * len(THROTTLES)),
        ("time_filter_alphavalue", c_uint32),
    )


@dataclass(frozen=True)
class Metrics:
    """What is used of the table; None is what it does not tell."""

    busy: float | None = None  # percent
    temperature: float | None = None  # degrees Celsius
    power: float | None = None  # watts, of the whole socket
    clock: float | None = None  # MHz
    memory_clock: float | None = None  # MHz
    read_rate: float | None = None  # bytes per second from RAM, CPU and GPU together
    write_rate: float | None = None
    throttles: tuple[int, ...] | None = None  # counters, in the order of THROTTLES


def parse(content: bytes) -> Metrics:
    """The table that Strix Halo's driver gives; nothing where it has another format."""
    if len(content) < sizeof(Table):
        return Metrics()
    table = Table.from_buffer_copy(content)
    if (table.format_revision, table.content_revision) != (3, 0):
        return Metrics()
    throttles = tuple(table.throttle_residency)
    return Metrics(
        busy=_scaled(table.average_gfx_activity),
        temperature=_scaled(table.temperature_gfx, 0.01),
        power=_scaled(table.average_socket_power, 0.001),
        clock=_scaled(table.average_gfxclk_frequency),
        memory_clock=_scaled(table.average_uclk_frequency),
        read_rate=_scaled(table.average_dram_reads, 1e6),
        write_rate=_scaled(table.average_dram_writes, 1e6),
        throttles=None if any(count in UNKNOWN for count in throttles) else throttles,
    )


def _scaled(value: int, unit: float = 1.0) -> float | None:
    return None if value in UNKNOWN else round(value * unit, 3)
