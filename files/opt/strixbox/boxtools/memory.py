"""What holds VRAM, GTT and RAM, in words as well, and giving it back."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from boxtools import catalogue, host, memory_fit
from boxtools.activity import observe
from boxtools.errors import Trouble
from boxtools.gpu import Gpu
from boxtools.gpu_clients import gpu_processes, resident_memory
from boxtools.memory_fit import Recommendation
from boxtools.output import size
from boxtools.server import Server
from boxtools.settings import Settings
from boxtools.watch import read_gpu

GIB = 1 << 30
RESERVE = 24  # GiB that GTT leaves to the system, as the deploy's preflight advises
CARVE_OUT = 4 * GIB  # more than that set aside in the firmware is lost to everything else
ENOUGH = 0.45  # of the box's memory; the driver's default for GTT is half of what the kernel sees
SETTLE = 10.0  # seconds that unloading may take before the numbers are read
BEGIN = 1.5  # seconds in which it has begun
TURN = 0.2  # seconds between two looks


class Process(BaseModel):
    """A process with GPU memory; bytes."""

    pid: int
    name: str
    vram: int
    gtt: int
    ram: int | None  # resident; on an APU its GTT is beside it


class ServerView(BaseModel):
    """ComfyUI's own numbers, bytes."""

    device: str
    cpu: bool  # it works there, whatever GPU the box has
    vram_total: int | None
    vram_free: int | None
    torch_reserved: int | None  # taken from the driver by torch, in use or kept for the next step
    torch_free: int | None  # of that, kept


class ModelCache(BaseModel):
    """A model with a part in the page cache."""

    name: str
    size: int
    resident: int


class Report(BaseModel):
    """Who holds what; bytes throughout."""

    gpu: str | None
    unified: bool  # VRAM, GTT and RAM are the same memory
    vram_used: int | None
    vram_total: int | None
    gtt_used: int | None
    gtt_total: int | None
    ram_total: int
    ram_available: int
    ram_free: int
    ram_cached: int
    swap_used: int
    swap_total: int
    processes: list[Process]
    hidden: int  # processes that this user may not look into
    service_ram: int | None  # resident, of the service's process
    server: ServerView | None
    server_problem: str | None
    models: list[ModelCache]
    models_resident: int
    notes: list[str]
    advice: list[str]
    recommendation: Recommendation


class Held(BaseModel):
    """The numbers that unloading changes, bytes."""

    gpu_used: int | None
    torch_reserved: int | None
    ram_available: int

    def settled(self, last: Held) -> bool:
        """Whether the GPU's memory is what it was; RAM's never rests."""
        return (self.gpu_used, self.torch_reserved) == (last.gpu_used, last.torch_reserved)


class Freed(BaseModel):
    """Before and after."""

    before: Held
    after: Held


def report(settings: Settings, server: Server, root: Path = Path("/")) -> Report:
    """Look at everything.

    Raises:
        Trouble: where the kernel tells nothing of its memory.
    """
    gpu, ram = read_gpu(root), host.memory(root)
    processes, hidden = gpu_processes(root)
    seen, problem = _ask(server)
    models = [
        ModelCache(name=model.key, size=model.size, resident=model.resident)
        for model in catalogue.find_models(settings, resident=True)
        if model.resident
    ]
    on_cpu = seen.cpu if seen else settings.hip is None
    return Report(
        gpu=gpu.title if gpu else None,
        unified=bool(gpu and gpu.apu),
        vram_used=gpu.vram_used if gpu else None,
        vram_total=gpu.vram_total if gpu else None,
        gtt_used=gpu.gtt_used if gpu else None,
        gtt_total=gpu.gtt_total if gpu else None,
        ram_total=ram.total,
        ram_available=ram.available,
        ram_free=ram.free,
        ram_cached=ram.cached,
        swap_used=ram.swap_used,
        swap_total=ram.swap_total,
        processes=[
            Process(
                pid=one.pid,
                name=one.name,
                vram=one.vram,
                gtt=one.gtt,
                ram=resident_memory(one.pid, root),
            )
            for one in processes
        ],
        hidden=hidden,
        service_ram=_service_memory(settings.service, root),
        server=seen,
        server_problem=problem,
        models=sorted(models, key=lambda model: model.resident, reverse=True),
        models_resident=sum(model.resident for model in models),
        notes=notes(gpu, ram),
        advice=[] if on_cpu else advice(gpu, settings.ram_gib),
        recommendation=_recommended(settings, memory_fit.room(gpu, ram), on_cpu),
    )


def _recommended(settings: Settings, room: int | None, on_cpu: bool) -> Recommendation:
    if on_cpu and settings.hip is None:
        why = "this stack's torch is a build for the CPU"
    elif on_cpu:
        why = "for why it does, though this stack is made for the GPU: strixbox doctor"
    else:
        points = memory_fit.read_points(settings)
        return memory_fit.recommend(points, room, settings.profile)
    said = "nothing is advised: ComfyUI works on the CPU, where the GPU's memory decides nothing"
    return Recommendation(points=0, room=None, sentences=[f"{said}; {why}"])


def notes(gpu: Gpu | None, ram: host.Memory) -> list[str]:
    """How the numbers hang together."""
    if gpu is None or not gpu.apu:
        return []
    told = [
        "VRAM, GTT and RAM are the same chips: never add up their totals",
        f"VRAM ({size(gpu.vram_total)}) is what the firmware sets aside; it is not part of"
        f" RAM's {size(ram.total)}",
        f"GTT ({size(gpu.gtt_total)}) is how much of RAM the GPU may use at most; what it uses now"
        f" ({size(gpu.gtt_used)}) is already missing from RAM's available {size(ram.available)}",
    ]
    if gpu.gtt_total and gpu.gtt_used is not None:
        more = min(gpu.gtt_total - gpu.gtt_used, ram.available)
        told.append(f"the GPU can have {size(max(0, more))} more of GTT before something gives way")
    return told


def advice(gpu: Gpu | None, ram_gib: int) -> list[str]:
    """Carve-out and GTT, as the deploy's preflight sees them: both are the owner's to set."""
    if gpu is None or not gpu.apu:
        return []
    told = []
    if gpu.vram_total is not None and gpu.vram_total > CARVE_OUT:
        told.append(
            f"{size(gpu.vram_total)} are carved out in the firmware and lost to everything else:"
            " set the UMA frame buffer to 512 MB in the BIOS; the driver takes the rest from GTT"
        )
    if gpu.gtt_total is not None and gpu.gtt_total < ENOUGH * ram_gib * GIB:
        pages = (ram_gib - RESERVE) * GIB // 4096
        told.append(
            f"GTT is {size(gpu.gtt_total)}; for more: options ttm pages_limit={pages} in"
            " /etc/modprobe.d/ttm.conf, then sudo update-initramfs -u and reboot"
            if pages > 0
            else f"GTT is {size(gpu.gtt_total)}, and the box has no memory to give it more"
        )
    return told


def free(server: Server, patience: float) -> Freed:
    """Unload the server's models, once nothing runs.

    Raises:
        Trouble: where it does not answer, or is still busy after ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while not (seen := observe(server)).idle or seen.problem:
        if seen.problem:
            raise Trouble(seen.problem)
        if time.monotonic() >= until:
            raise Trouble(
                f"ComfyUI still works ({seen.running} running, {seen.waiting} waiting) after"
                f" {patience:.0f} s; nothing was unloaded: wait longer with --wait, or empty the"
                " queue"
            )
        time.sleep(TURN)
    before = held(server)
    server.free()
    # The server unloads in its own time and does not say when it is done: two equal looks, after
    # the time that it takes to begin.
    begun, after, last = time.monotonic(), held(server), before
    while (waited := time.monotonic() - begun) < SETTLE:
        if waited >= BEGIN and after.settled(last):
            break
        time.sleep(TURN)
        last, after = after, held(server)
    return Freed(before=before, after=after)


def held(server: Server) -> Held:
    """The numbers that unloading changes, now."""
    gpu, (seen, _) = read_gpu(), _ask(server)
    return Held(
        gpu_used=gpu.used if gpu else None,
        torch_reserved=seen.torch_reserved if seen else None,
        ram_available=host.memory().available,
    )


def _ask(server: Server) -> tuple[ServerView | None, str | None]:
    try:
        return parse_stats(server.system_stats()), None
    except Trouble as trouble:
        return None, str(trouble)


def parse_stats(told: Any) -> ServerView | None:
    """The first device of ``/system_stats``, the one that ComfyUI works on; never raises."""
    devices = told.get("devices") if isinstance(told, dict) else None
    first = devices[0] if isinstance(devices, list) and devices else None
    if not isinstance(first, dict):
        return None
    numbers = {
        name: value if isinstance(value := first.get(name), int) and value >= 0 else None
        for name in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
    }
    if first.get("type") == "cpu":
        # ComfyUI then repeats the machine's memory as torch's own (model_management.py).
        numbers |= {"torch_vram_total": None, "torch_vram_free": None}
    return ServerView(
        device=str(first.get("name", "?")),
        cpu=first.get("type") == "cpu",
        vram_total=numbers["vram_total"],
        vram_free=numbers["vram_free"],
        torch_reserved=numbers["torch_vram_total"],
        torch_free=numbers["torch_vram_free"],
    )


def _service_memory(service: str, root: Path) -> int | None:
    try:
        answer = subprocess.run(
            ["systemctl", "show", "--property", "MainPID", "--value", service],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    pid = answer.stdout.strip()
    return resident_memory(int(pid), root) if host.is_count(pid) and pid != "0" else None
