"""The deploy with the real ComfyUI on the CPU, where STRIXBOX_COMFYUI_SRC names a checkout."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

from tests.e2e.conftest import Fleet
from tests.lab import difference

pytestmark = [
    pytest.mark.lab,
    pytest.mark.comfyui,
    pytest.mark.skipif(
        not os.environ.get("STRIXBOX_COMFYUI_SRC"),
        reason="STRIXBOX_COMFYUI_SRC names no checkout of ComfyUI v0.3.64",
    ),
]


def test_the_real_comfyui_answers_and_the_second_run_changes_nothing(fleet: Fleet) -> None:
    box = fleet.add("e2e", "handmade", groups=("lab", "lab_comfyui"))

    first = fleet.run()

    assert first.code == 0, first.text
    with urllib.request.urlopen(f"http://{box.address}:8188/object_info", timeout=60) as answer:
        nodes = json.load(answer)
    assert len(nodes) > 300
    assert "MyNode" in nodes
    seen = nodes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert "my model.safetensors" in seen
    state = box.state()
    second = fleet.run()
    assert second.changed("e2e") == []
    assert difference(state, box.state()) == []
