"""The plans: the chapter's tables, each render once, under names that never change."""

from __future__ import annotations

import itertools

import pytest
from boxtools.bench import plan as plans
from boxtools.bench.chapter import claims, foreign, standard
from boxtools.bench.plan import PLANS, plan
from boxtools.bench.results import Result
from boxtools.errors import WrongUse
from boxtools.jobs import WORKFLOWS
from hypothesis import given
from hypothesis import strategies as st

SIZES = st.lists(
    st.tuples(st.integers(2, 100), st.integers(2, 100)).map(lambda s: (s[0] * 8, s[1] * 8)),
    max_size=3,
    unique=True,
)


@given(st.sampled_from(PLANS), SIZES, st.none() | st.integers(1, 50))
def test_every_render_is_there_once_and_every_name_too(
    name: str, sizes: list[plans.Size], count: int | None
) -> None:
    cases = plan(name, sizes, count)
    keys = [(case.job, case.metric, case.profile, case.keeps) for case in cases]
    assert len({str(key) for key in keys}) == len(cases) > 0
    names = [name for case in cases for name in (case.name, *case.also)]
    assert len(set(names)) == len(names)
    for case in cases:
        assert case.job.workflow in WORKFLOWS
        assert case.job.keep is False
        assert case.section.startswith("7.")


def test_the_chapter_is_all_of_it() -> None:
    every = standard()
    for name in PLANS:
        for case in plan(name):
            assert {case.name, *case.also} <= set(every)
    # The same render in five tables is measured once.
    (case,) = (case for case in plan("chapter") if case.name == "size/1024x1024")
    assert {"steps/25", "batch/1", "sampler/dpmpp_2m-karras-25"} <= set(case.also)


def test_every_claim_has_a_case_that_measures_it() -> None:
    assert set(claims()) <= set(standard())
    for name, claim in claims().items():
        metrics = [claim.seconds, claim.decode, claim.encode]
        assert sum(value is not None for value in metrics) == (0 if name == "batch/8" else 1)
        (case,) = (c for c in plan("chapter") if name in (c.name, *c.also))
        if name != "batch/8":
            assert claim.value(case.metric) is not None


def test_cases_of_one_server_are_together() -> None:
    servers = [(case.profile, case.keeps) for case in plan("chapter")]
    changes = sum(one != other for one, other in itertools.pairwise(servers))
    assert changes == len(set(servers)) - 1


def test_sizes_and_steps_take_the_chapters_place() -> None:
    assert [case.name for case in plan("resolutions", [(64, 128)])] == ["size/64x128"]
    cases = plan("batch", [(64, 64), (1024, 1024)], 2)
    assert [case.name for case in cases[:2]] == ["batch/1@64x64", "batch/2@64x64"]
    assert cases[4].name == "batch/1"
    assert {case.job.steps for case in cases} == {2}
    assert [case.job.steps for case in plan("steps", [], 2)] == list(plans.STEPS)


def test_a_case_with_other_steps_is_not_the_chapters() -> None:
    (case,) = (case for case in plan("batch", [], 2) if case.name == "batch/1")
    result = Result(name="batch/1", job=plans.described(case.job))
    assert foreign("batch/1", result) == ["steps 25 and 2"]
    assert foreign("batch/1", result.model_copy(update={"job": standard()["batch/1"]})) == []


def test_no_such_plan() -> None:
    with pytest.raises(WrongUse, match="no plan all; there are quick, chapter"):
        plan("all")
