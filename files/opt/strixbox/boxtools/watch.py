"""Samples the GPU beside a job and keeps what the job needed at most.

A peak is the largest of the samples: what was taken and given back between two of them is not seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from boxtools import smi
from boxtools.gpu import STRIX_HALO, Gpu, read_gpus


@dataclass(frozen=True)
class Peaks:
    """What the samples show; None where the GPU did not tell in any of them."""

    vram: int | None = None  # largest, bytes
    gtt: int | None = None  # largest, bytes
    used: int | None = None  # largest of VRAM and GTT at the same moment, bytes
    power: float | None = None  # mean, watts
    temperature: float | None = None  # highest, degrees Celsius
    busy: float | None = None  # mean, percent
    samples: int = 0  # moments at which a GPU was read


def read_gpu(root: Path = Path("/")) -> Gpu | None:
    """The GPU that ComfyUI works on, None where there is none.

    sysfs first; amd-smi and then rocm-smi only where the kernel's files tell nothing.
    """
    found = choose(read_gpus(root))
    if found is not None and found.tells:
        return found
    if root != Path("/"):
        return found  # the tools know this machine only, not another's files
    return choose(smi.read_gpus()) or found


def choose(gpus: list[Gpu]) -> Gpu | None:
    """Strix Halo's own GPU where it is among them, else the first: the launch profiles' default."""
    own = (gpu for gpu in gpus if gpu.device == STRIX_HALO)
    return next(own, gpus[0] if gpus else None)


class Watch:
    """Reads the GPU every ``interval`` seconds, in a thread, while the context lasts.

    ``read`` gives a reading, or None where there is no GPU; it must not raise.
    """

    SHARE = 0.25  # of the time is spent reading at most: amd-smi takes a second each time

    def __init__(self, interval: float = 0.2, read: Callable[[], Gpu | None] = read_gpu) -> None:
        self.interval = interval
        self.read = read
        self._sums = _Sums()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="gpu-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._sample()  # however short the job, there is a sample from before and one from after
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def peaks(self) -> Peaks:
        """What was seen so far."""
        with self._lock:
            return self._sums.peaks()

    def _loop(self) -> None:
        pause = self.interval
        while not self._ended.wait(pause):
            begun = time.monotonic()
            self._sample()
            pause = max(self.interval, (time.monotonic() - begun) * (1 / self.SHARE - 1))

    def _sample(self) -> None:
        gpu = self.read()
        if gpu is not None:
            with self._lock:
                self._sums.add(gpu)


@dataclass
class _Sums:
    samples: int = 0
    most: dict[str, float] = field(default_factory=dict)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, gpu: Gpu) -> None:
        self.samples += 1
        for name in ("vram_used", "gtt_used", "used", "temperature"):
            value = getattr(gpu, name)
            if value is not None:
                self.most[name] = max(value, self.most.get(name, value))
        for name in ("power", "busy"):
            value = getattr(gpu, name)
            if value is not None:
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = total + value, count + 1

    def peaks(self) -> Peaks:
        size = {name: int(value) for name, value in self.most.items() if name != "temperature"}
        mean = {name: total / count for name, (total, count) in self.sums.items()}
        return Peaks(
            vram=size.get("vram_used"),
            gtt=size.get("gtt_used"),
            used=size.get("used"),
            power=mean.get("power"),
            temperature=self.most.get("temperature"),
            busy=mean.get("busy"),
            samples=self.samples,
        )
