"""How a release is made the one in use."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from strixbox import facts
from strixbox.config import Config
from strixbox.generation import Generation
from strixbox.layout import RELEASE_ID
from strixbox.operations import base, files, release
from strixbox.release import Release
from tests.unit.conftest import StandInBox, commands, told

NONE: dict[str, Any] = {
    **dict.fromkeys(("enabled", "stale", "active", "answers"), False),
    **dict.fromkeys(("current", "generation", "pins")),
    **{"other_commands": [], "generations": [], "releases": {}},
    "process": {"argv": [], "environment": {}},
}


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> StandInBox:
    """A box on which nothing of the release is in place."""
    made = StandInBox({facts.FileStates: {"kind": "absent"}, facts.Service: NONE})
    for module in (base, files, release):
        monkeypatch.setattr(module, "host", made)
    return made


def test_flags_and_unit_are_switched_with_the_release_and_not_before(
    box: StandInBox, cfg: Config
) -> None:
    generation = Generation.of(cfg, Release(cfg.python, cfg.comfyui, {}))
    made = commands(release.running_service, cfg=cfg, generation=generation)
    placed, activated = (str(command.connector_arguments["_stdin"]) for command in made)
    paths = [file["path"] for file in json.loads(placed)["files"]]
    assert paths == [file.path for file in generation.kept()]
    assert all(path.startswith(f"{generation.path}/") for path in paths)
    assert json.loads(activated)["generation"] == generation.path
    # What will change is told all the same.
    assert {file.path for file in generation.files} <= {line.split(": ")[0] for line in box.said}


def test_a_file_that_somebody_edited_is_put_back_by_the_switch(
    box: StandInBox, cfg: Config
) -> None:
    generation = Generation.of(cfg, Release(cfg.python, cfg.comfyui, {}))
    box.answers[facts.FileStates] = {"kind": "file"}
    right = {file.path for file in generation.kept()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "file_is_right", lambda file, state: file.path in right)
        (activated,) = commands(release.running_service, cfg=cfg, generation=generation)
    assert "def install(" in told(activated)


def test_a_node_whose_name_is_no_utf_8_belongs_to_a_release(cfg: Config) -> None:
    name = os.fsdecode(b"na\xefve")
    known = Release(cfg.python, cfg.comfyui, {name: "1" * 64})
    assert re.fullmatch(RELEASE_ID, known.id)
    assert known.id != Release(cfg.python, cfg.comfyui, {}).id
