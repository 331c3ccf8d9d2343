"""Which process holds how much of the GPU's memory, from ``/proc/<pid>/fdinfo``.

Format: the kernel's Documentation/gpu/drm-usage-stats.rst. amdgpu counts what HIP allocates in the
render node's descriptor, because KFD works in that descriptor's address space.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from boxtools.host import is_count, text

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class GpuProcess:
    """A process with GPU memory."""

    pid: int
    name: str
    vram: int  # bytes
    gtt: int  # bytes


@dataclass(frozen=True)
class Client:
    """One open GPU device; several descriptors and processes may share it."""

    device: str  # PCI address, empty where it is not told
    number: str  # unique per device, empty where it is not told
    vram: int  # bytes
    gtt: int  # bytes


def gpu_processes(root: Path = Path("/")) -> tuple[list[GpuProcess], int]:
    """Processes with GPU memory, the largest first, and how many processes may not be looked into.

    A client that several processes share is counted once, with the process that was there first.
    """
    found: list[GpuProcess] = []
    seen: set[tuple[str, str]] = set()
    hidden = 0
    pids = [int(path.name) for path in _children(root / "proc") if is_count(path.name)]
    for pid in sorted(pids):
        process = root / "proc" / str(pid)
        try:
            descriptors = sorted((process / "fd").iterdir())
        except PermissionError:
            hidden += 1
            continue
        except OSError:  # it has ended
            continue
        vram = gtt = 0
        for descriptor in descriptors:
            if not _target(descriptor).startswith("/dev/dri/"):
                continue
            client = parse_client(text(process / "fdinfo" / descriptor.name))
            if client is None:
                continue
            key = (client.device, client.number or f"{pid}/{descriptor.name}")
            if key not in seen:
                seen.add(key)
                vram += client.vram
                gtt += client.gtt
        if vram or gtt:
            found.append(GpuProcess(pid, text(process / "comm").strip() or "?", vram, gtt))
    return sorted(found, key=lambda one: one.vram + one.gtt, reverse=True), hidden


def parse_client(content: str) -> Client | None:
    """A descriptor's fdinfo; None where it is none of an AMD GPU's. Never raises.

    ``drm-memory-*`` is what amdgpu called ``drm-resident-*`` first; newer kernels give both.
    """
    values = {}
    for line in content.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.startswith("drm-"):
            values[key] = value.strip()
    if values.get("drm-driver") != "amdgpu":
        return None

    def held(region: str) -> int:
        found = values.get(f"drm-resident-{region}", values.get(f"drm-memory-{region}", ""))
        return parse_size(found) or 0

    return Client(
        values.get("drm-pdev", ""), values.get("drm-client-id", ""), held("vram"), held("gtt")
    )


def parse_size(value: str) -> int | None:
    """Bytes of ``123``, ``123 KiB`` or ``123 MiB``; None for anything else."""
    number, _, unit = value.partition(" ")
    if not is_count(number) or unit.strip() not in UNITS:
        return None
    return int(number) * UNITS[unit.strip()]


def resident_memory(pid: int, root: Path = Path("/")) -> int | None:
    """Bytes of RAM that a process has: its own, and of files that it maps; None where it ended."""
    for line in text(root / "proc" / str(pid) / "status").splitlines():
        if line.startswith("VmRSS:"):
            words = line.split()
            return int(words[1]) * 1024 if len(words) == 3 and is_count(words[1]) else None
    return None


def _children(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(directory.iterdir())
    return []


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):
        return str(link.readlink())
    return ""
