"""One sample of the whole box: GPU, processors, memory, and what ComfyUI does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from boxtools import host
from boxtools.activity import Activity
from boxtools.gpu import Gpu
from boxtools.gpu_metrics import THROTTLES
from boxtools.watch import read_gpu

BUSY = 80.0  # percent; below that, low clocks are what an idle GPU has
FALLEN = 0.85  # of the highest clock seen
NEAR = 3.0  # degrees below the limit
# Where the driver tells no limit: 5 below the 100 degrees that AMD states for this processor.
HOT = 95.0
AT_CAP = 0.97  # of the power limit


class Sample(BaseModel):
    """One line of the log; what is not known is null in JSON and empty in CSV."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    time: datetime = Field(description="UTC")
    gpu: str | None = Field(default=None, description="target and PCI id")
    gpu_source: str | None = Field(default=None, description="sysfs, amd-smi or rocm-smi")
    gpu_busy: float | None = Field(default=None, description="percent")
    gpu_clock: float | None = Field(default=None, description="MHz")
    memory_clock: float | None = Field(default=None, description="MHz")
    vram_used: int | None = Field(default=None, description="bytes")
    vram_total: int | None = Field(default=None, description="bytes")
    gtt_used: int | None = Field(default=None, description="bytes")
    gtt_total: int | None = Field(default=None, description="bytes")
    temperature: float | None = Field(default=None, description="degrees Celsius")
    power: float | None = Field(default=None, description="watts; with the CPU on an APU")
    read_rate: float | None = Field(default=None, description="bytes per second from RAM")
    write_rate: float | None = Field(default=None, description="bytes per second to RAM")
    limited_by: str | None = Field(default=None, description="why the clocks are held back")
    cpu_busy: float | None = Field(default=None, description="percent of all processors")
    load: float | None = Field(default=None, description="load average over a minute")
    ram_total: int = Field(description="bytes")
    ram_available: int = Field(description="bytes")
    ram_cached: int = Field(description="bytes of files in the page cache")
    swap_total: int = Field(description="bytes")
    swap_used: int = Field(description="bytes")
    server: str = Field(description="up, or why it does not answer")
    running: int = Field(default=0, description="prompts")
    waiting: int = Field(default=0, description="prompts")
    node: str | None = Field(default=None, description="class of the running node, where told")
    step: int | None = None
    steps: int | None = None
    seconds_per_step: float | None = None


class Sampler:
    """Takes samples; remembers what the next one is compared with."""

    def __init__(
        self, root: Path = Path("/"), read: Callable[[Path], Gpu | None] = read_gpu
    ) -> None:
        self.root = root
        self.read = read
        self._ticks = host.ticks(root)
        self._limits = Limits()

    def take(self, activity: Activity) -> Sample:
        """A sample of now, beside what is known of the server.

        Raises:
            Trouble: where the kernel tells nothing of its memory.
        """
        gpu = self.read(self.root)
        ram = host.memory(self.root)
        ticks, before = host.ticks(self.root), self._ticks
        load = host.load(self.root)
        self._ticks = ticks
        return Sample(
            time=datetime.now(UTC),
            **({} if gpu is None else _of_gpu(gpu)),
            limited_by=None if gpu is None else self._limits.judge(gpu),
            cpu_busy=_rounded(ticks.percent_since(before) if ticks and before else None, 1),
            load=load[0] if load else None,
            ram_total=ram.total,
            ram_available=ram.available,
            ram_cached=ram.cached,
            swap_total=ram.swap_total,
            swap_used=ram.swap_used,
            server=activity.problem or "up",
            running=activity.running,
            waiting=activity.waiting,
            node=activity.node,
            step=activity.step,
            steps=activity.steps,
            seconds_per_step=_rounded(activity.seconds_per_step, 3),
        )


class Limits:
    """Says what holds the GPU's clocks back, from one reading to the next."""

    def __init__(self) -> None:
        self._counters: tuple[int, ...] | None = None
        self._top = 0.0  # highest clock seen, MHz

    def judge(self, gpu: Gpu) -> str | None:
        """A few words, or None where nothing is known to hold it back.

        The firmware's own counters decide where there are any. Elsewhere a busy GPU must be below
        its own best clock, and at a limit: either of them alone is how a busy GPU looks.
        """
        before, self._counters = self._counters, gpu.throttles
        self._top = max(self._top, gpu.clock or 0.0)
        if gpu.throttles is not None:
            grown = [
                name
                for name, then, now in zip(
                    THROTTLES.values(), before or gpu.throttles, gpu.throttles, strict=True
                )
                if now > then
            ]
            return ", ".join(grown) or None
        if (gpu.busy or 0.0) < BUSY or gpu.clock is None or gpu.clock > FALLEN * self._top:
            return None
        if gpu.temperature is not None and (
            gpu.temperature >= (gpu.temperature_limit or HOT) - NEAR
        ):
            return "the temperature of the GPU"
        if gpu.power is not None and gpu.power_limit and gpu.power >= AT_CAP * gpu.power_limit:
            return "the power limit"
        return None


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)


def _of_gpu(gpu: Gpu) -> dict[str, float | str | None]:
    return {
        "gpu": gpu.title,
        "gpu_source": gpu.source,
        "gpu_busy": gpu.busy,
        "gpu_clock": gpu.clock,
        "memory_clock": gpu.memory_clock,
        "vram_used": gpu.vram_used,
        "vram_total": gpu.vram_total,
        "gtt_used": gpu.gtt_used,
        "gtt_total": gpu.gtt_total,
        "temperature": gpu.temperature,
        "power": gpu.power,
        "read_rate": gpu.read_rate,
        "write_rate": gpu.write_rate,
    }
