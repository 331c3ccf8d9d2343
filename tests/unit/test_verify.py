"""verify: it is right where the deploy has nothing to do, and wrong wherever that would act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from strixbox.config import Config
from strixbox.facts import BoxFact, Checkouts
from strixbox.layout import BIN, BOXTOOLS, BUILDER, LIB, LOCKS, NODES, STATE, TOOLS, TOOLS_STATE
from strixbox.operations import base
from strixbox.operations.base import UNKNOWN, BoxTrouble
from strixbox.operations.files import byte_code
from strixbox.operations.python import uv_directory, uv_program
from strixbox.operations.shell import bashrc
from strixbox.release import Release
from strixbox.tools import command_files
from tests.unit.converged import ConvergedBox, met, planned, verified

Drift = Callable[[ConvergedBox, Release], Any]
MODEL = {"name": "a.safetensors", "folder": "vae", "tier": "active", "url": "https://h/a"}


@pytest.fixture
def cfg(data: dict[str, Any]) -> Config:
    """Settings with both tiers and a model."""
    model = MODEL | {"sha256": "a" * 64}
    return Config.load(data | {"models_archive": "/mnt/sata", "models_manifest": [model]})


@pytest.fixture
def release(cfg: Config) -> Release:
    """The release that these settings call for."""
    return Release(cfg.python, cfg.comfyui, {})


def wrong_rows(box: ConvergedBox) -> list[str]:
    """Lines of the table that say WRONG."""
    return [line for line in box.said if line.startswith("WRONG")]


def test_a_box_that_the_deploy_leaves_alone_is_right_and_is_asked_nothing_more(
    cfg: Config, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = ConvergedBox(cfg, release)
    with met(box, monkeypatch):
        assert planned(cfg, release, monkeypatch) == []
        questions = len(box.asked)
        assert verified(box, cfg, release) is None
    assert wrong_rows(box) == []
    # A run that has nothing to change shall wait for no question of verify's.
    assert box.asked[questions:] == []
    assert questions > 20


def gone(path: str) -> Drift:
    """A file or directory is no more."""
    return lambda box, release: box.states.pop(path)


def turned(path: str, **other: Any) -> Drift:
    """A file or directory has another mode, owner or content."""
    return lambda box, release: box.states[path].update(other)


LOCK = f"{LOCKS}/comfyui-0.3.64-torch-2.6.txt"
PRELOAD = "/etc/systemd/system/strixbox-preload.service"
DRIFTS: dict[str, tuple[Drift, str]] = {
    "launch gone": (gone(f"{LIB}/launch"), f"{LIB}/launch (create)"),
    "profile of old": (
        lambda box, _: box.entries["files"].append(f"{BIN}/launch_comfyui_old.sh"),
        f"of profiles that are none any more: {BIN}/launch_comfyui_old.sh",
    ),
    "launch edited": (turned(f"{LIB}/launch", sha256="0"), f"{LIB}/launch (replace)"),
    "launch not to be run": (turned(f"{LIB}/launch", mode="644"), f"{LIB}/launch (644 root"),
    "directory open": (turned(BIN, mode="777"), f"{BIN} (777 root:root -> 755 root:root)"),
    "directory gone": (gone(NODES), f"{NODES} (create)"),
    "another owner": (turned(TOOLS_STATE, owner="root"), f"{TOOLS_STATE} (755 root:users"),
    "another group": (turned(f"{STATE}/tunableop", primary=False), "anna:its own group"),
    "package of Ubuntu's": (lambda box, _: box.packages.pop("tmux"), "not installed: tmux"),
    "dpkg stopped": (lambda box, _: box.dpkg.update(interrupted=True), "dpkg was stopped"),
    "group": (lambda box, _: box.accounts["anna"]["groups"].remove("video"), "not in video"),
    "uv gone": (lambda box, _: box.states.pop(uv_program(box.cfg.python)), "is not uv 0.9.18"),
    "uv open": (
        lambda box, _: box.environments[uv_directory(box.cfg.python)].update(owners=["anna"]),
        "is not uv 0.9.18, root's",
    ),
    "builder gone": (
        lambda box, _: box.accounts.update({BUILDER: {"exists": False, "groups": []}}),
        f"no system account {BUILDER}",
    ),
    "cleaning of /tmp": (
        gone("/etc/tmpfiles.d/strixbox.conf"),
        "differ: /etc/tmpfiles.d/strixbox.conf (create)",
    ),
    "RAM disk": (lambda box, _: box.mount.update(mount=None, place=None), "is not mounted"),
    "RAM disk open": (
        lambda box, _: box.mount["root"].update(mode="755"),
        "is not its account's alone",
    ),
    "fstab": (lambda box, _: box.mount.update(fstab=[]), "its line in /etc/fstab differs"),
    "fstab unread": (lambda box, _: box.mount.update(stale=True), "has not read /etc/fstab"),
    "lock": (turned(LOCK, mode="600"), f"{LOCK} (600"),
    "torch": (
        lambda box, release: box.environments[release.venv]["packages"].update(torch="2.6.0"),
        "torch 2.6.0",
    ),
    "package damaged": (
        lambda box, release: (
            box.environments[release.venv]["packages"].pop("aiohttp"),
            box.environments[release.venv]["damaged"].update(aiohttp="a.py"),
        ),
        "aiohttp damaged (a.py)",
    ),
    "environment open": (
        lambda box, release: box.environments[release.venv].update(owners=["anna"]),
        "others than root may write to",
    ),
    "build cut": (
        lambda box, release: box.states.update({f"{release.path}/unfinished": {"kind": "file"}}),
        "is no whole environment",
    ),
    "checkout": (
        lambda box, release: box.checkouts[release.code]["edited"].append("main.py"),
        "edited: main.py",
    ),
    "constraints": (
        lambda box, release: box.states.pop(f"{release.path}/constraints.txt"),
        "constraints.txt (create)",
    ),
    "proof": (lambda box, _: box.seal.update(proved="other"), "it was not proved so"),
    "folder": (gone("/home/anna/ComfyUI/input"), "not there: /home/anna/ComfyUI/input"),
    "folder of a tier": (gone("/mnt/sata/loras"), "not there: /mnt/sata/loras"),
    "archive's disk": (
        lambda box, _: box.tier.update(exists=False, other_disk=False),
        "mount the archive disk there",
    ),
    "model": (
        lambda box, _: box.models.update(
            {"/home/anna/ComfyUI/models/vae/a.safetensors": {"kind": "absent", "sha256": None}}
        ),
        "vae/a.safetensors",
    ),
    "tool gone": (gone("/usr/local/bin/strixbox"), "/usr/local/bin/strixbox (create)"),
    "older tool": (
        lambda box, _: box.entries["files"].append("/opt/strixbox/boxtools/old.py"),
        "of another toolkit: /opt/strixbox/boxtools/old.py",
    ),
    "tool's package": (
        lambda box, _: box.environments[TOOLS]["packages"].pop("rich"),
        f"{TOOLS} lacks rich",
    ),
    "tools' Python": (lambda box, _: box.environments[TOOLS].update(python="3.11"), "no whole"),
    "login shell": (lambda box, _: box.texts.pop(bashrc(box.cfg.box)), ".bashrc lacks it"),
    "variables": (gone("/etc/strixbox/comfyui.env"), "/etc/strixbox/comfyui.env (create)"),
    "unit": (turned(PRELOAD, sha256="0"), "it is not written as it shall be"),
    "unit disabled": (
        lambda box, _: box.units["strixbox-warmup.service"].update(enabled=False),
        "strixbox-warmup.service: it is not enabled",
    ),
    "unit unread": (
        lambda box, _: box.units["strixbox-preload.service"].update(stale=True),
        "systemd has not read its unit file",
    ),
    "service": (lambda box, _: box.service.update(active=False), "it is to be started"),
    "generation": (lambda box, _: box.service.update(generation=None), "is not noted as the one"),
    "source": (gone("/etc/apt/sources.list.d/strixbox-rocm.sources"), "AMD's repository"),
    "key": (lambda box, _: setattr(box, "key", ""), "strixbox-rocm.asc"),
    "index": (lambda box, _: box.index.update(indexed=False), "apt has no index of it"),
    "hold": (lambda box, _: box.packages["rocm-libs"].update(held=False), "not held: rocm-libs"),
    "ROCm": (lambda box, _: box.packages.pop("rocm-libs"), "not of 6.4.2: rocm-libs"),
    "old ROCm": (
        lambda box, _: box.remains["packages"].append(
            {
                **{"package": "rocblas", "status": "rc", "version": "4.0.60401-83~24.04"},
                "maintained": True,
            }
        ),
        "left: rocblas",
    ),
}


@pytest.mark.parametrize("kind", DRIFTS)
def test_verify_tells_of_everything_that_the_deploy_mends(
    cfg: Config, release: Release, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    drift, words = DRIFTS[kind]
    box = ConvergedBox(cfg, release)
    drift(box, release)
    with met(box, monkeypatch) as state:
        state.is_executing = False
        assert planned(cfg, release, monkeypatch) != []
        assert verified(box, cfg, release) is None  # what is wrong before is what it is for
        state.is_executing = True
        sentence = verified(box, cfg, release)
    assert any(words in row for row in wrong_rows(box)), box.said
    assert words in str(sentence)
    assert str(sentence).endswith("run the deploy again to mend it.")


def test_what_could_not_be_looked_at_is_told_and_is_no_failure(
    cfg: Config, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = ConvergedBox(cfg, release)
    sentence = "The question Checkouts does not fit into one command."

    def answer(fact: type[BoxFact[Any]], **query: Any) -> Any:
        if fact is Checkouts:
            raise BoxTrouble(sentence)
        return box.answer(fact, **query)

    with met(box, monkeypatch):
        monkeypatch.setattr(base, "_ask", answer)
        assert verified(box, cfg, release) is None
    assert f"unknown  {'checkouts':18} {sentence}" in box.said
    assert UNKNOWN[box.name] == [f"checkouts: {sentence}"]
    # One that is wrong besides fails the box all the same.
    box.packages.pop("tmux")
    with met(box, monkeypatch):
        monkeypatch.setattr(base, "_ask", answer)
        assert "1 of 19 checks are wrong" in str(verified(box, cfg, release))


def test_byte_code_that_is_missing_is_made(
    cfg: Config, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = ConvergedBox(cfg, release)
    (made,) = byte_code(command_files(), cfg.python.version)
    assert made == f"{BOXTOOLS}/__pycache__/__init__.cpython-312.pyc"
    del box.states[made]
    with met(box, monkeypatch):
        assert planned(cfg, release, monkeypatch) == [
            "Put the strixbox command and its nodes in place"
        ]
        assert verified(box, cfg, release) is None  # without it the command is only slower
