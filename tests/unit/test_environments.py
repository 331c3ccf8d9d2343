"""A release's environment: what it lacks, who builds it, and what the nodes still ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strixbox import facts
from strixbox.config import Config
from strixbox.layout import BUILDER
from strixbox.nodes import troubles, unmet
from strixbox.operations import base, python
from strixbox.operations.python import lacking, uv_program
from strixbox.programs import Run
from strixbox.release import Release
from tests.unit.conftest import StandInBox, commands, told

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def release(cfg: Config) -> Release:
    """A release of the default stack, with a node of the user's."""
    return Release(cfg.python, cfg.comfyui, {"Mine": ONE})


def holding(release: Release, **own: Any) -> dict[str, Any]:
    """An environment that is as it shall be, but for what is given."""
    right = {"python": "3.12", "packages": release.packages(), "hip": "6.4", "owners": ["root"]}
    return {"damaged": {}} | right | own


def test_an_environment_as_pinned_needs_nothing(release: Release) -> None:
    assert not lacking(release, holding(release), begun=False)


def test_one_lost_package_is_no_reason_to_unpack_torch(release: Release) -> None:
    packages = {n: v for n, v in release.packages().items() if n != "aiohttp"}
    needs = lacking(release, holding(release, packages=packages), begun=False)
    assert (needs.anew, list(needs.packages), needs.wheels) == (False, ["aiohttp"], ())


@pytest.mark.parametrize("owners", [[BUILDER, "root"], ["anyone", "root"], ["anna"]])
def test_an_environment_that_others_may_write_to_is_taken_back(
    release: Release, owners: list[str]
) -> None:
    needs = lacking(release, holding(release, owners=owners), begun=False)
    assert needs
    assert (needs.loose, needs.anew, needs.packages) == (True, False, {})


def test_a_build_that_was_cut_short_is_begun_anew(release: Release) -> None:
    needs = lacking(release, holding(release, owners=[BUILDER]), begun=True)
    assert (needs.anew, needs.loose) == (True, False)
    assert needs.packages.keys() == release.packages().keys()


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, release: Release) -> StandInBox:
    """A bare box."""
    absent: dict[str, Any] = {
        "python": None,
        "packages": {},
        "damaged": {},
        "hip": None,
        "owners": [],
    }
    made = StandInBox(
        {
            facts.FileStates: {"kind": "absent"},
            facts.Environments: absent,
            facts.FileText: "",
            facts.Account: {"exists": False, "uid": None},
        }
    )
    monkeypatch.setattr(base, "host", made)
    monkeypatch.setattr(python, "host", made)
    return made


def test_root_never_starts_what_is_in_a_releases_environment(
    box: StandInBox, release: Release
) -> None:
    made = commands(python.python_environment, release=release)
    made += commands(python.user_node_requirements, release=release, user="anna")
    lines = [told(command) for command in made if isinstance(command, Run)]
    built = [line for line in lines if uv_program(release.python) in line]
    assert len(built) == 4
    for line in built:
        before, _, _ = line.partition(uv_program(release.python))
        assert f"--reuid={BUILDER}" in before
        assert f"--regid={BUILDER}" in before
        assert "--no-new-privs" in before
        assert f"UV_CACHE_DIR={release.path}/cache" in before
    # Between the two of each operation the environment is the builder's.
    given = [json.loads(line[line.rindex('{"builder"') :]) for line in lines if "def take" in line]
    assert [order["build"] for order in given] == [True, False, True, False]
    assert {order["environment"] for order in given} == {release.venv}


def test_taking_back_is_all_that_a_loose_environment_needs(
    box: StandInBox, release: Release
) -> None:
    box.answers[facts.Environments] = holding(release, owners=["anna", "root"])
    (command,) = commands(python.python_environment, release=release)
    assert '"build": false' in told(command)


def test_a_damaged_package_is_installed_again_and_no_other(
    box: StandInBox, release: Release
) -> None:
    now = holding(release)
    del now["packages"]["aiohttp"]
    box.answers[facts.Environments] = now | {"damaged": {"aiohttp": "aiohttp/web.py", "his": "x"}}
    made = commands(python.python_environment, release=release)
    (line,) = (told(command) for command in made if " pip install " in told(command))
    assert "--reinstall-package=aiohttp" in line
    assert line.count("--reinstall") == 1
    assert "aiohttp damaged (aiohttp/web.py)" in box.said


def test_requirements_that_failed_are_tried_again_and_no_others(
    box: StandInBox, release: Release
) -> None:
    box.answers[facts.Environments] = holding(release)
    box.answers[facts.FileText] = json.dumps({"Mine": {"sha256": ONE, "failed": None}})
    assert commands(python.user_node_requirements, release=release, user="anna") == []
    box.answers[facts.FileText] = json.dumps({"Mine": {"sha256": ONE, "failed": "no network"}})
    made = commands(python.user_node_requirements, release=release, user="anna")
    assert any('"nodes": {"Mine":' in told(command) for command in made)


def test_the_build_account_is_made_once_and_is_nobodys(box: StandInBox) -> None:
    (command,) = commands(python.build_account, account=BUILDER)
    assert "--system" in told(command)
    assert "nologin" in told(command)
    box.answers[facts.Account] = {"exists": True, "uid": 998, "gecos": python.GECOS}
    assert commands(python.build_account, account=BUILDER) == []
    for uid, gecos in ((0, python.GECOS), (1000, python.GECOS), (998, "Strix Box,,,")):
        box.answers[facts.Account] = {"exists": True, "uid": uid, "gecos": gecos}
        (refusal,) = commands(python.build_account, account=BUILDER)
        assert "rename yours" in getattr(refusal, "sentence", "")


def test_only_unmet_requirements_are_left() -> None:
    nodes = {"One": ONE, "Two": TWO}
    right = {"One": {"sha256": ONE, "failed": None}, "Two": {"sha256": TWO, "failed": None}}
    assert unmet(json.dumps(right), nodes) == {}
    assert unmet("", nodes) == nodes
    assert unmet("{half", nodes) == nodes
    assert unmet("[]", nodes) == nodes
    assert unmet('{"One": 1}', nodes) == nodes
    failed = right | {"Two": {"sha256": TWO, "failed": "why"}}
    assert unmet(json.dumps(failed), nodes) == {"Two": TWO}
    assert unmet(json.dumps(right), nodes | {"Two": ONE}) == {"Two": ONE}


def test_nodes_that_lack_something_or_did_not_load_are_named() -> None:
    record = json.dumps(
        {"One": {"sha256": ONE, "failed": "no\n  wheel"}, "Two": {"sha256": TWO, "failed": None}}
    )
    seal = {"proof": {"user_nodes_failed": ["/home/anna/ComfyUI/custom_nodes/Three"]}}
    assert troubles(record, seal) == ["One: no wheel", "Three: did not load"]
    assert troubles("", {}) == []
