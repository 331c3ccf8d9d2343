"""One flag or variable on and off in alternation: keep it, drop it, or no difference.

ComfyUI and torch read flags and variables when they start, so each side is a private server. Both
stay up and take turns, on-off, off-on, ..., so that heat, clocks and whatever else changes slowly
falls on both alike; of every round only the ratio counts.
"""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from boxtools.bench import stats
from boxtools.bench.measure import Bencher
from boxtools.bench.results import Choice
from boxtools.errors import Trouble, WrongUse
from boxtools.jobs import Job
from boxtools.private import private_server, words_without
from boxtools.server import Server
from boxtools.settings import Profile, Settings

ROUNDS = 5  # the fewest that can decide
# What a private server has of its own, or what says where and not how.
OWN = (
    "PYTORCH_TUNABLEOP_FILENAME",
    "--listen",
    "--port",
    "--temp-directory",
    "--database-url",
    "--base-directory",
)
# ComfyUI v0.3.64's cli_args.py: argparse refuses two of a group, wherever they stand.
EXCLUSIVE = (
    ("--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram", "--cpu"),
    (
        "--use-split-cross-attention",
        "--use-quad-cross-attention",
        "--use-pytorch-cross-attention",
        "--use-sage-attention",
        "--use-flash-attention",
    ),
    ("--cache-classic", "--cache-lru", "--cache-none"),
    ("--force-fp32", "--force-fp16"),
    ("--fp16-vae", "--fp32-vae", "--bf16-vae"),
    ("--cuda-malloc", "--disable-cuda-malloc"),
    ("--force-upcast-attention", "--dont-upcast-attention"),
)


@dataclass(frozen=True)
class Side:
    """How a private server differs from the profile."""

    flags: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()  # an empty value takes the variable away
    without: tuple[str, ...] = ()  # flags of the profile that it must not have


@dataclass(frozen=True)
class Knob:
    """A flag or variable, and the two sides that differ in nothing else."""

    words: str
    on: Side
    off: Side
    does: str | None = None


def knob(settings: Settings, text: str) -> Knob:
    """What ``--flag``, ``--flag VALUE``, ``NAME=VALUE`` or a known variable's NAME means.

    Raises:
        WrongUse: where it is none of these, or one that decides nothing about speed.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        words = ()
    profile = settings.profiles[settings.profile]
    if len(words) == 1 and re.fullmatch(r"[A-Z_][A-Z0-9_]*(=.*)?", words[0], re.DOTALL):
        return _variable(settings, profile, words[0])
    if words and re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?", words[0], re.DOTALL):
        return _flag(profile, words)
    raise WrongUse(
        f"{text!r} is neither a flag nor a variable; write --flag, '--flag VALUE' or NAME=VALUE"
    )


def every(settings: Settings) -> list[str]:
    """All flags and variables of the service's profile, as ``knob`` takes them."""
    profile = settings.profiles[settings.profile]
    flags: list[list[str]] = []
    for word in profile.flags:
        if word.startswith("--") or not flags:
            flags.append([word])
        else:
            flags[-1].append(word)
    return [*(shlex.join(words) for words in flags), *profile.variables]


def measure(
    settings: Settings,
    chosen: Knob,
    job: Job,
    rounds: int,
    *,
    one_at_a_time: bool = False,
    remark: Callable[[str], None] = lambda text: None,
    done: Callable[[], None] = lambda: None,
) -> Choice:
    """Measure one flag or variable; an error of either side is part of what is told.

    ``one_at_a_time`` starts a server for every turn, for a box without room for two.
    """
    times: dict[str, list[float]] = {"on": [], "off": []}
    sides = {"on": chosen.on, "off": chosen.off}
    try:
        with ExitStack() as stack:
            live: dict[str, Bencher] = {}
            if not one_at_a_time:
                for name, side in sides.items():
                    remark(f"starts a private ComfyUI with {chosen.words} {name}")
                    live[name] = _warm(stack.enter_context(_server(settings, side)), settings, job)
            for turn in order(rounds):
                if one_at_a_time:
                    with _server(settings, sides[turn]) as server:
                        times[turn].append(_seconds(_warm(server, settings, job), job))
                else:
                    times[turn].append(_seconds(live[turn], job))
                done()
    except Trouble as trouble:
        if min(map(len, times.values())) < fewest():
            reason = f"not measured: {trouble}"
            return Choice(words=chosen.words, reason=reason, does=chosen.does)
        remark(str(trouble))
    return judged(chosen, times["on"], times["off"])


def judged(chosen: Knob, on: Sequence[float], off: Sequence[float]) -> Choice:
    """What the times of complete rounds say."""
    ratios = tuple(a / max(b, stats.TINY) for a, b in zip(on, off, strict=False))
    told = stats.paired(ratios)
    return Choice(
        words=chosen.words,
        advice=told.advice,
        ratio=told.ratio,
        low=told.low,
        high=told.high,
        rounds=ratios,
        on=statistics.median(on),
        off=statistics.median(off),
        does=chosen.does,
    )


def order(rounds: int) -> list[str]:
    """The turns: on-off, off-on, on-off, ...; a steady drift falls on both sides alike."""
    turns: list[str] = []
    for number in range(rounds):
        turns += ["on", "off"] if number % 2 == 0 else ["off", "on"]
    return turns


def fewest() -> int:
    """Rounds below which nothing is decided."""
    return next(count for count in range(1, 100) if stats.outside(count) is not None)


def _variable(settings: Settings, profile: Profile, word: str) -> Knob:
    name, given, value = word.partition("=")
    _refuse(name)
    known = settings.variables.get(name)
    if not given:
        if known is None:
            raise WrongUse(f"no value is known for {name}; write {name}=VALUE")
        value = known.value
    if not value:
        raise WrongUse(f"{name}= is off already; write {name}=VALUE, the tool turns it off itself")
    does = known.does if known is not None else None
    # Off is the variable unset, or with the profile's value where another one is tried.
    other = known.value if known is not None and name in profile.variables else ""
    off = "" if other == value else other
    return Knob(word, Side(variables=((name, value),)), Side(variables=((name, off),)), does)


def _flag(profile: Profile, words: tuple[str, ...]) -> Knob:
    name = words[0].partition("=")[0]
    _refuse(name)
    rivals = {flag for group in EXCLUSIVE if name in group for flag in group} - {name}
    against = tuple(sorted(rivals & {word.partition("=")[0] for word in profile.flags}))
    there = len(words_without(profile.flags, (name,))) < len(profile.flags)
    # Both sides are started in the same way, so that they differ in the flag alone.
    if there or against:
        on = Side(flags=words, without=(name, *against))
        # Off is the profile as it is, without the flag itself.
        off = Side(without=(name,))
        if against:
            off = Side(flags=_kept(profile, against), without=(name, *against))
        return Knob(shlex.join(words), on, off)
    return Knob(shlex.join(words), Side(flags=words), Side())


def _refuse(name: str) -> None:
    if name in OWN:
        raise WrongUse(f"{name} says where things are, not how ComfyUI works; nothing to measure")


def _kept(profile: Profile, names: Sequence[str]) -> tuple[str, ...]:
    """The profile's own words for these flags."""
    found: list[str] = []
    keeping = False
    for word in profile.flags:
        if word.startswith("--"):
            keeping = word.partition("=")[0] in names
        if keeping:
            found.append(word)
    return tuple(found)


def _server(settings: Settings, side: Side) -> AbstractContextManager[Server]:
    # A preview costs time and is no part of the question; ComfyUI's own default is none.
    flags = ("--preview-method", "none", *side.flags)
    return private_server(
        settings, flags=flags, variables=dict(side.variables), without=side.without
    )


def _warm(server: Server, settings: Settings, job: Job) -> Bencher:
    bencher = Bencher(server, settings, patience=0.0, beside=Server(settings.url))
    bencher.once(bencher.prepared(job))
    return bencher


def _seconds(bencher: Bencher, job: Job) -> float:
    """Seconds per image."""
    return bencher.once(bencher.prepared(job)).seconds / job.batch
