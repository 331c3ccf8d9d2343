"""boxtools.watch: peaks and means of what was sampled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from boxtools import smi, watch
from boxtools.gpu import Gpu
from boxtools.watch import Peaks, Watch


def reading(gtt: int | None, power: float | None = None, busy: float | None = None) -> Gpu:
    return Gpu("card0", "1002:1586", vram_used=1, gtt_used=gtt, power=power, busy=busy)


def test_peaks_are_largest_and_rates_are_means() -> None:
    readings = iter([reading(5, 10, 0), reading(9, 30, 100), reading(7, None, 50)])
    enough = threading.Event()

    def read() -> Gpu | None:
        found = next(readings, None)
        if found is None:
            enough.set()
        return found

    with Watch(interval=0.001, read=read) as watching:
        assert enough.wait(10)
    peaks = watching.peaks()
    assert (peaks.vram, peaks.gtt, peaks.used, peaks.samples) == (1, 9, 10, 3)
    assert (peaks.power, peaks.busy, peaks.temperature) == (20, 50, None)


def test_the_shortest_job_has_a_sample_before_and_one_after() -> None:
    readings: Iterator[Gpu] = iter([reading(5), reading(8)])
    with Watch(interval=60, read=lambda: next(readings)) as watching:
        assert watching.peaks().gtt == 5
    assert watching.peaks() == Peaks(vram=1, gtt=8, used=9, samples=2)


def test_without_a_gpu_nothing_is_known() -> None:
    with Watch(interval=0.001, read=lambda: None) as watching:
        pass
    assert watching.peaks() == Peaks()


def test_a_slow_reader_gets_long_pauses_and_the_end_does_not_wait_for_them() -> None:
    times = []

    def read() -> Gpu | None:
        times.append(time.monotonic())
        time.sleep(0.05)
        return reading(1)

    begun = time.monotonic()
    with Watch(interval=0.001, read=read):
        time.sleep(0.5)
    assert time.monotonic() - begun < 5
    # At a quarter of the time: no more than about 3 in the half second, beside first and last.
    assert 3 <= len(times) <= 6


def test_the_tools_are_asked_where_sysfs_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Gpu("card0", "1002:1586")
    told = Gpu("gpu0", "1002:????", source="amd-smi", busy=1)
    monkeypatch.setattr(smi, "read_gpus", lambda: [told])
    monkeypatch.setattr(watch, "read_gpus", lambda root: [blank])
    assert watch.read_gpu() == told
    monkeypatch.setattr(smi, "read_gpus", list)
    assert watch.read_gpu() == blank
    monkeypatch.setattr(watch, "read_gpus", lambda root: [reading(3)])
    monkeypatch.setattr(smi, "read_gpus", lambda: pytest.fail("sysfs has told"))
    assert watch.read_gpu() == reading(3)
