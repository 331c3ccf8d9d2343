"""Tunes matrix products for the sizes that are used, in the server that will use them.

TunableOp tries every kernel for each new shape of a matrix product, which makes the first picture
of a size slow and the later ones faster. Its results are torch's own file, which torch rejects
after an upgrade; beside it is kept which sizes were rendered under which torch and GPU, so that a
second run does only what is missing. Tuning is on while a size is rendered here, and off otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boxtools import statefile
from boxtools.errors import Trouble, WrongUse
from boxtools.object_info import ObjectInfo
from boxtools.server import Done, Event, Server
from boxtools.tunableop import Tuning, ask, obstacle, tuning
from boxtools.workflows import Job, graph, parse_size, resolved

# Every step runs the same model on the same shapes, so that two tune as much as twenty-five;
# the second is there for samplers that do something else in their first.
STEPS = 2
# Text counts by chunks of 77 tokens, each length of it is a shape of its own. One chunk and two
# are what prompts have.
PROMPTS = ("a lighthouse at dusk", "a lighthouse at dusk, waves, gulls, a small red boat, " * 12)
IDLE = 1.0  # seconds between looks at a busy queue

Say = Callable[[str], None]


class Entry(BaseModel):
    """One size that was tuned."""

    model_config = ConfigDict(extra="ignore")

    first: float = Field(ge=0)  # seconds of the first picture, with tuning
    again: float = Field(ge=0)  # seconds of the same size afterwards, without
    gained: int = Field(ge=0)  # results that are new
    at: float  # unix time


class Record(BaseModel):
    """What was tuned under one torch on one GPU."""

    model_config = ConfigDict(extra="ignore")

    torch: str
    gpu: str
    validators: dict[str, str] = {}
    results: int = 0  # in TunableOp's file at the end
    sizes: dict[str, dict[str, Entry]] = {}  # by checkpoint, then by size


class Report(BaseModel):
    """What one run did."""

    torch: str
    gpu: str
    checkpoint: str | None = None
    tuned: dict[str, Entry] = {}
    already: list[str] = []
    failed: dict[str, str] = {}
    results_before: int = 0
    results_after: int = 0
    filename: str | None = None
    tuning: bool = True  # False: rendered without tuning
    seconds: float = 0.0
    note: str | None = None  # why there was nothing to do


def parse_sizes(sizes: str, batches: str) -> list[Job]:
    """Every size with every batch size, in the given order.

    Raises:
        WrongUse: where one is none.
    """
    found: dict[str, Job] = {}
    for size in sizes.split(","):
        width, height = parse_size(size)
        for batch in batches.split(","):
            if not re.fullmatch(r"[0-9]{1,3}", batch.strip()) or not int(batch):
                raise WrongUse(f"{batch!r} is no batch size; write e.g. --batches 1,2,4")
            job = Job(width=width, height=height, batch=int(batch), steps=STEPS, keep=False)
            found.setdefault(name_of(job), job)
    return list(found.values())


def name_of(job: Job) -> str:
    """``1024x1536`` or ``1024x1536x2``, with the batch size where it is not 1."""
    return f"{job.width}x{job.height}" + (f"x{job.batch}" if job.batch > 1 else "")


def machine(server: Server) -> tuple[str, str, bool]:
    """Torch's version, the GPU's name, and whether it is one, as the server tells."""
    stats = server.system_stats()
    system, devices = stats.get("system"), stats.get("devices")
    torch = system.get("pytorch_version") if isinstance(system, dict) else None
    device = devices[0] if isinstance(devices, list) and devices else None
    device = device if isinstance(device, dict) else {}
    gpu = device.get("type") not in (None, "cpu")
    return str(torch or "unknown"), str(device.get("name") or "none"), gpu


def record_file(state: Path, torch: str, gpu: str) -> Path:
    """The record of one torch on one GPU, named by both and by their digest."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{torch}-{gpu}").strip("-.")[:80]
    digest = hashlib.sha256(f"{torch}\n{gpu}".encode()).hexdigest()[:8]
    return state / "warmup" / f"{plain}-{digest}.json"


def read_record(path: Path, torch: str, gpu: str) -> Record:
    """The record, or an empty one where there is none that can be read."""
    with contextlib.suppress(ValidationError):
        found = Record.model_validate(statefile.read_json(path))
        if (found.torch, found.gpu) == (torch, gpu):
            return found
    return Record(torch=torch, gpu=gpu)


def stale(record: Record, state: Tuning) -> str | None:
    """Why the record no longer holds, though torch and GPU are the same; None where it does."""
    for name, value in record.validators.items():
        # Some are registered at the first matrix product only: what is missing says nothing.
        if state.validators.get(name, value) != value:
            return f"{name} was {value} and is {state.validators[name]}"
    if record.results and state.filename:
        path = Path(state.filename.replace("%d", "0"))
        with contextlib.suppress(PermissionError):
            if path.is_absolute() and not path.exists():
                return f"{path} is gone"
    return None


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the lock of warm-ups, which is their directory.

    Raises:
        Trouble: where another runs.
    """
    directory = state / "warmup"
    try:
        directory.mkdir(exist_ok=True)
        if os.geteuid() == 0:  # the state is the user's, also where root ran the command
            os.chown(directory, state.stat().st_uid, state.stat().st_gid)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Trouble(
            f"{directory} cannot be used: {error.strerror}; see the owner and the mode of {state}"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("another warm-up runs on this box; wait for its end") from None
        yield
    finally:
        os.close(lock)


def idle(server: Server, say: Say) -> None:
    """Wait until nobody's prompt runs or waits: with tuning on, theirs would be slow."""
    said = False
    while True:
        running, waiting = server.queue()
        if not running and not waiting:
            return
        if not said:
            say(f"waiting for what others queued: {len(running) + len(waiting)}")
            said = True
        time.sleep(IDLE)


def answers(server: Server, patience: float) -> None:
    """Wait until the server answers, as it starts for up to a minute.

    Raises:
        Trouble: where it still does not after ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while True:
        try:
            server.system_stats()
            return
        except Trouble:
            if time.monotonic() >= until:
                raise
        time.sleep(IDLE)


class Warmup:
    """One run: what is missing of ``jobs``, size by size."""

    def __init__(
        self,
        server: Server,
        state: Path,
        say: Say,
        seen: Callable[[str, Event], None] = lambda name, event: None,
    ) -> None:
        self.server = server
        self.state = state
        self.say = say
        self.seen = seen

    def run(
        self,
        jobs: list[Job],
        *,
        checkpoint: str | None = None,
        again: bool = False,
        if_new: bool = False,
        anyway: bool = False,
    ) -> Report:
        """Tune what is not tuned yet, and keep what was done after every size.

        Args:
            jobs: sizes, from ``parse_sizes``.
            checkpoint: model to render with; None for the best that is there.
            again: do all, also what was done before.
            if_new: a box on which nothing can be tuned is fine.
            anyway: render without tuning where nothing can be tuned.

        Raises:
            Trouble: where nothing can be tuned, or the server goes away.
        """
        torch, gpu, is_gpu = machine(self.server)
        state = ask(self.server)
        report = Report(torch=torch, gpu=gpu, filename=state.filename)
        report.results_before = report.results_after = state.results
        why_not = obstacle(state, is_gpu)
        if why_not is not None and not anyway:
            if if_new:
                report.note = why_not
                return report
            raise Trouble(f"{why_not}; --anyway renders the sizes without tuning")
        begin = time.monotonic()
        with alone(self.state):
            if why_not is None:
                self._tune(report, state, jobs, checkpoint, again=again, if_new=if_new)
            else:
                report.tuning = False
                self._render(report, jobs, checkpoint)
        report.seconds = round(time.monotonic() - begin, 1)
        return report

    def _tune(
        self,
        report: Report,
        state: Tuning,
        jobs: list[Job],
        checkpoint: str | None,
        *,
        again: bool,
        if_new: bool,
    ) -> None:
        if state.tuning:
            # torch begins with tuning on; from here on it is on only while a size is rendered.
            ask(self.server, tuning=False)
        path = record_file(self.state, report.torch, report.gpu)
        record = read_record(path, report.torch, report.gpu)
        reason = stale(record, state)
        if reason is not None:
            self.say(f"all sizes again: {reason}")
            record = Record(torch=report.torch, gpu=report.gpu)
        info = ObjectInfo.ask(self.server)
        try:
            report.checkpoint = resolved(Job(checkpoint=checkpoint), info).checkpoint
        except Trouble as trouble:
            if not if_new:
                raise
            report.note = str(trouble)  # a new box gets its models later
            return
        done = record.sizes.setdefault(str(report.checkpoint), {})
        for job in jobs:
            name = name_of(job)
            if name in done and not again:
                report.already.append(name)
                continue
            with self._tolerant(report, name):
                done[name] = report.tuned[name] = self._one(info, job, report.checkpoint)
                now = ask(self.server)
                report.results_after = record.results = now.results
                record.validators = now.validators or record.validators
                statefile.write_json(path, record.model_dump())

    def _one(self, info: ObjectInfo, job: Job, checkpoint: str | None) -> Entry:
        idle(self.server, self.say)
        before = ask(self.server).results
        # Another seed each time: ComfyUI would hand out the last picture instead of making one.
        runs = [
            job.model_copy(update={"checkpoint": checkpoint, "prompt": prompt, "seed": seed})
            for seed, prompt in enumerate((*PROMPTS, PROMPTS[0]), time.time_ns() % 2**32)
        ]
        with tuning(self.server):
            first, _ = (self._picture(info, run) for run in runs[:2])
        again = self._picture(info, runs[2])
        gained = max(0, ask(self.server).results - before)
        return Entry(
            first=round(first.seconds, 3),
            again=round(again.seconds, 3),
            gained=gained,
            at=time.time(),
        )

    def _render(self, report: Report, jobs: list[Job], checkpoint: str | None) -> None:
        info = ObjectInfo.ask(self.server)
        report.checkpoint = resolved(Job(checkpoint=checkpoint), info).checkpoint
        for job in jobs:
            with self._tolerant(report, name_of(job)):
                chosen = {"checkpoint": report.checkpoint, "prompt": PROMPTS[0]}
                seed = time.time_ns() % 2**32
                first, again = (
                    self._picture(info, job.model_copy(update={**chosen, "seed": seed + number}))
                    for number in range(2)
                )
                report.tuned[name_of(job)] = Entry(
                    first=round(first.seconds, 3),
                    again=round(again.seconds, 3),
                    gained=0,
                    at=time.time(),
                )

    def _picture(self, info: ObjectInfo, job: Job) -> Done:
        return self.server.run(graph(job, info), lambda event: self.seen(name_of(job), event))

    @contextlib.contextmanager
    def _tolerant(self, report: Report, name: str) -> Iterator[None]:
        """A size that fails, for want of memory say, does not keep the others from being tuned."""
        try:
            yield
        except Trouble as trouble:
            self.server.system_stats()  # without a server there are no others
            report.failed[name] = str(trouble)
            self.say(f"{name}: {trouble}")


def status(server: Server, state: Path) -> dict[str, Any]:
    """What was tuned under the server's torch and GPU, and TunableOp's state."""
    torch, gpu, is_gpu = machine(server)
    told = ask(server)
    record = read_record(record_file(state, torch, gpu), torch, gpu)
    return {
        "torch": torch,
        "gpu": gpu,
        "obstacle": obstacle(told, is_gpu),
        "stale": stale(record, told),
        "tunableop": told.model_dump(),
        "sizes": record.model_dump()["sizes"],
    }
