"""boxtools.smi: what amd-smi and rocm-smi print, in all their shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boxtools import smi
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


def unit(value: object, name: str) -> dict[str, object]:
    return {"value": value, "unit": name}


def amd(**own: object) -> dict[str, Any]:
    return {
        "gpu": 0,
        "usage": {"gfx_activity": unit(42, "%"), "vcn_activity": [unit(0, "%"), "N/A"]},
        "power": {"socket_power": unit(55, "W")},
        "clock": {"gfx_0": {"clk": unit(2900, "MHz")}, "mem_0": {"clk": "N/A"}},
        "temperature": {"edge": unit(61, "C"), "hotspot": "N/A"},
        "mem_usage": {
            "total_vram": unit(512, "MB"),
            "used_vram": unit(100, "MB"),
            "total_gtt": unit(63488, "MB"),
            "used_gtt": 7,
        },
        **own,
    }


@pytest.mark.parametrize("told", [[amd()], {"gpu_data": [amd()]}], ids=["list", "object"])
def test_both_shapes_of_amd_smi(told: object) -> None:
    (gpu,) = smi.parse_amd_smi(json.dumps(told))
    assert (gpu.card, gpu.source, gpu.busy, gpu.power) == ("gpu0", "amd-smi", 42, 55)
    assert (gpu.temperature, gpu.clock, gpu.memory_clock) == (61, 2900, None)
    assert (gpu.vram_total, gpu.vram_used) == (512 * MIB, 100 * MIB)
    assert (gpu.gtt_total, gpu.gtt_used) == (63488 * MIB, 7 * MIB)


def test_not_available_is_unknown() -> None:
    gpu = amd(usage="N/A", power={"socket_power": "N/A"}, temperature={"edge": unit("N/A", "C")})
    (read,) = smi.parse_amd_smi(json.dumps([gpu]))
    assert (read.busy, read.power, read.temperature) == (None, None, None)
    assert smi.parse_amd_smi('["N/A", null, {"gpu": "x"}]')[0].tells is False


ROCM = {
    "card1": {
        "GPU use (%)": "98",
        "GPU Memory Allocated (VRAM%)": "61",
        "VRAM Total Memory (B)": "536870912",
        "VRAM Total Used Memory (B)": "1048576",
        "GTT Total Memory (B)": "66571993088",
        "GTT Total Used Memory (B)": "N/A",
        "Temperature (Sensor edge) (C)": "62.0",
        "Current Socket Graphics Package Power (W)": "45.012",
    },
    "card0": {"Average Graphics Package Power (W)": "12.0"},
    "system": {"Driver version": "6.14.0"},
}


def test_rocm_smi_after_a_warning_with_other_keys_and_cards_in_any_order() -> None:
    text = "WARNING: AMD GPU device(s) is/are in a low-power state. [1]\n\n" + json.dumps(ROCM)
    first, second = smi.parse_rocm_smi(text)
    assert (first.card, first.power, first.busy) == ("card0", 12, None)
    assert (second.card, second.busy, second.temperature) == ("card1", 98, 62)
    assert (second.power, second.vram_total, second.gtt_used) == (45.012, 512 * MIB, None)


def test_an_error_message_is_no_gpu() -> None:
    for text in ("", "ERROR: Cannot print JSON/CSV output for concise output", "[", "{}", "null"):
        assert smi.parse_amd_smi(text) == []
        assert smi.parse_rocm_smi(text) == []


def tool(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (directory / name).chmod(0o755)


def test_amd_smi_is_asked_first_and_rocm_smi_where_it_is_blind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(smi, "DIRECTORY", str(tmp_path))
    assert smi.read_gpus() == []
    tool(tmp_path, "rocm-smi", f"cat <<'EOF'\n{json.dumps(ROCM)}\nEOF")
    assert [gpu.source for gpu in smi.read_gpus()] == ["rocm-smi", "rocm-smi"]
    blind = json.dumps([amd(usage="N/A", power="N/A", temperature="N/A", mem_usage="N/A")])
    tool(tmp_path, "amd-smi", f"echo '{blind}'")
    assert [gpu.source for gpu in smi.read_gpus()] == ["rocm-smi", "rocm-smi"]
    tool(tmp_path, "amd-smi", f"""test "$*" = "metric --json" && echo '{json.dumps([amd()])}'""")
    assert [gpu.source for gpu in smi.read_gpus()] == ["amd-smi"]


def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(smi, "TIMEOUT", 0.2)
    tool(tmp_path, "amd-smi", "exec sleep 60")
    assert smi.read_gpus() == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
PARTS = ("gpu", "usage", "power", "clock", "temperature", "mem_usage")
AMD = st.fixed_dictionaries({}, optional=dict.fromkeys(PARTS, ANYTHING)) | st.fixed_dictionaries(
    {"mem_usage": st.fixed_dictionaries({"used_gtt": ANYTHING, "total_vram": ANYTHING})}
)


@given(st.text(max_size=100) | ANYTHING.map(json.dumps))
def test_any_output_is_read_without_an_exception(text: str) -> None:
    smi.parse_amd_smi(text)
    smi.parse_rocm_smi(text)


@given(AMD, st.dictionaries(st.sampled_from(sorted(ROCM["card1"])), ANYTHING))
def test_any_readings_are_read_without_an_exception(one: object, other: object) -> None:
    smi.parse_amd_smi(json.dumps({"gpu_data": [one]}))
    for gpu in smi.parse_rocm_smi(json.dumps({"card7": other, "card\u0661": other})):
        assert gpu.card == "card7"
