"""Measures cases on one server."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

from boxtools.bench.plan import Case, described
from boxtools.bench.results import Peaks, Result, Run
from boxtools.bench.timing import SAMPLERS, run_of
from boxtools.errors import Trouble, WrongUse
from boxtools.server import Server
from boxtools.settings import Settings
from boxtools.watch import Watch
from boxtools.workflows import Job, ObjectInfo, graph, resolved

BUSY = 3600.0  # seconds to wait for others' renders to end
RETURN = 150.0  # seconds for systemd to bring a server back that a case has ended
SETTLE = 0.3  # seconds for the server's worker to take up what it was told
ATTEMPTS = 3  # of a run that measured nothing because the sampler's result was cached

Say = Callable[[str], None]


def _nothing(text: str) -> None:
    pass


def _idle() -> None:
    pass


class Bencher:
    """Measures on one server."""

    def __init__(
        self,
        server: Server,
        settings: Settings,
        remark: Say = _nothing,
        *,
        patience: float = RETURN,
        beside: Server | None = None,
        watch: Callable[[], Watch] = Watch,
    ) -> None:
        self.server = server
        self.settings = settings
        self.remark = remark
        self.patience = patience
        self.beside = beside  # the service, where ``server`` is a private one
        self.watch = watch
        self.info = ObjectInfo.ask(server)
        self.loaded = False  # whether something was rendered since the models were unloaded
        self.sent: set[str] = set()
        # A seed that no earlier sitting used: the result of an equal prompt may still be cached.
        self.seed = time.time_ns() // 1_000_000

    def prepared(self, job: Job) -> Job:
        """The job without open values, and with its image in ComfyUI's input directory.

        Raises:
            Trouble: naming what the box lacks for it.
        """
        if job.image is not None and job.image not in self.sent:
            self.server.upload(job.image, picture(512, 512))
            self.sent.add(job.image)
        return resolved(job, self.info)

    def once(self, job: Job) -> Run:
        """One render with a seed of its own.

        Raises:
            Trouble: where it fails.
        """
        for _ in range(ATTEMPTS):
            self.seed += 1
            made = graph(job.model_copy(update={"seed": self.seed}), self.info)
            self._wait()
            with self.watch() as watch:
                done = self.server.run(made)
            peaks = Peaks(**dataclasses.asdict(watch.peaks()))
            run = run_of(done, made, self.seed, peaks)
            self.loaded = True
            if not set(run.cached) & set(SAMPLERS):
                return run
            self.remark("a run is left out: its sampler's result was cached")
        raise Trouble(
            f"ComfyUI had the sampler's result cached {ATTEMPTS} times in a row; a node pack may be"
            " caching by itself: measure with --plan quick and it disabled"
        )

    def case(
        self, case: Case, runs: int, warmups: int = 1, done: Callable[[], None] = _idle
    ) -> Result:
        """Measure one case; an error of it is part of the result.

        Raises:
            Stopped: with what was measured until then, on Ctrl-C, or where the server is gone and
                does not come back.
        """
        result = _with(blank(self.settings, case), cold=not self.loaded)
        try:
            try:
                job = self.prepared(case.job)
            except (Trouble, WrongUse) as trouble:
                return _with(result, failed=str(trouble))
            result = _with(result, job=described(job), models=self._models(job))
            for number in range(warmups + runs):
                run = self.once(job)
                if number >= warmups:
                    result = _with(result, runs=(*result.runs, run))
                elif number == 0:
                    result = _with(result, first=run)
                done()
        except (Trouble, WrongUse) as trouble:
            result = _with(result, failed=str(trouble)).summed()
            if not self._recovers():
                raise Stopped(result, str(trouble)) from None
        except KeyboardInterrupt:
            raise Stopped(result.summed(), None) from None
        return result.summed()

    def unload(self) -> None:
        """Have the next render begin cold: with the models' files in the page cache at most."""
        self.server.free()
        # The worker wakes up for it; a prompt that came first would be rendered first.
        time.sleep(SETTLE)
        self.loaded = False

    def _wait(self) -> None:
        """Let others' renders end first: they are neither disturbed nor measured."""
        until = time.monotonic() + BUSY
        said = False
        while time.monotonic() < until:
            running, pending = self.server.queue()
            others = len(running) + len(pending)
            if self.beside is not None:
                with contextlib.suppress(Trouble):  # a service that is not there renders nothing
                    others += sum(len(part) for part in self.beside.queue())
            if not others:
                return
            if not said:
                self.remark(f"waits for {others} renders of others to end")
                said = True
            time.sleep(0.2)
        raise Trouble(
            f"others' renders did not end within {BUSY / 60:.0f} minutes; empty the queue, or"
            " measure when nobody renders"
        )

    def _recovers(self) -> bool:
        """After a failure: have the server give back what it failed with; False if it is gone."""
        until = time.monotonic() + self.patience
        while True:
            try:
                self.unload()
                return True
            except Trouble:
                if time.monotonic() > until:
                    return False
            time.sleep(SETTLE)

    def _models(self, job: Job) -> dict[str, int | None]:
        """Size by folder/name of the model files that a job loads."""
        chosen = (
            ("checkpoints", job.checkpoint),
            ("checkpoints", job.refiner),
            ("vae", job.vae),
            ("loras", job.lora),
            ("controlnet", job.controlnet),
        )
        return {f"{folder}/{name}": self._bytes(folder, name) for folder, name in chosen if name}

    def _bytes(self, folder: str, name: str) -> int | None:
        for place in (self.settings.active, self.settings.archive):
            if place is not None:
                with contextlib.suppress(OSError, ValueError):
                    return (place / folder / name).stat().st_size
        return None


class Stopped(Exception):
    """The end of measuring within a case; carries what was measured of it."""

    def __init__(self, result: Result, trouble: str | None) -> None:
        super().__init__(trouble or "interrupted")
        self.result = result
        self.trouble = trouble  # None: Ctrl-C


def blank(settings: Settings, case: Case) -> Result:
    """A case of which nothing is measured yet."""
    return Result(
        name=case.name,
        also=case.also,
        section=case.section,
        metric=case.metric,
        profile=case.profile,
        variables=overlay(settings, case),
        job=described(case.job),
    )


def overlay(settings: Settings, case: Case) -> dict[str, str]:
    """Variables that are taken away from the profile of a case."""
    if case.profile is None or case.keeps is None or case.profile not in settings.profiles:
        return {}
    names = settings.profiles[case.profile].variables
    return {name: "" for name in names if name not in case.keeps}


def picture(width: int, height: int) -> bytes:
    """A PNG with something to see everywhere and a transparent middle, which inpainting paints."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # filter of the row: none
        inside = height // 4 <= y < height * 3 // 4
        for x in range(width):
            hole = inside and width // 4 <= x < width * 3 // 4
            rows += bytes((x * 255 // width, y * 255 // height, (x ^ y) & 255, 0 if hole else 255))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits, RGBA
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(rows)))
        + chunk(b"IEND", b"")
    )


def _with(result: Result, **words: Any) -> Result:
    return result.model_copy(update=words)
