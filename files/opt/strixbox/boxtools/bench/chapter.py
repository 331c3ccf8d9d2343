"""The chapter's own figures, as claims to hold measured ones against."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from boxtools.bench.plan import Metric, described, plan
from boxtools.bench.results import Part, Result, unlike


class Claim(Part):
    """One printed figure; of seconds, decode and encode at most one is there."""

    seconds: float | None = None  # per image
    decode: float | None = None
    encode: float | None = None
    vram: float | None = None  # GB
    section: str
    note: str | None = None  # what contradicts it
    comparable: bool = True  # False: the case measures another render, as the note says

    def value(self, metric: Metric) -> float | None:
        """The claimed seconds of that metric."""
        found: float | None = getattr(self, metric)
        return found


@functools.cache
def claims() -> dict[str, Claim]:
    """Claims by the name of the case that measures them."""
    text = Path(__file__).with_name("chapter.yaml").read_text(encoding="utf-8")
    return {
        name: Claim.model_validate(told) for name, told in yaml.safe_load(text)["claims"].items()
    }


@functools.cache
def standard() -> dict[str, dict[str, Any]]:
    """What the chapter renders, by the name of the case."""
    return {
        name: described(case.job) for case in plan("chapter") for name in (case.name, *case.also)
    }


def foreign(name: str, result: Result) -> list[str]:
    """In what a result of that name is not the chapter's render: other steps, another size."""
    return unlike(standard().get(name, {}), result.job)


def claimed(name: str, result: Result) -> float | None:
    """The chapter's figure for a result, where it is of the same render."""
    claim = claims().get(name)
    return claim.value(result.metric) if claim and not foreign(name, result) else None
