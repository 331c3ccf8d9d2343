"""What fits into the GPU's memory, judged by the peaks that ``strixbox bench`` measured here.

Nothing is assumed about a model's size: without a measurement there is no recommendation.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from boxtools.gpu import Gpu
from boxtools.host import Memory
from boxtools.settings import Settings

LARGEST = 64 << 20  # bytes of a result's file
SHARE = 0.9  # of the room is recommended: fragments, and what else wants memory
BEYOND = 2  # times the largest measured batch; a line is trusted no further
ABUNDANT, TIGHT = 0.5, 0.85  # peaks as shares of the room


@dataclass(frozen=True)
class Point:
    """One measured case of text to image."""

    width: int
    height: int
    batch: int
    used: int | None  # peak of VRAM and GTT together, bytes
    profile: str | None  # launch profile of a private server; None is the service
    seconds: float | None = None  # median per image
    low: float | None = None  # lower quartile
    high: float | None = None  # upper quartile
    job: str = ""  # the rest of the job, so that only equal ones are compared

    @property
    def pixels(self) -> int:
        """Of all images together; what the peak depends on."""
        return self.width * self.height * self.batch


class Fit(BaseModel):
    """What a size was measured with, and what fits."""

    width: int
    height: int
    measured: int  # largest batch
    peak: int  # with that batch, bytes
    batch: int | None  # that fits into the room by the line; None where no line can be drawn
    beyond: bool = False  # whether that is more than was measured


class Recommendation(BaseModel):
    """From measured peaks only."""

    points: int  # measurements that were used
    room: int | None  # bytes that the GPU can have
    fits: list[Fit] = []
    sentences: list[str] = []


def room(gpu: Gpu | None, ram: Memory) -> int | None:
    """Bytes that the GPU could use altogether, if nothing else changed.

    On an APU pages of GTT are pages of RAM: GTT's size is a limit and not a promise.
    """
    if gpu is None or gpu.vram_total is None:
        return None
    if not gpu.apu or gpu.gtt_total is None:
        return gpu.vram_total
    return gpu.vram_total + min(gpu.gtt_total, (gpu.gtt_used or 0) + ram.available)


def read_points(settings: Settings) -> list[Point]:
    """Measurements of the stack in use, the newest of equal cases; files that are none are none."""
    found: dict[tuple[object, ...], Point] = {}
    for told in _files(settings.state / "bench"):
        box = told.get("box")
        stack = box.get("stack") if isinstance(box, dict) else None
        if stack not in (None, settings.stack):
            continue
        for point in parse_points(told):
            key = (point.width, point.height, point.batch, point.profile, point.job)
            found.setdefault(key, point)
    return list(found.values())


def parse_points(told: Any) -> list[Point]:
    """Text-to-image cases of one result of ``strixbox bench``; never raises."""
    results = told.get("results") if isinstance(told, dict) else None
    found = []
    for result in results if isinstance(results, list) else []:
        job = result.get("job") if isinstance(result, dict) else None
        if not isinstance(job, dict) or job.get("workflow", "txt2img") != "txt2img":
            continue
        width, height, batch = (
            _positive(job.get(name, default))
            for name, default in (("width", 1024), ("height", 1024), ("batch", 1))
        )
        if not width or not height or not batch or result.get("failed"):
            continue
        peaks, spread, profile = (result.get(name) for name in ("peaks", "spread", "profile"))
        whole = result.get("metric", "seconds") == "seconds"
        found.append(
            Point(
                width,
                height,
                batch,
                _positive(peaks.get("used")) if isinstance(peaks, dict) else None,
                profile if isinstance(profile, str) else None,
                _seconds(result.get("median")) if whole else None,
                _seconds(spread.get("low")) if isinstance(spread, dict) else None,
                _seconds(spread.get("high")) if isinstance(spread, dict) else None,
                json.dumps({name: job[name] for name in sorted(job) if name not in SIZES}),
            )
        )
    return found


SIZES = ("width", "height", "batch", "seed", "prefix")


def recommend(points: Iterable[Point], free: int | None, profile: str) -> Recommendation:
    """Batch sizes and launch profile for ``free`` bytes of room; ``profile`` is the service's."""
    points = list(points)
    service = [point for point in points if point.used and point.profile in (None, profile)]
    found = Recommendation(points=len(service), room=free)
    if not service:
        found.sentences.append("no peak was measured yet: strixbox bench run")
    elif free:
        found.fits = _fits(service, free * SHARE)
        found.sentences += _mode(service, free)
    found.sentences += _fastest(points, profile)
    return found


def line(points: Iterable[Point]) -> tuple[float, float] | None:
    """Slope (bytes per pixel) and start of the peak over the pixels; None without a rising line.

    It needs two different numbers of pixels, of which each counts with its largest peak.
    """
    peaks: dict[int, int] = {}
    for point in points:
        if point.used:
            peaks[point.pixels] = max(point.used, peaks.get(point.pixels, 0))
    if len(peaks) < 2:
        return None
    slope, start = statistics.linear_regression(list(peaks), list(peaks.values()))
    return (slope, start) if slope > 0 else None


def _fits(points: list[Point], free: float) -> list[Fit]:
    drawn = line(points)
    found = []
    for width, height in sorted({(p.width, p.height) for p in points}, key=lambda s: s[0] * s[1]):
        largest = max(
            (p for p in points if (p.width, p.height) == (width, height)),
            key=lambda p: (p.batch, p.used or 0),
        )
        batch = None
        if drawn:
            slope, start = drawn
            by_line = int((free - start) / (slope * width * height))
            batch = max(0, min(by_line, largest.batch * BEYOND))
        found.append(
            Fit(
                width=width,
                height=height,
                measured=largest.batch,
                peak=largest.used or 0,
                batch=batch,
                beyond=batch is not None and batch > largest.batch,
            )
        )
    return found


def _mode(points: list[Point], free: int) -> list[str]:
    top = max(point.used or 0 for point in points)
    share = top / free
    if share >= TIGHT:
        return [
            f"the largest peak takes {share:.0%} of the room: smaller batches, the tiled VAE, or"
            " --lowvram keep away from an out-of-memory error"
        ]
    if share <= ABUNDANT:
        return [
            f"the largest peak takes {share:.0%} of the room: no mode that saves memory is needed;"
            " whether --highvram is quicker: strixbox bench flags --highvram"
        ]
    return [f"the largest peak takes {share:.0%} of the room: the present mode fits"]


def _fastest(points: list[Point], profile: str) -> list[str]:
    """The quickest of profiles that rendered the same job, where that is more than noise."""
    cases: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        if point.profile and point.seconds:
            key = (point.width, point.height, point.batch, point.job)
            cases.setdefault(key, []).append(point)
    for case in cases.values():
        if len(case) < 2:
            continue
        first, *others = sorted(case, key=lambda point: point.seconds or 0.0)
        names = ", ".join(
            f"{point.profile} {point.seconds:.2f} s" for point in (first, *others) if point.seconds
        )
        if any(_overlap(first, other) for other in others):
            return [f"profiles do not differ by more than the noise ({names}): keep {profile}"]
        return [f"quickest profile per image: {first.profile} ({names})"]
    return []


def _overlap(one: Point, other: Point) -> bool:
    if None in (one.low, one.high, other.low, other.high):
        return True  # a difference without a spread shows nothing
    return (one.high or 0.0) >= (other.low or 0.0)


def _files(directory: Path) -> Iterable[dict[str, Any]]:
    """Contents of a directory's JSON files, the newest first."""
    try:
        paths = [path for path in directory.iterdir() if path.suffix == ".json"]
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return
    for path in paths:
        try:
            if path.stat().st_size > LARGEST:
                continue
            told = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(told, dict):
            yield told


def _positive(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 60:
        return None
    return value


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        return None
    return float(value)
