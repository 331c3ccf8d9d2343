"""What a release's torch says of itself, and what is made of it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from strixbox.box import prove_release
from tests.box.conftest import ME

GOOD = {"version": "2.6.0+rocm6.4.2", "hip": "6.4.43484", "archs": [], "gpu": "gfx1100"}


def prover(code: int, said: dict[str, Any] | None) -> prove_release.Prover:
    """A prover whose torch ends in this way."""
    order = {"release": "/r", "user": ME, "variables": {}, "hip": "6.4", "timeout": 9}
    made = prove_release.Prover(order)
    answer = subprocess.CompletedProcess([], code, json.dumps(said) if said else "")
    made.run = lambda *words: answer  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (-11, None, r"ended by SIGSEGV .* group rocm_7_2"),
        (1, None, "it said nothing"),
        (0, GOOD | {"hip": None}, "not the build for ROCm 6.4"),
        (0, GOOD | {"product": False}, "computes wrong numbers on gfx1100"),
    ],
)
def test_what_torch_does_wrong_is_a_sentence(
    code: int, said: dict[str, Any] | None, words: str
) -> None:
    with pytest.raises(SystemExit, match=words):
        prover(code, said).torch()


def test_a_torch_that_computes_is_proved() -> None:
    assert prover(0, GOOD | {"product": True}).torch()["product"] is True
    # Without a GPU there is nothing to compute on.
    assert prover(0, GOOD).torch()["hip"] == "6.4.43484"
