"""What a release's torch says of itself, and what is made of it."""

from __future__ import annotations

import json
import subprocess
from contextlib import nullcontext
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
        (-7, None, r"ended by SIGBUS .* group rocm_7_2"),
        (-9, None, r"ended by SIGKILL, most likely for want of memory .* run again"),
        (-15, None, r"ended by signal 15; see dmesg"),
        (1, None, "it said nothing"),
        (0, None, "told nothing of itself: it said nothing"),
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


def test_what_libraries_print_around_the_proof_is_passed_over() -> None:
    said = f"warning\n{json.dumps(GOOD)}\nbye\n{{}}\n"
    assert prove_release.told(said) == GOOD
    assert prove_release.told("warning\n[1]\n7\n") is None


def test_a_node_that_does_not_load_is_told_by_all_of_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "   0.1 seconds (IMPORT FAILED): /home/a/ComfyUI/custom_nodes/My Node\n"
    made = prover(0, None)
    made.order["start_flags"] = []
    made.run = lambda *words: subprocess.CompletedProcess([], 0, said)  # type: ignore[method-assign]
    monkeypatch.setattr(prove_release, "scratch_of", lambda user: nullcontext("/tmp/x"))
    assert made.start() == ["/home/a/ComfyUI/custom_nodes/My Node"]
