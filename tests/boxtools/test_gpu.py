"""boxtools.gpu and gpu_metrics on the trees of a Strix Halo, a discrete card, and neither."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from boxtools import gpu_metrics
from boxtools.gpu import gfx_name, read_gpus
from boxtools.watch import choose, read_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.boxtools import trees
from tests.boxtools.trees import GIB


def test_the_apu_is_read_in_the_units_of_its_files(tmp_path: Path) -> None:
    trees.apu(tmp_path)
    (gpu,) = read_gpus(tmp_path)
    assert (gpu.card, gpu.device, gpu.gfx, gpu.apu) == ("card1", "1002:1586", "gfx1151", True)
    assert (gpu.busy, gpu.temperature, gpu.power, gpu.clock) == (97, 71, 98.123, 2885)
    assert (gpu.vram_total, gpu.vram_used) == (GIB // 2, GIB // 4)
    assert (gpu.gtt_total, gpu.gtt_used, gpu.used) == (62 * GIB, 12 * GIB, 12 * GIB + GIB // 4)
    assert gpu.memory_clock == 1000  # no freq2_input on an APU: the level with the asterisk
    assert (gpu.voltage, gpu.power_limit, gpu.temperature_limit) == (0.987, None, None)


def test_a_discrete_card_has_limits_and_a_memory_clock(tmp_path: Path) -> None:
    trees.discrete(tmp_path)
    (gpu,) = read_gpus(tmp_path)
    assert (gpu.gfx, gpu.apu, gpu.memory_clock) == ("gfx1100", False, 1249)
    assert (gpu.power_limit, gpu.temperature_limit, gpu.throttles) == (265, 100, None)


def test_of_both_the_apu_is_chosen_whatever_its_card(tmp_path: Path) -> None:
    trees.discrete(tmp_path, card=0)
    trees.apu(tmp_path, card=10)
    trees.write(tmp_path / trees.DRM / "card2/device/vendor", "0x8086")
    assert [gpu.card for gpu in read_gpus(tmp_path)] == ["card0", "card10"]
    chosen = read_gpu(tmp_path)
    assert chosen is not None and chosen.gfx == "gfx1151"
    assert choose([]) is None


def test_without_a_gpu_there_is_nothing(tmp_path: Path) -> None:
    assert read_gpus(tmp_path) == []
    trees.write(tmp_path / trees.DRM / "card0/device/vendor", "0x10de")
    assert read_gpus(tmp_path) == []
    assert read_gpu(tmp_path) is None


def test_what_is_missing_or_unreadable_is_unknown_and_the_rest_is_there(tmp_path: Path) -> None:
    device = trees.apu(tmp_path)
    (device / "gpu_busy_percent").unlink()
    trees.unreadable(device / "mem_info_gtt_used")
    trees.unreadable(device / "hwmon/hwmon5/power1_average")
    trees.write(device / "hwmon/hwmon5/freq1_input", "N/A")
    (gpu,) = read_gpus(tmp_path)
    assert (gpu.busy, gpu.gtt_used, gpu.power) == (None, None, None)
    assert gpu.used == gpu.vram_used
    assert gpu.clock == 1100  # pp_dpm_sclk
    assert gpu.temperature == 71
    trees.write(device / "hwmon/hwmon5/power1_input", "55000000")
    assert read_gpus(tmp_path)[0].power == 55


def test_used_memory_that_ran_below_zero_is_unknown(tmp_path: Path) -> None:
    device = trees.apu(tmp_path)
    trees.write(device / "mem_info_vram_used", str(2**64 - 4096))
    assert read_gpus(tmp_path)[0].vram_used is None


def test_gpu_metrics_fill_gaps_and_do_not_replace_files(tmp_path: Path) -> None:
    device = trees.apu(tmp_path)
    table = trees.metrics(
        temperature_gfx=6123,
        average_gfx_activity=50,
        average_socket_power=70_500,
        average_uclk_frequency=1000,
        average_dram_reads=40_000,
        average_dram_writes=20_000,
    )
    trees.write(device / "gpu_metrics", table)
    (device / "gpu_busy_percent").unlink()
    (device / "hwmon/hwmon5/power1_average").unlink()
    (gpu,) = read_gpus(tmp_path)
    assert (gpu.busy, gpu.power, gpu.temperature) == (50, 70.5, 71)
    assert (gpu.read_rate, gpu.write_rate) == (40e9, 20e9)
    assert gpu.throttles is None  # all ones


def test_only_the_known_format_of_gpu_metrics_is_read() -> None:
    table = trees.throttled(1, 2, 3, 4, 5, 6, 7)
    assert len(table) == 264
    assert gpu_metrics.parse(table).throttles == (1, 2, 3, 4, 5, 6, 7)
    assert gpu_metrics.parse(table[:-1]) == gpu_metrics.Metrics()
    other = trees.metrics(format_revision=2, average_gfx_activity=9)
    assert gpu_metrics.parse(other) == gpu_metrics.Metrics()


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("110501", "gfx1151"),
        ("90010", "gfx90a"),
        ("110000", "gfx1100"),
        ("0", None),
        ("", None),
        ("x", None),
        ("¹¹0501", None),
    ],
)
def test_gfx_target_versions(version: str, name: str | None) -> None:
    assert gfx_name(version) == name


@given(st.binary(max_size=300))
def test_any_gpu_metrics_are_read_without_an_exception(content: bytes) -> None:
    gpu_metrics.parse(content)
    gpu_metrics.parse(trees.metrics()[:4] + content.ljust(260, b"\0"))


@settings(deadline=None)  # it makes a tree of files each time
@given(st.lists(st.binary(max_size=40), min_size=9, max_size=9))
def test_any_content_is_read_without_an_exception(contents: list[bytes]) -> None:
    names = (
        *("gpu_busy_percent", "mem_info_vram_total", "mem_info_gtt_used", "pp_dpm_sclk"),
        *("hwmon/hwmon5/temp1_input", "hwmon/hwmon5/power1_average", "gpu_metrics", "device"),
    )
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        device = trees.apu(root)
        for name, content in zip(names, contents, strict=False):
            trees.write(device / name, content)
        trees.write(root / trees.KFD / "1/properties", contents[-1])
        (gpu,) = read_gpus(root)
        assert gpu.vram_total is None or gpu.vram_total >= 0
