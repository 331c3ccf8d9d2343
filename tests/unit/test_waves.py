"""Canaries first: which runs are parted, and what stops the second wave."""

from __future__ import annotations

from typing import Any

import pytest

from strixbox.groups import read_group_data
from strixbox.inventory import check_settings
from strixbox.waves import plan, stop
from tests.unit.conftest import boxes_of

BOXES = boxes_of(old=("rocm_7_2",), halo1=("canary",), halo2=(), halo3=("canary", "rocm_7_2"))
DEPLOY = {"operations": ("deploy.py",)}


def test_the_canaries_come_first_and_the_others_after_them() -> None:
    waves = plan(BOXES, DEPLOY)
    assert waves
    assert [wave.names for wave in waves] == [("halo1", "halo3"), ("old", "halo2")]
    assert waves[0].title == "wave 1 of 2 (canary)"
    assert waves[1].title == "wave 2 of 2 (rest)"


@pytest.mark.parametrize(
    "words",
    [
        {"yes": True},
        {"yes": True, "json_output": True},
        {"operations": ("/srv/strixbox/deploy.py",)},
        {"limit": (), "exclude": ()},
    ],
)
def test_runs_that_are_parted(words: dict[str, Any]) -> None:
    assert plan(BOXES, DEPLOY | words)


@pytest.mark.parametrize(
    "words",
    [
        {"limit": ("halo2",)},
        {"exclude": ("canary",)},
        {"dry": True},
        {"debug_facts": True},
        {"debug_operations": True},
        {"operations": ("rollback.py",)},
        {"operations": ("verify.py",)},
        {"operations": ("uninstall.py",)},
        {"operations": ()},
    ],
)
def test_runs_that_are_not_parted(words: dict[str, Any]) -> None:
    assert plan(BOXES, DEPLOY | words) is None


def test_boxes_that_are_not_parted() -> None:
    assert plan(boxes_of(halo1=(), halo2=("rocm_7_2",)), DEPLOY) is None
    assert plan(boxes_of(halo1=("canary",), halo2=("canary",)), DEPLOY) is None


def test_a_box_has_the_same_settings_in_its_wave_as_among_all() -> None:
    # Among all, "one" comes before "two" for every box; in a wave, two's member may come first.
    boxes = boxes_of(halo1=("one",), halo2=("two",), halo3=("canary", "one", "two"))
    groups = read_group_data() | {"one": {"comfyui_port": 9001}, "two": {"comfyui_port": 9002}}
    whole = check_settings(boxes, groups)
    waves = plan(boxes, DEPLOY)
    assert waves
    parts: dict[str, Any] = {}
    for wave in waves:
        assert list(wave.boxes.groups()) == list(boxes.groups())
        parts |= check_settings(wave.boxes, groups)
    assert parts == whole
    assert whole["halo3"].comfyui.port == 9002


@pytest.mark.parametrize(
    ("code", "outcomes", "told"),
    [
        (0, {"halo1": "changed", "halo3": "unchanged"}, None),
        (1, {"halo1": "failed", "halo3": "changed"}, "failed on halo1; "),
        (1, {"halo1": "failed", "halo3": "failed"}, "failed on halo1, halo3; "),
        (130, {"halo1": "unfinished", "halo3": "changed"}, "was interrupted; "),
        (130, {"halo1": "changed", "halo3": "changed"}, "was interrupted; "),
        (0, {"halo1": "unfinished", "halo3": "changed"}, "did not finish on halo1; "),
        (0, {"halo3": "changed"}, "did not finish on halo1; "),
        (1, {}, "did not finish on halo1, halo3; "),
        (1, {"halo1": "changed", "halo3": "changed"}, "ended with 1; "),
    ],
)
def test_what_stops_the_second_wave(code: int, outcomes: dict[str, str], told: str | None) -> None:
    waves = plan(BOXES, DEPLOY)
    assert waves
    sentence = stop(*waves, code, outcomes)
    if told is None:
        assert sentence is None
        return
    assert sentence
    assert sentence.startswith(f"wave 1 of 2 (canary) {told}")
    assert "the other 2 boxes were left alone (old, halo2)" in sentence
    assert "run the same command again" in sentence
    assert ("mend it" in sentence) is (code == 1)
    assert "--exclude canary" in sentence


def test_one_box_left_alone_is_told_as_one() -> None:
    waves = plan(boxes_of(halo1=("canary",), halo2=()), DEPLOY)
    assert waves
    sentence = str(stop(*waves, 1, {"halo1": "failed"}))
    assert "the other box was left alone (halo2)" in sentence
