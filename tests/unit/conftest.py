"""Settings as group_data gives them for a real box; no box is needed for any test here."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

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
