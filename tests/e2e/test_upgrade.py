"""A new release beside the old one, and the way back, with the flags and variables of each."""

from __future__ import annotations

import pytest

from strixbox.layout import CURRENT, SERVICE
from tests.e2e.conftest import Fleet
from tests.lab import Box

pytestmark = pytest.mark.lab


def words(box: Box) -> list[str]:
    """Command line of the running server."""
    return box.read(f"/proc/{box.main_pid(SERVICE)}/cmdline").split("\0")


def current(box: Box) -> str:
    """Id of the release in use."""
    return box.run(["readlink", CURRENT]).stdout.strip().rpartition("/")[2]


@pytest.fixture
def upgraded(fleet: Fleet) -> Box:
    """A box on its second release, which also runs with other flags."""
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    fleet.entries["e2e"]["settings"] |= {
        "comfyui_commit": fleet.lab.data["git"]["comfyui"]["newer"],
        "comfyui_profile": "lowvram",
    }
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    old = fleet.lab.data["git"]["comfyui"]["commit"][:12]
    new = fleet.lab.data["git"]["comfyui"]["newer"][:12]
    assert f"ComfyUI: {old} -> {new}" in outcome.text
    return box


def test_going_back_takes_flags_along_and_asks_no_network(fleet: Fleet, upgraded: Box) -> None:
    newer = current(upgraded)
    assert "--lowvram" in words(upgraded)
    fleet.lab.forget_log()

    back = fleet.run("rollback.py")

    assert back.code == 0, back.text
    assert fleet.lab.mirror_log() == []
    assert current(upgraded) != newer
    assert "--highvram" in words(upgraded)
    assert "--lowvram" not in words(upgraded)
    assert "launch_comfyui_production" in upgraded.read("/etc/systemd/system/comfyui.service")

    # By its name, forward again; and then there is nothing to do.
    again = fleet.run("rollback.py", "--data", f"release={newer}")
    assert again.code == 0, again.text
    assert current(upgraded) == newer
    assert "--lowvram" in words(upgraded)
    assert fleet.run("rollback.py", "--data", f"release={newer}").changed("e2e") == []
    assert fleet.run().changed("e2e") == []


def test_a_release_that_does_not_answer_gives_back_the_flags_as_well(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    before = box.read("/etc/strixbox/comfyui.env"), box.read(f"/etc/systemd/system/{SERVICE}")
    old = current(box)
    box.run("touch /home/strix/ComfyUI/user/newer-http-500")
    fleet.entries["e2e"]["settings"] |= {
        "comfyui_commit": fleet.lab.data["git"]["comfyui"]["newer"],
        "comfyui_profile": "lowvram",
        "comfyui_start_timeout": 8,
    }

    outcome = fleet.run()

    assert "with its flags and variables, is in use again" in outcome.trouble("e2e")
    assert current(box) == old
    assert "--highvram" in words(box)
    assert (
        box.read("/etc/strixbox/comfyui.env"),
        box.read(f"/etc/systemd/system/{SERVICE}"),
    ) == before
    assert box.run(["systemctl", "is-active", SERVICE]).stdout.strip() == "active"


def test_there_is_nothing_to_go_back_to(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0

    outcome = fleet.run("rollback.py")
    assert outcome.outcome("e2e") == "failed"
    assert "There is no earlier release to go back to" in outcome.trouble("e2e")
    named = fleet.run("rollback.py", "--data", "release=0123456789ab")
    assert f"those that answered on this box are {current(box)}" in named.trouble("e2e")
