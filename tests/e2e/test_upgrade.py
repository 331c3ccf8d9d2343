"""A new release beside the old one, and the way back, with the flags and variables of each."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from strixbox.layout import CURRENT, GENERATIONS, RELEASES, SERVICE
from tests.e2e.conftest import Fleet
from tests.e2e.test_tools import told
from tests.lab import Box, difference

pytestmark = pytest.mark.lab

WARMUP = "strixbox-warmup.service"
GPU = "[Service]\nEnvironment=STRIXBOX_STANDIN_GPU=1\n"


def warmed_up(box: Box) -> str:
    """What the warm-up said that belongs to the service's last start, when it is through."""
    end = time.monotonic() + 60
    shown = ["systemctl", "show", "--value", "--property=ActiveState,InvocationID", WARMUP]
    while time.monotonic() < end:
        invocation, state = sorted(box.run(shown).stdout.split(), key=len, reverse=True)
        if state == "inactive":
            return box.run(["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}"]).stdout
        assert state == "activating", box.run(["journalctl", "--unit", WARMUP]).stdout
        time.sleep(0.5)
    raise AssertionError("the warm-up does not end")


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
    # From the next start on, the server tells of a GPU.
    box.write(f"/etc/systemd/system/{SERVICE}.d/gpu.conf", GPU)
    fleet.entries["e2e"]["settings"] |= {
        "comfyui_commit": fleet.lab.data["git"]["comfyui"]["newer"],
        "comfyui_profile": "optimized",  # it tunes, as production does
        "comfyui_preview": "taesd",
    }
    fleet.lab.forget_log()
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    # Checkouts and environment are a release's own; wheels, models and ROCm are those that it had.
    asked = [r["path"] for r in fleet.lab.mirror_log() if not r["path"].startswith("/simple/")]
    assert Counter(asked) == {
        "/git/ComfyUI.git/info/refs": 1,
        "/git/ComfyUI.git/git-upload-pack": 2,  # what there is, and what is wanted of it
        "/git/ComfyUI-TiledDiffusion.git/info/refs": 1,
        "/git/ComfyUI-TiledDiffusion.git/git-upload-pack": 2,
    }
    old = fleet.lab.data["git"]["comfyui"]["commit"][:12]
    new = fleet.lab.data["git"]["comfyui"]["newer"][:12]
    assert f"ComfyUI: {old} -> {new}" in outcome.text
    return box


def test_going_back_takes_flags_along_and_asks_no_network(fleet: Fleet, upgraded: Box) -> None:
    newer = current(upgraded)
    assert "taesd" in words(upgraded)
    # Nobody called it: the new release's start did, and it tuned the chapter's four sizes.
    assert "512x512" in warmed_up(upgraded)
    (sizes,) = told(upgraded, "warmup", "--status")["sizes"].values()
    assert len(sizes) == 4
    fleet.lab.forget_log()

    back = fleet.run("rollback.py")

    assert back.code == 0, back.text
    assert fleet.lab.mirror_log() == []
    assert current(upgraded) != newer
    assert "taesd" not in words(upgraded)
    assert "launch_comfyui_production" in upgraded.read("/etc/systemd/system/comfyui.service")
    # The same torch and GPU: this start tunes nothing again.
    assert "tuned before" in warmed_up(upgraded)
    assert list(told(upgraded, "warmup", "--status")["sizes"].values()) == [sizes]

    # By its name, forward again; and then there is nothing to do.
    again = fleet.run("rollback.py", "--data", f"release={newer}")
    assert again.code == 0, again.text
    assert current(upgraded) == newer
    assert "taesd" in words(upgraded)
    assert fleet.run("rollback.py", "--data", f"release={newer}").changed("e2e") == []
    assert fleet.run().changed("e2e") == []

    the_oldest_goes(fleet, upgraded, newer)


def kept(box: Box) -> dict[str, set[str]]:
    """Releases on the box, each with the generations that ran it."""
    found: dict[str, set[str]] = {name: set() for name in box.run(["ls", RELEASES]).stdout.split()}
    for generation in set(box.run(["ls", GENERATIONS]).stdout.split()) - {"in-use"}:
        found.setdefault(generation.rpartition("-")[0], set()).add(generation)
    return found


def the_oldest_goes(fleet: Fleet, box: Box, second: str) -> None:
    """A third release comes, the first goes with its generations, and the second can be had."""
    before = kept(box)
    (first,) = before.keys() - {second}
    fleet.entries["e2e"]["settings"]["comfyui_nodes"] = []

    third = fleet.run()

    assert third.code == 0, third.text
    assert f"remove {RELEASES}/{first}" in third.text
    after = kept(box)
    assert after.keys() == {second, current(box)}
    assert current(box) not in before
    assert after[second] == before[second]
    assert all(after.values())
    state = box.state()
    assert fleet.run().changed("e2e") == []
    assert difference(state, box.state()) == []
    # Back and forth: both are whole.
    back = fleet.run("rollback.py")
    assert back.code == 0, back.text
    assert current(box) == second
    gone = fleet.run("rollback.py", "--data", f"release={first}")
    assert f"Release {first} is not on this box" in gone.trouble("e2e")
    again = fleet.run()
    assert again.code == 0, again.text
    assert kept(box) == after


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
    assert "Release 0123456789ab is not on this box" in named.trouble("e2e")
    assert f"--data release=ID: {current(box)}." in named.trouble("e2e")
