"""A run that is cut at any point is finished by the next, as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import cycle

import pytest

from strixbox.layout import CURRENT
from tests.e2e.conftest import Fleet, SteppedRun
from tests.lab import Box, settled_difference

pytestmark = pytest.mark.lab

SEED = 20261125
START = "old-rocm"
# Operations that take longer than the rest together, and so are where a run is likely to be cut.
LONG = (
    "Purge | Purge",
    "ROCm | Install and hold",
    "Python | Download the stack",
    "Python | Install torch",
    "ComfyUI | Check out",
    "ComfyUI | Prove",
    "Models | Have every model",
    "Tools | Install what",
    "Service | Run the release",
)
Cut = Callable[[Box, SteppedRun], None]


def killed(box: Box, run: SteppedRun) -> None:
    """The controller is gone at once; what it started on the box may go on for a while."""
    run.kill()


def powered_off(box: Box, run: SteppedRun) -> None:
    """The box is gone at once, and comes back."""
    box.power_off()
    run.kill()
    box.power_on()


def disconnected(box: Box, run: SteppedRun) -> None:
    """The connection is cut at the box's end."""
    box.run("pkill -KILL -f '^sshd: strix'")
    run.go()  # where it waits for that; one too many does no harm
    while run.next() is not None:
        run.go()


def cut_after(fleet: Fleet, box: Box, done: int, cut: Cut) -> bool:
    """Cut a run before its operation number ``done``; False where it has no more than that."""
    with fleet.stepped() as run:
        for _ in range(done):
            if run.next() is None:
                return False
            run.go()
        if run.next() is None:
            return False
        cut(box, run)
    return True


def finished(fleet: Fleet, box: Box, wanted: dict[str, str]) -> None:
    """The same command ends well, the box is as it would have been, and stays so."""
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    assert settled_difference(wanted, box.state()) == []
    assert fleet.run().changed(box.name) == []


@pytest.fixture
def wanted(fleet: Fleet, undisturbed: dict[str, dict[str, str]]) -> dict[str, str]:
    """State after an undisturbed run."""
    if START not in undisturbed:
        box = fleet.add("e2e", START)
        outcome = fleet.run()
        assert outcome.code == 0, outcome.text
        undisturbed[START] = box.state()
    return undisturbed[START]


@pytest.mark.fault("controller killed between two operations")
def test_a_run_killed_between_any_two_operations(fleet: Fleet, wanted: dict[str, str]) -> None:
    # Each run is cut one operation later than the one before, so that each begins on what a cut
    # run left, and the box meets every boundary once.
    box = fleet.add("e2e", START)
    done = 0
    while cut_after(fleet, box, done, killed):
        done += 1
    fleet.points = done
    assert done > 20
    finished(fleet, box, wanted)


CUTS = (killed, powered_off, disconnected)


@pytest.mark.fault("run cut at random moments of long operations")
def test_a_run_cut_within_long_operations(fleet: Fleet, wanted: dict[str, str]) -> None:
    # Each kind of cut in turn, on one box, from operation to operation.
    cut_within(fleet, fleet.add("e2e", START), dict(zip(LONG, cycle(CUTS), strict=False)))
    finished(fleet, fleet.boxes[-1], wanted)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.fault("the same, every kind at each of them")
@pytest.mark.timeout(3600)
def test_a_run_cut_within_long_operations_in_every_way(
    fleet: Fleet, wanted: dict[str, str], whole: bool, cut: Cut
) -> None:
    if not whole:
        pytest.skip("asked for with --whole")
    cut_within(fleet, fleet.add("e2e", START), dict.fromkeys(LONG, cut))
    finished(fleet, fleet.boxes[-1], wanted)


@pytest.mark.fault("run cut while it switches releases")
def test_an_upgrade_cut_at_any_moment_of_its_switch(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    fleet.entries["e2e"]["settings"]["comfyui_commit"] = fleet.lab.data["git"]["comfyui"]["newer"]
    chance = random.Random(SEED)  # noqa: S311 - moments, no secrets
    fleet.points = 0
    for cut in (*CUTS, powered_off):
        fleet.points += 1
        with fleet.stepped() as run:
            run.upto("Service | Run the release")
            run.go()
            time.sleep(chance.uniform(0.2, 2.5))
            cut(box, run)
        # Whichever release the link names is whole, and the service is the one that fits it.
        assert box.run(["test", "-e", f"{CURRENT}/release.json"]).returncode == 0
        box.run("timeout 30 sh -c 'until systemctl is-active -q comfyui; do sleep 0.2; done'")

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    newer = box.run(["git", "-C", f"{CURRENT}/ComfyUI", "rev-parse", "HEAD"]).stdout.strip()
    assert newer == fleet.lab.data["git"]["comfyui"]["newer"]
    assert fleet.run().changed("e2e") == []


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.fault("every boundary, each from a fresh box")
@pytest.mark.timeout(3 * 3600)
def test_every_boundary_from_a_fresh_box(
    fleet: Fleet, wanted: dict[str, str], whole: bool, cut: Cut
) -> None:
    if not whole:
        pytest.skip("takes an hour each; asked for with --whole")
    wrong = []
    for done in range(1000):
        box = fleet.add("e2e", START)
        if not cut_after(fleet, box, done, cut):
            break
        outcome = fleet.run()
        differs = settled_difference(wanted, box.state())
        if outcome.code != 0 or differs:
            wrong.append(f"cut before operation {done}: {fleet.troubles[-1:]} {differs[:5]}")
        fleet.points = done + 1
        print(f"{cut.__name__}: boundary {done}: {'; '.join(wrong[-1:]) or 'right'}", flush=True)
    assert wrong == []


def cut_within(fleet: Fleet, box: Box, cuts: dict[str, Cut]) -> None:
    """Cut a run at a random moment of each of the operations, one after the other."""
    chance = random.Random(SEED)  # noqa: S311 - moments, no secrets
    for name, cut in cuts.items():
        with fleet.stepped() as run:
            run.upto(name)
            run.go()
            time.sleep(chance.uniform(0.05, 1.5))
            cut(box, run)
    fleet.points = len(cuts)
