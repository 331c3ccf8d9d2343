"""Results of measuring, as they are kept: one JSON file a sitting, in a versioned schema.

``<state>/bench/<UTC>-<plan>.json`` is replaced as a whole after every case, so that what was
measured is there whatever happens next.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boxtools.bench import stats
from boxtools.bench.plan import Metric
from boxtools.errors import Trouble
from boxtools.settings import Settings
from boxtools.statefile import write_json

LARGEST = 64 << 20  # bytes; a result of hundreds of cases is below one MiB


class Part(BaseModel):
    """A frozen part of a result; an unknown key is an error, and so is a number that JSON lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Peaks(Part):
    """What the GPU showed during a run; None is what it does not tell."""

    vram: int | None = None  # bytes, largest
    gtt: int | None = None  # bytes, largest
    used: int | None = None  # bytes, largest of both together
    power: float | None = None  # watts, mean
    temperature: float | None = None  # degrees Celsius, largest
    busy: float | None = None  # percent, mean
    samples: int = 0


class Run(Part):
    """One render of a case."""

    seed: int
    seconds: float = Field(ge=0)  # of the whole prompt, all images of its batch
    sampler: float | None = None  # seconds in the sampling nodes, with a model's loading
    step: float | None = None  # seconds per iteration, from the first step's end to the last's
    encode: float | None = None  # seconds in the nodes that encode with the VAE
    decode: float | None = None
    cached: tuple[str, ...] = ()  # classes of the nodes whose result was still there
    peaks: Peaks = Peaks()
    notes: tuple[str, ...] = ()


class Spread(Part):
    """Of the case's metric, over its runs."""

    low: float  # lower quartile
    high: float  # upper quartile
    mad: float  # median absolute deviation
    least: float
    most: float


class Result(Part):
    """One case: how it was rendered, and what came of it."""

    name: str
    also: tuple[str, ...] = ()
    section: str = ""
    metric: Metric = "seconds"
    profile: str | None = None  # of a private server; None is the service
    variables: dict[str, str] = {}  # set beside the profile's; empty is taken away
    job: dict[str, Any] = {}  # of boxtools.workflows.Job, with what it leaves open filled in
    models: dict[str, int | None] = {}  # folder/name -> bytes
    first: Run | None = None  # the warm-up, which does not count
    cold: bool = False  # whether the warm-up also had to load the models
    runs: tuple[Run, ...] = ()
    failed: str | None = None
    median: float | None = None  # seconds of the metric; of `seconds`, per image
    spread: Spread | None = None
    medians: dict[str, float] = {}  # of sampler, step, encode and decode, as far as known
    peaks: Peaks = Peaks()  # largest of all runs; power and busy are their means

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the case."""
        return (self.name, *self.also)

    @property
    def batch(self) -> int:
        """Images a run."""
        batch = self.job.get("batch", 1)
        return batch if isinstance(batch, int) and batch > 0 else 1

    @property
    def values(self) -> tuple[float, ...]:
        """The metric of every run, in seconds."""
        return tuple(value for run in self.runs if (value := self.value(run)) is not None)

    def value(self, run: Run) -> float | None:
        """The metric of one run; of the whole render, the seconds per image."""
        if self.metric == "seconds":
            return run.seconds / self.batch
        return run.encode if self.metric == "encode" else run.decode

    def summed(self) -> Result:
        """The case with its median, spread and peaks drawn from its runs."""
        spread = None
        if self.values:
            low, median, high = stats.quartiles(self.values)
            spread = Spread(
                low=low,
                high=high,
                mad=stats.mad(self.values),
                least=min(self.values),
                most=max(self.values),
            )
        medians = {}
        for name in ("sampler", "step", "encode", "decode"):
            values = [value for run in self.runs if (value := getattr(run, name)) is not None]
            if values:
                medians[name] = stats.quartiles(values)[1]
        update = {
            "median": median if spread else None,
            "spread": spread,
            "medians": medians,
            "peaks": _peaks([run.peaks for run in self.runs]),
        }
        return self.model_copy(update=update)


class Box(Part):
    """What was measured: versions and settings that a time depends on."""

    comfyui: str | None = None
    torch: str | None = None
    hip: str | None = None
    python: str | None = None
    kernel: str
    stack: str
    release: str | None = None
    profile: str
    flags: tuple[str, ...] = ()  # of the running server, as it was started
    variables: dict[str, str] = {}
    devices: tuple[str, ...] = ()  # as ComfyUI names them
    gpu: str | None = None  # PCI vendor:device
    vram: int | None = None  # bytes
    gtt: int | None = None
    ram: int | None = None


class Choice(Part):
    """What alternation said about one flag or variable."""

    words: str  # as it was given: --flag, --flag VALUE, NAME=VALUE
    advice: stats.Advice | None = None  # None where it could not be measured
    ratio: float | None = None  # of on to off; above 1 means that on is slower
    low: float | None = None
    high: float | None = None
    rounds: tuple[float, ...] = ()  # ratio of each
    on: float | None = None  # median, seconds per image
    off: float | None = None
    reason: str | None = None  # why it could not be measured, or what else there is to say
    does: str | None = None  # what the deploy's settings say about it


class Bench(Part):
    """A sitting."""

    schema_version: Literal[1] = 1
    id: str
    plan: str
    label: str | None = None
    state: Literal["partial", "complete"] = "partial"
    began: str  # UTC, ISO 8601
    ended: str | None = None
    runs: int = 0  # wanted for every case
    box: Box
    results: tuple[Result, ...] = ()
    choices: tuple[Choice, ...] = ()  # of `bench flags`

    def named(self) -> dict[str, Result]:
        """Results by every one of their names."""
        return {name: result for result in self.results for name in result.names}


def unlike(old: dict[str, Any], new: dict[str, Any], names: Iterable[str] = ()) -> list[str]:
    """In what two jobs differ, of what the first one says and ``names``."""
    every = sorted({*old, *names})
    return [f"{n} {old.get(n)} and {new.get(n)}" for n in every if old.get(n) != new.get(n)]


def now(form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """The time in UTC."""
    return time.strftime(form, time.gmtime())


def folder(settings: Settings) -> Path:
    """Where results are kept."""
    return settings.state / "bench"


def new_id(settings: Settings, plan: str) -> str:
    """``<UTC>-<plan>``, with a number behind it where that is taken."""
    first = wanted = f"{now('%Y%m%dT%H%M%SZ')}-{plan}"
    number = 2
    while (folder(settings) / f"{wanted}.json").exists():
        wanted = f"{first}-{number}"
        number += 1
    return wanted


def save(settings: Settings, bench: Bench) -> Path:
    """Keep a result; replaces what was kept of the same sitting.

    Raises:
        Trouble: where the directory takes no files.
    """
    place = folder(settings)
    try:
        place.mkdir(exist_ok=True)
        if os.geteuid() == 0:  # the state is the user's, also where root measured
            owner = settings.state.stat()
            os.chown(place, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise Trouble(
            f"{place} cannot be made ({error.strerror}); run this as {settings.user}"
        ) from None
    path = place / f"{bench.id}.json"
    write_json(path, bench.model_dump(mode="json"))
    return path


def load(path: Path) -> Bench:
    """Read a result.

    Raises:
        Trouble: where it is not there, or is none.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise Trouble(f"{path} is too large for a result; is it another file?")
        return Bench.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise Trouble(f"{path} is not there; see strixbox bench list") from None
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Trouble(
            f"{path} is no result of this version of the tools ({where}: {first['msg']});"
            " measure again, or read it with the version that wrote it"
        ) from None


def paths(settings: Settings) -> list[Path]:
    """Files of all sittings, the newest first."""
    with contextlib.suppress(OSError):
        found = [p for p in folder(settings).glob("*.json") if not p.name.startswith(".")]
        return sorted(found, key=lambda path: _order(path.stem), reverse=True)
    return []


def stored(settings: Settings, damaged: Callable[[str], None]) -> Iterator[Bench]:
    """All sittings, the newest first; files that are none are told to ``damaged``."""
    for path in paths(settings):
        try:
            yield load(path)
        except Trouble as trouble:
            damaged(str(trouble))


def meant(every: Sequence[Bench]) -> dict[str, Bench]:
    """What ``last`` and ``before`` mean among all sittings, the newest first; see ``find``."""
    measured = [bench for bench in every if bench.plan != "flags" and bench.results]
    last = measured[:1]
    before = [bench for bench in measured[1:] if bench.plan == last[0].plan][:1]
    return dict(zip(("last", "before"), last + before, strict=False))


def find(settings: Settings, wanted: str, damaged: Callable[[str], None]) -> Bench:
    """The sitting that is meant: a path, an id or the start of one, a label, ``last``, ``before``.

    ``last`` is the newest of ``bench run``; ``before`` the newest older one of the same plan. One
    that was cut before anything came of it is neither; one whose cases failed says so, and may be.

    Raises:
        Trouble: where there is none, or more than one.
    """
    if "/" in wanted or wanted.endswith(".json"):
        return load(Path(wanted).expanduser())
    exact = [path for path in paths(settings) if path.stem == wanted]
    if exact:
        return load(exact[0])
    every = list(stored(settings, damaged))
    if wanted in ("last", "before"):
        runs = [bench for bench in every if bench.plan != "flags"]
        known = meant(every)
        last = known.get("last")
        if last is None:
            raise Trouble("nothing was measured on this box yet; strixbox bench run")
        for bench in runs[: runs.index(last)] if wanted == "last" else ():
            damaged(f"{bench.id} holds no measurement; last is {last.id}")
        if wanted in known:
            return known[wanted]
        raise Trouble(
            f"there is no result of the plan {last.plan} before {last.id}, which is last;"
            f" strixbox bench run --plan {last.plan}"
        )
    found = [bench for bench in every if bench.label == wanted][:1]
    found = found or [bench for bench in every if bench.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    raise Trouble(
        f"{wanted} is the start of {len(found)} results; write more of the one you mean"
        if found
        else f"there is no result {wanted}; see strixbox bench list"
    )


def _order(stem: str) -> tuple[str, int, str]:
    """By time, then by the number that tells sittings of one second apart."""
    number = re.search(r"-(\d{1,6})$", stem)
    return stem[:16], int(number[1]) if number else 1, stem


def _peaks(all_of_them: Sequence[Peaks]) -> Peaks:
    def values(name: str) -> list[Any]:
        return [value for one in all_of_them if (value := getattr(one, name)) is not None]

    most = {n: max(values(n), default=None) for n in ("vram", "gtt", "used", "temperature")}
    means = {n: sum(v) / len(v) if (v := values(n)) else None for n in ("power", "busy")}
    return Peaks(**most, **means, samples=sum(values("samples")))
