"""What --limit and --exclude name, told where it is nothing."""

from __future__ import annotations

import pytest

from strixbox.selection import names_nothing
from tests.unit.conftest import boxes_of

BOXES = boxes_of(halo1=("canary",), halo2=(), den=("canary", "rocm_7_2"))


@pytest.mark.parametrize(
    ("limit", "exclude"),
    [
        ((), ()),
        (("halo1",), ()),
        (("halo*",), ("halo2",)),
        (("canary",), ()),
        (("all",), ("canary",)),
        (("inventory",), ()),
        ((), ("rocm_7_2",)),
    ],
)
def test_words_that_name_boxes(limit: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    assert names_nothing(BOXES, limit, exclude) is None


@pytest.mark.parametrize(
    ("limit", "exclude", "told"),
    [
        (("halo9",), (), "--limit halo9 names no box"),
        (("halo1", "lab"), (), "--limit lab names no box"),
        ((), ("canery",), "--exclude canery names no box"),
        (("a",), ("b",), "--limit a and --exclude b name no box"),
        (("halo1",), ("canary",), "--limit halo1 --exclude canary leaves no box"),
        ((), ("all",), "--exclude all leaves no box"),
    ],
)
def test_words_that_name_nothing(
    limit: tuple[str, ...], exclude: tuple[str, ...], told: str
) -> None:
    there = "there are the boxes halo1, halo2, den and the groups canary, rocm_7_2"
    assert names_nothing(BOXES, limit, exclude) == f"{told}; {there}"


def test_boxes_without_groups_have_none_named() -> None:
    told = names_nothing(boxes_of(halo1=()), ("x",), ())
    assert told == "--limit x names no box; there are the boxes halo1"
