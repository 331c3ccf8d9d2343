"""Two sittings, or a sitting and the chapter, case by case."""

from __future__ import annotations

from collections.abc import Sequence

from boxtools.bench import stats
from boxtools.bench.chapter import claims, foreign
from boxtools.bench.plan import Metric
from boxtools.bench.results import Bench, Box, Part, Result, unlike

CHAPTER = "chapter"
# What may differ between two measurements of the same thing, in the order that it is told.
TOLD = ("comfyui", "torch", "hip", "kernel", "stack", "release", "profile", "gpu", "vram", "gtt")


class Line(Part):
    """One case in both."""

    name: str
    section: str = ""
    metric: Metric = "seconds"
    first: float | None = None  # median seconds, or the claim
    second: float | None = None
    ratio: float | None = None  # second to first; above 1 is slower
    needed: float | None = None  # a ratio nearer to 1 than this, or its inverse, is noise
    p: float | None = None  # one-sided; None against a claim
    verdict: stats.Verdict
    reason: str | None = None
    fails: bool = False  # worked in the first and fails in the second


class Comparison(Part):
    """The second sitting as seen from the first."""

    first: str
    second: str
    differences: tuple[str, ...] = ()  # of the boxes
    lines: tuple[Line, ...] = ()
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    noise: float = 0.0  # pooled relative noise of one run
    mean: float | None = None  # geometric mean of the ratios that may be compared

    @property
    def worse(self) -> bool:
        """Whether a case is slower beyond noise, or fails where it worked."""
        return any(line.verdict == "slower" or line.fails for line in self.lines)


def compare(first: Bench, second: Bench) -> Comparison:
    """Both sittings, by the cases that they share."""
    # One line for a render that the plans know by several names.
    before = first.named()
    shared = [(before[name], now) for now in second.results if (name := _shared(now, before))]
    sigma = stats.noise([r.values for pair in shared for r in pair])
    lines = tuple(_line(old, new, sigma) for old, new in shared)
    after = second.named()
    return Comparison(
        first=first.id,
        second=second.id,
        differences=tuple(differences(first.box, second.box)),
        lines=lines,
        only_first=tuple(r.name for r in first.results if _shared(r, after) is None),
        only_second=tuple(r.name for r in second.results if _shared(r, before) is None),
        noise=sigma,
        mean=_mean(lines),
    )


def with_chapter(bench: Bench, *, claims_first: bool = True) -> Comparison:
    """A sitting against the chapter's figures, or these against it."""
    known, measured = claims(), bench.named()
    sigma = stats.noise([result.values for result in bench.results])
    lines = []
    for name, claim in known.items():
        if name not in measured:
            continue
        result = measured[name]
        value = claim.value(result.metric)
        line = Line(
            name=name,
            section=claim.section,
            metric=result.metric,
            first=value,
            second=result.median,
            verdict="not comparable",
            reason=result.failed or claim.note,
        )
        other = foreign(name, result)
        if other:
            line = line.model_copy(update={"reason": f"not the chapter's: {', '.join(other)}"})
        elif value is not None and claim.comparable and not result.failed:
            told = stats.against_claim(value, result.values, sigma)
            reason = "; ".join(filter(None, (told.reason, claim.note))) or None
            update = {"verdict": told.verdict, "ratio": told.ratio, "needed": told.needed}
            line = line.model_copy(update={**update, "reason": reason})
        lines.append(line if claims_first else _reversed(line))
    names = [r.name for r in bench.results if not set(r.names) & set(known)]
    missing = [name for name in known if name not in measured]
    sides = (CHAPTER, bench.id) if claims_first else (bench.id, CHAPTER)
    only = (missing, names) if claims_first else (names, missing)
    return Comparison(
        first=sides[0],
        second=sides[1],
        lines=tuple(lines),
        only_first=tuple(only[0]),
        only_second=tuple(only[1]),
        noise=sigma,
        mean=_mean(lines),
    )


def differences(first: Box, second: Box) -> list[str]:
    """What is not the same about the two boxes, or the box then and now."""
    found = [
        f"{name} {old} → {new}"
        for name in TOLD
        if (old := getattr(first, name)) != (new := getattr(second, name))
    ]
    # Ports and directories are in the flags too, but only the flags' names change a time.
    lost, got = set(first.flags) - set(second.flags), set(second.flags) - set(first.flags)
    found += [f"without {flag}" for flag in sorted(lost) if flag.startswith("--")]
    found += [f"with {flag}" for flag in sorted(got) if flag.startswith("--")]
    for name in sorted({*first.variables, *second.variables}):
        old, new = first.variables.get(name), second.variables.get(name)
        if old != new:
            found.append(f"{name} {old or 'unset'} → {new or 'unset'}")
    return found


def _shared(result: Result, others: dict[str, Result]) -> str | None:
    return next((name for name in result.names if name in others), None)


def _line(old: Result, new: Result, sigma: float) -> Line:
    line = Line(
        name=new.name,
        section=new.section,
        metric=new.metric,
        first=old.median,
        second=new.median,
        verdict="not comparable",
    )
    if old.failed or new.failed:
        which = (
            "both fail" if old.failed and new.failed else "fails now" if new.failed else "failed"
        )
        reason = f"{which}: {new.failed or old.failed}"
        fails = bool(new.failed and not old.failed)
        return line.model_copy(update={"reason": reason, "fails": fails})
    other = other_render(old, new)
    if other:
        return line.model_copy(update={"reason": f"not the same render: {', '.join(other)}"})
    told = stats.compare(old.values, new.values, sigma)
    return line.model_copy(
        update={
            "verdict": told.verdict,
            "ratio": told.ratio,
            "needed": told.needed,
            "p": told.p,
            "reason": told.reason or None,
        }
    )


def other_render(old: Result, new: Result) -> list[str]:
    """Why two results of one name are not of the same render."""
    found = [] if old.metric == new.metric else [f"{old.metric} and {new.metric}"]
    found += unlike(old.job, new.job, new.job)
    for name in sorted({*old.models} & {*new.models}):
        sizes = old.models[name], new.models[name]
        if None not in sizes and sizes[0] != sizes[1]:
            found.append(f"{name} was another file")
    return found


def _reversed(line: Line) -> Line:
    swapped: dict[stats.Verdict, stats.Verdict] = {"faster": "slower", "slower": "faster"}
    return line.model_copy(
        update={
            "first": line.second,
            "second": line.first,
            "ratio": 1 / line.ratio if line.ratio else None,
            "verdict": swapped.get(line.verdict, line.verdict),
        }
    )


def _mean(lines: Sequence[Line]) -> float | None:
    return stats.geometric_mean(
        [line.ratio for line in lines if line.ratio and line.verdict != "not comparable"]
    )
