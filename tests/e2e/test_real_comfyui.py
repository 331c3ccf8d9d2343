"""The deploy with the real ComfyUI on the CPU, where STRIXBOX_COMFYUI_SRC names a checkout."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

from tests.e2e.conftest import PROJECT, Fleet
from tests.e2e.test_tools import strixbox, told
from tests.lab import Box, difference

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


@pytest.fixture
def box(fleet: Fleet) -> Box:
    """A box with the real ComfyUI, our profiler, and a checkpoint with random weights."""
    box = fleet.add(
        "e2e", "bare", groups=("lab", "lab_comfyui"), tools_profiler=True, models_manifest=[]
    )
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    script = (PROJECT / "tests/boxtools/random_checkpoint.py").read_text(encoding="utf-8")
    box.write("/tmp/random_checkpoint.py", script)
    made = "/home/strix/ComfyUI/models/checkpoints/random.safetensors"
    box.run(
        [
            *("runuser", "-u", "strix", "--", "/opt/strixbox/current/venv/bin/python"),
            *("/tmp/random_checkpoint.py", "/opt/strixbox/current/ComfyUI", made),
        ]
    )
    return box


def test_the_tools_work_with_the_real_server(box: Box) -> None:
    small = ("--size", "64x64", "--steps", "2", "--checkpoint", "random.safetensors")

    out = ("--out", "/home/strix/pictures")
    for workflow in ("txt2img", "tiled-vae"):
        answer = strixbox(box, "render", workflow, *small, *out)
        assert answer.returncode == 0, answer.stderr
    pictures = box.run("ls /home/strix/pictures").stdout.split()
    assert len(pictures) == 2
    box.run("cp /home/strix/pictures/* /home/strix/ && chown strix: /home/strix/*.png")
    again = strixbox(box, "render", "img2img", *small, "--image", f"/home/strix/{pictures[0]}")
    assert again.returncode == 0, again.stderr

    warmed = strixbox(
        *(box, "warmup", "--anyway", "--sizes", "64x64", "--checkpoint", "random.safetensors")
    )
    assert warmed.returncode == 0, warmed.stderr
    assert strixbox(box, "warmup", "--if-new").returncode == 0

    measured = ("bench", "run", "--plan", "resolutions", "--sizes", "64x64,128x64")
    for _ in range(2):
        answer = strixbox(box, *measured, "--runs", "2", "--steps", "2")
        assert answer.returncode == 0, answer.stderr
    assert strixbox(box, "bench", "compare", "before", "last").returncode in (0, 1)
    assert strixbox(box, "bench", "report", "--out", "/home/strix/report.html").returncode == 0

    profiled = strixbox(box, "profile", "txt2img", *small, "--top", "5")
    assert profiled.returncode == 0, profiled.stderr
    assert "convolution" in profiled.stdout
    assert "KSampler" in profiled.stdout

    names = {model["name"] for model in told(box, "models", "list")["models"]}
    assert "random.safetensors" in names
    resident = told(box, "preload", "random.safetensors")
    assert resident
    assert told(box, "memory")
    assert strixbox(box, "memory", "--free").returncode == 0
    assert told(box, "monitor", "--once")
    told(box, "doctor")  # a box that is meant to run on the CPU has nothing wrong with it
    nodes = told_nodes(box)
    assert {"StrixboxVAEEncodeCached", "StrixboxSaveImage"} <= nodes


def told_nodes(box: Box) -> set[str]:
    """Names of all node classes of the running server."""
    with urllib.request.urlopen(f"http://{box.address}:8188/object_info", timeout=60) as answer:
        return set(json.load(answer))
