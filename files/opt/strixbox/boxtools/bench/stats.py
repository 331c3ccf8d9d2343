"""What a few measured times allow to say; docs/bench.md gives the reasons in full.

Times are compared as logarithms: what disturbs a render disturbs it by a share of its time, and a
ratio read backwards is then the same statement.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Verdict = Literal["faster", "slower", "no difference beyond noise", "not comparable"]
Advice = Literal["keep", "drop", "no difference"]

ALPHA = 0.05  # chance, per case, that two equal boxes look different in one direction
SMALLEST = 1.03  # a smaller ratio between two sittings is weather: heat, page cache, clocks
SMALLEST_PAIRED = 1.01  # within one sitting and in alternation, heat and clocks are the same
ERRORS = 3.0  # standard errors that a difference must exceed
MEDIAN = math.sqrt(math.pi / 2)  # standard error of a median to that of a mean, at most
EXACT = 20_000  # relabellings that are all tried; beyond it, as many drawn ones
TINY = 1e-6  # seconds; a shorter time is a clock that did not move


@dataclass(frozen=True)
class Difference:
    """Two samples of one case; ratios are of the second to the first, so above 1 is slower."""

    verdict: Verdict
    ratio: float | None
    needed: float | None  # a ratio below this, or above its inverse, counts as noise
    p: float | None  # one-sided, by permutation; None against a claim
    reason: str = ""


@dataclass(frozen=True)
class Paired:
    """Rounds of on and off; ratios are of on to off, so above 1 means that on is slower."""

    advice: Advice
    ratio: float
    low: float | None  # interval of the median ratio, at 90 % or more; None for too few rounds
    high: float | None
    rounds: int


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; one value is all three."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def mad(values: Sequence[float]) -> float:
    """Median absolute deviation from the median."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)


def logs(values: Iterable[float]) -> list[float]:
    """Natural logarithms of times."""
    return [math.log(max(value, TINY)) for value in values]


def noise(samples: Iterable[Sequence[float]]) -> float:
    """Relative noise of one run, pooled over the samples of many cases.

    The median of the samples' variances, each divided by what the median of a variance with its
    degrees of freedom is to the true one (Wilson-Hilferty): three runs know little of their own
    noise, thirty cases of three runs know a lot, and one disturbed case changes nothing.
    """
    variances = []
    for sample in samples:
        freedom = len(sample) - 1
        if freedom > 0:
            share = (1 - 2 / (9 * freedom)) ** 3
            variances.append(statistics.variance(logs(sample)) / share)
    return math.sqrt(statistics.median(variances)) if variances else 0.0


def own_noise(first: Sequence[float], second: Sequence[float]) -> float:
    """Relative noise of one run, as the two samples of one case show it."""
    known = [sample for sample in (first, second) if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in known)
    total = sum(statistics.variance(logs(sample)) * (len(sample) - 1) for sample in known)
    return math.sqrt(total / freedom) if freedom else 0.0


def compare(first: Sequence[float], second: Sequence[float], pooled: float = 0.0) -> Difference:
    """Whether the second sample differs from the first by more than noise.

    ``pooled`` is the noise of the whole results. A difference counts when all of it holds: hardly
    any relabelling of the runs gives one as large, it is above ``ERRORS`` standard errors, and it
    is above ``SMALLEST``.
    """
    if not first or not second:
        return Difference("not comparable", None, None, None, "no run of it succeeded")
    ratio = statistics.median(second) / max(statistics.median(first), TINY)
    few = math.comb(len(first) + len(second), len(first)) * ALPHA < 1
    if few:
        reason = f"{len(first)} and {len(second)} runs are too few; --runs 3 or more"
        return Difference("not comparable", ratio, None, None, reason)
    sigma = max(pooled, own_noise(first, second))
    error = MEDIAN * sigma * math.sqrt(1 / len(first) + 1 / len(second))
    needed = max(math.log(SMALLEST), ERRORS * error)
    effect = math.log(max(ratio, TINY))
    p = permutation(first, second) if effect >= 0 else permutation(second, first)
    differs = p <= ALPHA and abs(effect) >= needed
    return Difference(_word(differs, effect), ratio, _ratio(needed), p)


def against_claim(claim: float, second: Sequence[float], pooled: float = 0.0) -> Difference:
    """Whether a sample differs from one published figure, of whose noise nothing is known."""
    if not second:
        return Difference("not comparable", None, None, None, "no run of it succeeded")
    ratio = statistics.median(second) / max(claim, TINY)
    if len(second) < 3:
        reason = f"{len(second)} runs are too few; --runs 3 or more"
        return Difference("not comparable", ratio, None, None, reason)
    sigma = max(pooled, own_noise(second, ()))
    needed = max(math.log(SMALLEST), ERRORS * MEDIAN * sigma / math.sqrt(len(second)))
    effect = math.log(max(ratio, TINY))
    return Difference(_word(abs(effect) >= needed, effect), ratio, _ratio(needed), None)


def permutation(lower: Sequence[float], higher: Sequence[float]) -> float:
    """Share of the relabellings in which ``higher`` is on average above ``lower`` by as much.

    Fisher-Pitman test on the means of the logarithms, one-sided: exact for few runs, else by drawn
    relabellings, always the same ones.
    """
    values = logs([*lower, *higher])
    count = len(higher)
    # The sum of one group decides: the other one's is what is left.
    seen = sum(values[len(lower) :]) - 1e-12
    if math.comb(len(values), count) <= EXACT:
        sums = [sum(group) for group in combinations(values, count)]
        return sum(one >= seen for one in sums) / len(sums)
    draw = random.Random(0)  # noqa: S311 - the same draws each time are what is wanted
    above = sum(sum(draw.sample(values, count)) >= seen for _ in range(EXACT))
    return (above + 1) / (EXACT + 1)


def paired(ratios: Sequence[float]) -> Paired:
    """What rounds of on and off in alternation say: keep, drop, or no difference.

    The interval is between order statistics (sign test): it supposes nothing about how the noise is
    distributed. Five rounds are the fewest that can decide, when all of them agree.

    Raises:
        ValueError: where there is no round.
    """
    if not ratios:
        raise ValueError("no rounds")
    values = sorted(logs(ratios))
    middle = statistics.median(values)
    beside = outside(len(values))
    if beside is None:
        return Paired("no difference", math.exp(middle), None, None, len(values))
    low, high = values[beside], values[-1 - beside]
    least = math.log(SMALLEST_PAIRED)
    advice: Advice = "no difference"
    if high < 0 and middle <= -least:
        advice = "keep"
    elif low > 0 and middle >= least:
        advice = "drop"
    return Paired(advice, math.exp(middle), math.exp(low), math.exp(high), len(values))


def outside(count: int) -> int | None:
    """How many of ``count`` sorted values lie on each side of the interval; None for too few."""
    total = 0
    for taken in range(count):
        total += math.comb(count, taken)
        if total > ALPHA * 2**count:
            return taken - 1 if taken else None
    return None


def geometric_mean(ratios: Sequence[float]) -> float | None:
    """The mean of ratios, None where there are none."""
    return math.exp(statistics.fmean(logs(ratios))) if ratios else None


def _ratio(effect: float) -> float:
    return math.exp(min(effect, 700))  # noise beyond all measure still has a number


def _word(differs: bool, effect: float) -> Verdict:
    if not differs:
        return "no difference beyond noise"
    return "slower" if effect > 0 else "faster"
