"""amd-smi and rocm-smi, for where the kernel's own files tell nothing.

Shapes: amd-smi's ``metric --json`` is a list of GPUs, or ``{"gpu_data": [...]}`` in newer
releases; a reading is ``{"value", "unit"}``, a bare number, or "N/A" (amdsmi_commands.py). rocm-smi
gives an object of cards whose readings are all strings (rocm_smi.py).
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from typing import Any

from boxtools.gpu import Gpu

TIMEOUT = 10.0  # seconds; both are Python programs that open every GPU first
DIRECTORY = "/opt/rocm/bin"  # where ROCm's packages put them, often not on PATH
AMD_SMI = ("amd-smi", "metric", "--json")
ROCM_SMI = (
    *("rocm-smi", "--showuse", "--showmemuse", "--showmeminfo", "vram", "gtt"),
    *("--showtemp", "--showpower", "--json"),
)
MIB = 1 << 20


def read_gpus() -> list[Gpu]:
    """Every GPU that amd-smi tells of, else rocm-smi; none where neither is there or knows one."""
    for words, parse in ((AMD_SMI, parse_amd_smi), (ROCM_SMI, parse_rocm_smi)):
        found = [gpu for gpu in parse(_output(words)) if gpu.tells]
        if found:
            return found
    return []


def parse_amd_smi(text: str) -> list[Gpu]:
    """GPUs in the output of ``amd-smi metric --json``; never raises."""
    told = find_json(text)
    gpus = told.get("gpu_data") if isinstance(told, dict) else told
    found = []
    for index, gpu in enumerate(gpus if isinstance(gpus, list) else []):
        if not isinstance(gpu, dict):
            continue
        memory = {
            name: _size(_reading(gpu, "mem_usage", name), MIB)  # says MB and divides by 2**20
            for name in ("total_vram", "used_vram", "total_gtt", "used_gtt")
        }
        found.append(
            Gpu(
                f"gpu{_label(gpu.get('gpu'), index)}",
                "1002:????",
                source="amd-smi",
                busy=_reading(gpu, "usage", "gfx_activity"),
                vram_total=memory["total_vram"],
                vram_used=memory["used_vram"],
                gtt_total=memory["total_gtt"],
                gtt_used=memory["used_gtt"],
                temperature=_reading(gpu, "temperature", "edge"),
                power=_reading(gpu, "power", "socket_power"),
                clock=_reading(gpu, "clock", "gfx_0", "clk"),
                memory_clock=_reading(gpu, "clock", "mem_0", "clk"),
            )
        )
    return found


def parse_rocm_smi(text: str) -> list[Gpu]:
    """GPUs in the output of rocm-smi with ``--json``; never raises.

    Cards need not begin at 0, and beside them there may be other objects, such as "system".
    """
    told = find_json(text)
    found = []
    for card, readings in told.items() if isinstance(told, dict) else ():
        if not re.fullmatch(r"card[0-9]{1,4}", card) or not isinstance(readings, dict):
            continue
        power = [
            _number(readings.get(f"{kind} Graphics Package Power (W)"))
            for kind in ("Current Socket", "Average")
        ]
        found.append(
            Gpu(
                card,
                "1002:????",
                source="rocm-smi",
                busy=_number(readings.get("GPU use (%)")),
                vram_total=_size(_number(readings.get("VRAM Total Memory (B)"))),
                vram_used=_size(_number(readings.get("VRAM Total Used Memory (B)"))),
                gtt_total=_size(_number(readings.get("GTT Total Memory (B)"))),
                gtt_used=_size(_number(readings.get("GTT Total Used Memory (B)"))),
                temperature=_number(readings.get("Temperature (Sensor edge) (C)")),
                power=next((value for value in power if value is not None), None),
            )
        )
    return sorted(found, key=lambda gpu: int(gpu.card[4:]))


def find_json(text: str) -> Any:
    """The JSON in a tool's output, which may begin with warnings; None where there is none."""
    for match in re.finditer(r"^\s*[\[{]", text, re.MULTILINE):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, match.end() - 1)
        except (ValueError, RecursionError):
            continue
        if found:
            return found
    return None


def _output(words: tuple[str, ...]) -> str:
    program = shutil.which(words[0]) or shutil.which(words[0], path=DIRECTORY)
    if program is None:
        return ""
    try:
        answer = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def _reading(gpu: dict[str, Any], *names: str) -> float | None:
    value: Any = gpu
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return _number(value.get("value") if isinstance(value, dict) else value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _size(number: float | None, unit: int = 1) -> int | None:
    if number is None or not 0 <= number * unit < 1 << 60:
        return None
    return int(number * unit)


def _label(value: Any, index: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else index
