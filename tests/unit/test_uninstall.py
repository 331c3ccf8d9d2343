"""What an uninstall takes away, and what it leaves to its owner."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strixbox import facts
from strixbox.config import Config
from strixbox.layout import BUILDER
from strixbox.operations import base, uninstall
from strixbox.operations.apt import PATIENCE
from strixbox.operations.python import GECOS
from tests.unit.conftest import StandInBox, commands, told

EMPTY: dict[str, Any] = {
    **dict.fromkeys(("paths", "kept", "strangers", "units", "mounts", "held", "waiting"), ()),
    **{"links": {}, "mounted": False, "fstab": False, "bashrc": False},
}


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> StandInBox:
    """A box that has nothing of strixbox."""
    made = StandInBox(
        {
            facts.Footprint: EMPTY,
            facts.Account: {"exists": False, "uid": None, "gecos": None},
            facts.Leftovers: [],
        }
    )
    monkeypatch.setattr(base, "host", made)
    monkeypatch.setattr(uninstall, "host", made)
    return made


def lines(cfg: Config, purge_rocm: bool = False) -> list[str]:
    """What an uninstall would run."""
    return [
        told(command) for command in commands(uninstall.uninstalled, cfg=cfg, purge_rocm=purge_rocm)
    ]


@pytest.mark.parametrize(
    ("uid", "gecos", "goes"),
    [(998, GECOS, True), (1001, GECOS, False), (1001, "Strix Box,,,", False), (998, "", False)],
)
def test_only_the_account_that_a_deploy_made_is_removed(
    box: StandInBox, cfg: Config, uid: int, gecos: str, goes: bool
) -> None:
    box.answers[facts.Account] = {"exists": True, "uid": uid, "gecos": gecos}
    assert any(f"userdel {BUILDER}" in line for line in lines(cfg)) is goes


def test_what_is_mounted_below_what_goes_stops_it_before_anything_is_removed(
    box: StandInBox, cfg: Config
) -> None:
    box.answers[facts.Footprint] = EMPTY | {
        "paths": ["/opt/strixbox"],
        "units": ["comfyui.service"],
        "mounts": ["/opt/strixbox/releases/disk"],
    }
    for operation in (uninstall.stopped_units, uninstall.uninstalled):
        (refusal,) = commands(operation, cfg=cfg, purge_rocm=False)
        assert "sudo umount /opt/strixbox/releases/disk" in getattr(refusal, "sentence", "")
    box.answers[facts.Footprint] |= {"mounts": []}
    (removal,) = (line for line in lines(cfg) if line.startswith("rm "))
    assert removal == "rm -rf --one-file-system -- /opt/strixbox"


def test_an_uninstall_waits_for_apts_locks_and_reads_no_source(
    box: StandInBox, cfg: Config
) -> None:
    whole = {"status": "ii", "maintained": True}
    core = whole | {"package": "rocm-core", "version": "6.4.2.60402-120~24.04"}
    blas = whole | {"package": "rocblas", "version": "4.4.1.60402-120~24.04", "status": "hi"}
    none: dict[str, Any] = {"sources": {}, "preferences": {}, "loader": [], "trees": []}
    none["keyrings"] = {}
    box.answers[facts.RocmRemains] = none | {"packages": [core, blas]}
    box.answers[facts.PathOwners] = []
    box.answers[facts.Removal] = {"removed": ["rocm-core", "rocblas"], "refused": None}
    box.answers[facts.Footprint] = EMPTY | {"held": ["rocm-libs"]}

    made = [line for line in lines(cfg, purge_rocm=True) if "apt-" in line]

    orders = [json.loads(line[line.rindex('{"words"') :]) for line in made]
    unhold, purge = (order["words"] for order in orders)
    assert unhold[0] == "apt-mark"
    assert unhold[-3:] == ["unhold", "rocblas", "rocm-libs"]
    assert (purge[0], purge[-2:]) == ("apt-get", ["rocblas", "rocm-core"])
    for order in orders:
        assert order["patience"] == PATIENCE
        assert "Dir::Etc::SourceParts=/dev/null" in order["words"]
