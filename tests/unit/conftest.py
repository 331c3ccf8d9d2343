"""Settings as group_data gives them for a real box; no box is needed for any test here."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.command import StringCommand

from strixbox.config import Config
from strixbox.groups import read_group_data
from strixbox.inventory import BoxEntry, Boxes

GROUPS = read_group_data()


@pytest.fixture
def data() -> dict[str, Any]:
    """Flat settings of a box of the default stack."""
    own = {
        "box_user": "anna",
        "box_home": "/home/anna",
        "comfyui_base_directory": "/home/anna/ComfyUI",
    }
    return deepcopy(GROUPS["all"]) | own


@pytest.fixture
def cfg(data: dict[str, Any]) -> Config:
    """The same, validated."""
    return Config.load(data)


def boxes_of(**groups: tuple[str, ...]) -> Boxes:
    """Boxes by name with their groups."""
    return Boxes(
        tuple(
            BoxEntry(name=name, address=f"{name}.local", user="anna", groups=own)
            for name, own in groups.items()
        ),
        "boxes.yaml",
    )


class StandInBox:
    """Answers the questions of an operation, and hears what it says."""

    name = "box"
    current_op_hash = None
    state = SimpleNamespace(config=SimpleNamespace(DIFF=False))

    def __init__(self, answers: dict[type[Any], Any]) -> None:
        self.answers = answers
        self.said: list[str] = []
        self.asked: list[tuple[type[Any], dict[str, Any]]] = []

    def get_fact(self, fact: type[Any], **query: Any) -> Any:
        """The answer that the test gave; of paths, the same for each."""
        answer = self.answers[fact]
        self.asked.append((fact, query))
        return dict.fromkeys(query["paths"], answer) if fact.table == "paths" else answer

    def log(self, text: str) -> None:
        """What the operation says."""
        self.said.append(text)

    noop = log


def commands(operation: Any, **given: Any) -> list[StringCommand]:
    """What an operation would run."""
    return list(operation._inner(**given))


def told(command: StringCommand) -> str:
    """The command's line, and its order."""
    return command.get_raw_value() + str(command.connector_arguments.get("_stdin", ""))
