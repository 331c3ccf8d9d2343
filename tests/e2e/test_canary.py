"""A new pin goes to the canary first, and to the other boxes when the canary runs it well."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from strixbox.layout import CURRENT
from tests.e2e.conftest import PROJECT, Fleet, Outcome
from tests.lab import difference

pytestmark = pytest.mark.lab


def records(outcome: Outcome) -> list[dict[str, Any]]:
    """What the waves of a run wrote down, in the order in which they ended."""
    found = re.findall(r"record: (\S+)", outcome.text)
    return [json.loads((PROJECT / name).read_text()) for name in found]


def test_the_other_follows_where_the_canary_verifies_and_only_there(fleet: Fleet) -> None:
    # Not the first of the file, so that the order is not the file's.
    other = fleet.add("one", "converged")
    canary = fleet.add("bird", "converged", groups=("lab", "canary"))
    before = other.state()
    old = canary.run(["readlink", CURRENT]).stdout
    fault = "/home/strix/ComfyUI/user/newer-http-500"
    canary.run(f"touch {fault}")
    for entry in fleet.entries.values():
        entry["settings"] |= {
            "comfyui_commit": fleet.lab.data["git"]["comfyui"]["newer"],
            "comfyui_start_timeout": 8,
        }

    failed = fleet.run()

    assert failed.code == 1, failed.text
    assert "failed on bird; the other box was left alone (one)" in failed.text
    assert [list(record["boxes"]) for record in records(failed)] == [["bird"]]
    assert "does not answer" in failed.trouble("bird")
    assert difference(before, other.state()) == []

    canary.run(f"rm {fault}")
    mended = fleet.run()

    assert mended.code == 0, mended.text
    first, second = records(mended)
    assert (first["wave"], list(first["boxes"])) == ("canary", ["bird"])
    assert (second["wave"], list(second["boxes"])) == ("rest", ["one"])
    begun = [datetime.fromisoformat(record["started"]).timestamp() for record in (first, second)]
    assert begun[0] + first["seconds"] < begun[1] + 1  # started is told in whole seconds
    for box in fleet.boxes:
        assert box.run(["readlink", CURRENT]).stdout != old
