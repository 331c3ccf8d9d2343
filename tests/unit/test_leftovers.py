"""What of a dead run's leftovers goes, and what the next run goes on with."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from strixbox.box._atomic import ASIDE
from strixbox.config import Config
from strixbox.generation import Generation
from strixbox.layout import GENERATION_ID, GENERATIONS, RELEASE_ID, RELEASES, WHEELS
from strixbox.leftovers import ASIDES, DAY, STALE, begun, dead, query, strays, with_room
from strixbox.preflight import examine
from strixbox.release import Release, file_name
from tests.unit.test_planners import GIB, GOOD, disks


@pytest.fixture
def cfg(data: dict[str, Any]) -> Config:
    """Settings with a model in each tier."""
    model = {"folder": "vae", "url": "https://x.org/m"}
    manifest = (
        model | {"name": "active.safetensors", "tier": "active"},
        model | {"name": "cold.safetensors", "tier": "archive"},
    )
    return Config.load(data | {"models_archive": "/mnt/a", "models_manifest": manifest})


@pytest.fixture
def release(cfg: Config) -> Release:
    """The release that the settings call for."""
    return Release(cfg.python, cfg.comfyui, {})


def found(kind: str, path: str, **own: Any) -> dict[str, Any]:
    """One entry as strixbox/box/leftovers.py tells it."""
    usual = {"bytes": GIB, "device": 1, "age": 0, "whole": False, "user": False}
    return {"kind": kind, "path": path, "busy": False, "used": False} | usual | own


def goes(cfg: Config, entry: dict[str, Any]) -> bool:
    """Whether the entry is cleared."""
    return bool(dead([entry], cfg, Release(cfg.python, cfg.comfyui, {})))


def test_half_a_release_goes_unless_it_is_built_on_or_was_in_use(
    cfg: Config, release: Release
) -> None:
    assert goes(cfg, found("release", f"{RELEASES}/0123"))
    assert not goes(cfg, found("release", release.path))
    assert not goes(cfg, found("release", f"{RELEASES}/0123", used=True))
    assert not goes(cfg, found("release", f"{RELEASES}/0123", busy=True))
    assert goes(cfg, found("generation", f"{GENERATIONS}/0123-4567"))
    assert not goes(cfg, found("generation", Generation.of(cfg, release).path))


def test_a_wanted_download_is_resumed_and_any_other_goes(cfg: Config) -> None:
    wheel = f"{WHEELS}/{file_name(cfg.python.wheels[0])}"
    for end in (".strixbox-part", ".strixbox-part.etag"):
        assert not goes(cfg, found("download", wheel + end))
        assert goes(cfg, found("download", wheel + end, whole=True))
        assert goes(cfg, found("download", f"{WHEELS}/torch-2.5.whl{end}"))


def test_a_download_of_the_users_is_given_a_week(cfg: Config) -> None:
    models = f"{cfg.comfyui.base_directory}/models/vae"
    old = {"user": True, "age": STALE + 1}
    assert not goes(cfg, found("download", f"{models}/active.safetensors.strixbox-part", **old))
    assert not goes(cfg, found("download", "/mnt/a/vae/cold.safetensors.strixbox-part.etag", **old))
    # Of the archive tier: nothing downloads it to its place in the other.
    assert goes(cfg, found("download", f"{models}/cold.safetensors.strixbox-part", **old))
    assert goes(cfg, found("download", f"{models}/gone.safetensors.strixbox-part", **old))
    assert not goes(cfg, found("download", f"{models}/gone.safetensors.strixbox-part", user=True))
    assert goes(
        cfg, found("download", f"{models}/gone.safetensors.strixbox-part", user=True, whole=True)
    )


def test_temporary_files_go_and_a_helper_of_sudos_after_a_day(cfg: Config) -> None:
    assert goes(cfg, found("aside", "/etc/fstab.strixbox-new"))
    assert goes(cfg, found("temporary", "/tmp/strixbox-apt-x"))
    assert not goes(cfg, found("temporary", "/tmp/strixbox-apt-x", busy=True))
    helper = "/tmp/pyinfra-sudo-askpass-0123456789ab"
    assert not goes(cfg, found("askpass", helper, user=True))
    assert goes(cfg, found("askpass", helper, user=True, age=DAY + 1))


def test_an_uninstall_clears_what_lies_outside_of_its_trees() -> None:
    aside = "/etc/fstab.strixbox-new"
    left = [
        found("aside", aside),
        found("aside", "/etc/strixbox/x.strixbox-new"),
        found("temporary", "/tmp/strixbox-apt-x", busy=True),
        found("download", "/home/x/ComfyUI/models/vae/m.strixbox-part"),
    ]
    assert strays(left, ["/etc/strixbox"]) == (aside,)


def test_ids_have_the_names_that_are_looked_for(cfg: Config, release: Release) -> None:
    generation = Generation.of(cfg, release)
    for name, pattern in ((release.id, RELEASE_ID), (generation.id, GENERATION_ID)):
        assert re.fullmatch(pattern, name)
        assert fnmatchcase(name, pattern)
    assert not fnmatchcase(f"{release.id}.bak", RELEASE_ID)


def test_a_checkout_that_was_being_made_is_looked_for(tmp_path: Path) -> None:
    release = f"{tmp_path}{RELEASES}/0123456789ab"
    left = {f"{release}/.ComfyUI{ASIDE}", f"{release}/nodes/.Node{ASIDE}", f"{release}/x{ASIDE}"}
    for path in left:
        Path(path).mkdir(parents=True)
    patterns = (f"{tmp_path}{pattern}" for pattern in ASIDES)
    # As the box does it: Path.glob knows no hidden names.
    assert {path for pattern in patterns for path in glob(pattern)} == left  # noqa: PTH207


def test_both_tiers_are_looked_at(cfg: Config, data: dict[str, Any]) -> None:
    active = f"{cfg.comfyui.base_directory}/models"
    assert query(cfg)["tiers"] == [active, "/mnt/a"]
    assert query(Config.load(data))["tiers"] == [active]


def test_a_disk_that_a_dead_run_filled_is_not_refused(cfg: Config, release: Release) -> None:
    def room(survey: dict[str, Any]) -> tuple[str, str]:
        (finding,) = [f for f in examine(survey, cfg) if f.code == "DISK.ROOM"]
        return finding.verdict, finding.evidence

    full = GOOD | {"disks": disks(3, 3, 3), "sealed": False, "rocm": ""}
    rocm = f"/opt/rocm-{cfg.rocm.version}"
    wheel = f"{WHEELS}/{file_name(cfg.python.wheels[0])}"
    assert set(begun(full, cfg, release)) >= {rocm, wheel}
    left = [
        found("release", f"{RELEASES}/0123", device=3, bytes=20 * GIB),
        found("release", release.path, device=3, bytes=10 * GIB),
        found("begun", rocm, device=3, bytes=20 * GIB),
        found("release", f"{RELEASES}/4567", device=3, bytes=99 * GIB, busy=True),
        found("aside", "/elsewhere", device=4, bytes=99 * GIB),
    ]
    assert room(full)[0] == "refuse"
    assert room(with_room(full, left[1:], cfg, release))[0] == "refuse"
    verdict, evidence = room(with_room(full, left, cfg, release))
    assert verdict == "warn"
    assert "53 GiB free, 50.0 of them what earlier runs left" in evidence
    # What stands already is not needed once more, and does not count.
    assert begun(full | {"sealed": True, "rocm": "hi 6.4.2"}, cfg, release) == ()
