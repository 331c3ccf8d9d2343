"""What may be said of a few times: never more than they show, and the same backwards."""

from __future__ import annotations

import math
import random

import pytest
from boxtools.bench import stats
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.lists(st.floats(0.01, 1000), min_size=1, max_size=6)
ENOUGH = st.lists(st.floats(0.01, 1000), min_size=3, max_size=6)
OPPOSITE = {"faster": "slower", "slower": "faster"}


def drawn(seed: int) -> random.Random:
    """The same numbers each time."""
    return random.Random(seed)  # noqa: S311


def sample(generator: random.Random, count: int, noise: float, level: float = 10.0) -> list[float]:
    """Times with that relative noise."""
    return [level * math.exp(generator.gauss(0, noise)) for _ in range(count)]


@given(TIMES, TIMES, st.floats(0, 0.2))
def test_a_comparison_read_backwards_says_the_opposite(
    one: list[float], other: list[float], noise: float
) -> None:
    forth, back = stats.compare(one, other, noise), stats.compare(other, one, noise)
    assert forth.ratio is not None and back.ratio is not None
    assert forth.ratio * back.ratio == pytest.approx(1)
    # A median difference of exactly nothing has no direction, and then no verdict either.
    assert OPPOSITE.get(forth.verdict, forth.verdict) == back.verdict


@given(ENOUGH)
def test_a_sample_does_not_differ_from_itself(one: list[float]) -> None:
    told = stats.compare(one, one)
    assert told.verdict == "no difference beyond noise"
    assert told.ratio == 1


@given(ENOUGH, ENOUGH, st.floats(0.1, 100))
def test_the_unit_of_time_decides_nothing(
    one: list[float], other: list[float], unit: float
) -> None:
    told = stats.compare(one, other)
    scaled = stats.compare([unit * t for t in one], [unit * t for t in other])
    assert told.ratio is not None and told.needed is not None
    # At the very edge rounding decides.
    if abs(abs(math.log(told.ratio)) - math.log(told.needed)) > 1e-9:
        assert told.verdict == scaled.verdict


@given(ENOUGH, ENOUGH, st.floats(0, 0.2), st.floats(0, 0.2))
def test_more_noise_never_makes_a_difference(
    one: list[float], other: list[float], noise: float, more: float
) -> None:
    quiet, loud = stats.compare(one, other, noise), stats.compare(one, other, noise + more)
    assert loud.verdict in (quiet.verdict, "no difference beyond noise")


@given(TIMES)
def test_quartiles_lie_around_the_median(times: list[float]) -> None:
    low, middle, high = stats.quartiles(times)
    edge = 1e-9 * max(times)
    assert min(times) - edge <= low <= middle + edge
    assert middle <= high + edge <= max(times) + 2 * edge
    assert stats.mad(times) >= 0


def test_twice_as_slow_is_slower_with_three_runs_each() -> None:
    told = stats.compare([10.0, 10.1, 9.9], [20.0, 20.3, 19.8])
    assert told.verdict == "slower"
    assert told.ratio == pytest.approx(2.0)
    assert told.p == pytest.approx(1 / 20)


def test_a_small_difference_is_none_however_sure() -> None:
    told = stats.compare([10.0, 10.001, 10.002], [10.2, 10.201, 10.202])
    assert told.verdict == "no difference beyond noise"
    assert told.needed == pytest.approx(stats.SMALLEST)


def test_runs_that_overlap_are_no_difference() -> None:
    assert stats.compare([10, 10.5, 13], [12, 13.5, 14]).verdict == "no difference beyond noise"


def test_noise_of_the_other_cases_counts() -> None:
    one, other = [10.0, 10.01, 10.02], [10.6, 10.61, 10.62]
    assert stats.compare(one, other).verdict == "slower"
    assert stats.compare(one, other, pooled=0.05).verdict == "no difference beyond noise"


@pytest.mark.parametrize(("first", "second"), [(1, 9), (2, 2), (2, 4)])
def test_too_few_runs_are_no_basis(first: int, second: int) -> None:
    told = stats.compare([1.0] * first, [9.0] * second)
    assert told.verdict == "not comparable"
    assert "too few" in told.reason


def test_no_run_at_all() -> None:
    assert stats.compare([], [1.0]).verdict == "not comparable"
    assert stats.against_claim(1.0, []).verdict == "not comparable"


def test_equal_boxes_hardly_ever_look_different() -> None:
    generator = drawn(1)
    alarms = 0
    for _ in range(100):
        pairs = [(sample(generator, 3, 0.02), sample(generator, 3, 0.02)) for _ in range(20)]
        pooled = stats.noise([one for pair in pairs for one in pair])
        alarms += sum("no" not in stats.compare(*pair, pooled).verdict for pair in pairs)
    assert alarms / 2000 < 0.005


def test_a_real_difference_is_mostly_found() -> None:
    generator = drawn(2)
    found = 0
    for _ in range(200):
        told = stats.compare(
            sample(generator, 3, 0.01), sample(generator, 3, 0.01, 11.0), pooled=0.01
        )
        found += told.verdict == "slower"
    assert found / 200 > 0.9


def test_pooled_noise_is_right_and_one_disturbed_case_changes_nothing() -> None:
    generator = drawn(3)
    samples = [sample(generator, 3, 0.03) for _ in range(2000)]
    assert stats.noise(samples) == pytest.approx(0.03, rel=0.05)
    assert stats.noise([*samples[:30], [1.0, 9.0, 100.0]]) < 0.05
    assert stats.noise([]) == stats.noise([[1.0]]) == 0


def test_the_permutation_test_is_exact_and_the_drawn_one_agrees_with_itself() -> None:
    assert stats.permutation([1, 2, 3], [4, 5, 6]) == pytest.approx(1 / 20)
    assert stats.permutation([4, 5, 6], [1, 2, 3]) == pytest.approx(1)
    many = [float(number) for number in range(1, 13)]
    one, other = stats.permutation(many, many[2:]), stats.permutation(many, many[2:])
    assert one == other
    assert 0 < one < 0.5


def test_a_claim_is_held_against_what_was_measured() -> None:
    assert stats.against_claim(10.2, [24.4, 24.5, 24.6]).verdict == "slower"
    assert stats.against_claim(10.2, [8.0, 8.1, 8.2]).verdict == "faster"
    assert stats.against_claim(10.2, [10.1, 10.3, 10.4]).verdict == "no difference beyond noise"
    assert stats.against_claim(10.2, [10.2]).verdict == "not comparable"


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12))
def test_on_and_off_exchanged_is_the_opposite_advice(ratios: list[float]) -> None:
    told, back = stats.paired(ratios), stats.paired([1 / ratio for ratio in ratios])
    assert {"keep": "drop", "drop": "keep"}.get(told.advice, told.advice) == back.advice
    assert told.ratio * back.ratio == pytest.approx(1)
    if told.low is not None and told.high is not None:
        assert told.low <= told.ratio * 1.000001
        assert told.ratio <= told.high * 1.000001


@pytest.mark.parametrize(
    ("ratios", "advice"),
    [
        ([0.9, 0.91, 0.92, 0.9, 0.93], "keep"),
        ([1.1, 1.12, 1.09, 1.11, 1.1], "drop"),
        ([0.9, 0.91, 1.01, 0.9, 0.93], "no difference"),  # one round disagrees
        ([0.995, 0.996, 0.994, 0.995, 0.993], "no difference"),  # all agree on half a percent
        ([0.5, 0.5, 0.5, 0.5], "no difference"),  # too few to decide
        ([0.9] * 8 + [1.1], "keep"),  # nine rounds may have one that disagrees
    ],
)
def test_advice(ratios: list[float], advice: str) -> None:
    assert stats.paired(ratios).advice == advice


def test_interval_has_the_coverage_that_is_said() -> None:
    assert [stats.outside(count) for count in (4, 5, 7, 8, 11)] == [None, 0, 0, 1, 2]
    generator = drawn(4)
    held = 0
    for _ in range(1000):
        told = stats.paired(sample(generator, 7, 0.05, 1.0))
        assert told.low is not None and told.high is not None
        held += told.low <= 1 <= told.high
    assert held / 1000 >= 0.9


def test_no_rounds_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        stats.paired([])


def test_geometric_mean() -> None:
    assert stats.geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert stats.geometric_mean([]) is None
