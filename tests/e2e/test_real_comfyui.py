"""The deploy with the real ComfyUI on the CPU, where STRIXBOX_COMFYUI_SRC names a checkout."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from boxtools.server import Graph, Server
from PIL import Image

from tests.e2e.conftest import PROJECT, Fleet
from tests.e2e.test_tools import strixbox, told
from tests.lab import Box, Lab, difference
from tests.nodes.test_in_comfyui import metadata_of

pytestmark = [
    pytest.mark.lab,
    pytest.mark.comfyui,
    pytest.mark.skipif(
        not os.environ.get("STRIXBOX_COMFYUI_SRC"),
        reason="STRIXBOX_COMFYUI_SRC names no checkout of ComfyUI v0.3.64",
    ),
]

HOME = "/home/strix"
MODELS = f"{HOME}/ComfyUI/models"
SMALL = ("--size", "64x64", "--steps", "2", "--checkpoint", "random.safetensors")
PLANTED = "hf_PlantedTokenPlantedTokenPlanted12"
PRIVATE = "plantedsecret0123456789"
# A node pack of the user's that writes into the log what nobody else should read.
LEAKY = f"""
import logging
NODE_CLASS_MAPPINGS = {{}}
print("Authorization: Bearer {PLANTED}", flush=True)
logging.error("OSError: No such file or directory: https://strix:{PRIVATE}@example.org/?key={PRIVATE}")
"""


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


@pytest.fixture(scope="module")
def box(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with the real ComfyUI, our profiler, two tiers, and models with random weights.

    Its environment file and its log hold a token and a secret.
    """
    fleet = Fleet(lab, tmp_path_factory.mktemp("tools"))
    settings = {"models_manifest": [], "models_archive": "/mnt/sata/models"}
    box = fleet.add("tools", "bare", groups=("lab", "lab_comfyui"), tools_profiler=True, **settings)
    try:
        box.run("mkdir -p /mnt/sata/models && chown strix: /mnt/sata/models")
        outcome = fleet.run()
        assert outcome.code == 0, outcome.text
        box.write(f"{HOME}/ComfyUI/custom_nodes/leaky.py", LEAKY, owner="strix")
        box.run(
            f"printf 'HF_TOKEN={PLANTED}\\nCIVITAI_API_KEY={PRIVATE}\\n'"
            " >> /etc/strixbox/comfyui.env && systemctl restart comfyui"
        )
        _make_models(box)
        assert strixbox(box, "warmup", "--if-new", "--wait", "300").returncode == 0
        yield box
    finally:
        box.remove()


def _make_models(box: Box) -> None:
    """A checkpoint, which goes by a second name as one for LCM, and a ControlNet for it."""
    script = (PROJECT / "tests/boxtools/random_checkpoint.py").read_text(encoding="utf-8")
    box.write("/tmp/random_checkpoint.py", script)
    made = f"{MODELS}/checkpoints/random.safetensors"
    python = "/opt/strixbox/current/venv/bin/python"
    words = ("/opt/strixbox/current/ComfyUI", made, f"{MODELS}/controlnet/net.safetensors")
    box.run([python, "/tmp/random_checkpoint.py", *words], user="strix")
    box.run(["ln", made, f"{MODELS}/checkpoints/sdxl_lcm_random.safetensors"], user="strix")


def test_every_workflow_makes_a_picture(box: Box) -> None:
    out = ("--out", f"{HOME}/pictures")
    first = told(box, "render", "txt2img", *SMALL, *out)
    picture = first["made"][0]["images"][0]
    workflows: tuple[tuple[str, ...], ...] = (
        ("img2img", "--image", picture),
        ("inpaint", "--image", picture, "--mask", picture),
        ("inpaint", "--image", picture, "--mask", picture, "--denoise", "0.5"),
        ("controlnet", "--image", picture, "--controlnet", "net.safetensors"),
        ("refiner", "--refiner", "random.safetensors", "--steps", "4"),
        ("turbo", "--batch", "2"),
        ("lcm", "--checkpoint", "sdxl_lcm_random.safetensors"),
        ("tiled-vae", "--tile", "64"),
    )
    if os.environ.get("STRIXBOX_TILED_SRC"):
        # Its tiles are 384 pixels at least, and it decodes as much to estimate.
        workflows += (("tiled-diffusion-vae", "--tile", "384"),)
    for workflow, *own in workflows:
        done = told(box, "render", workflow, *SMALL, *own, *out)
        assert len(done["made"][0]["images"]) == (2 if "--batch" in own else 1), workflow
    assert len(box.run(["ls", f"{HOME}/pictures"]).stdout.split()) == len(workflows) + 2
    assert strixbox(box, "render", "img2img", *SMALL).returncode == 2  # no image
    refused = strixbox(box, "render", "txt2img", "--checkpoint", "gone.safetensors")
    assert refused.returncode == 1
    assert "there is" in refused.stderr


def test_measuring_tuning_and_profiling(box: Box) -> None:
    warmed = strixbox(
        *(box, "warmup", "--anyway", "--sizes", "64x64", "--checkpoint", "random.safetensors")
    )
    assert warmed.returncode == 0, warmed.stderr
    assert strixbox(box, "warmup").returncode == 1  # nothing to tune on a CPU

    measured = ("bench", "run", "--plan", "resolutions", "--sizes", "64x64,128x64")
    for _ in range(2):
        answer = strixbox(box, *measured, "--runs", "2", "--steps", "2")
        assert answer.returncode == 0, answer.stderr
    assert strixbox(box, "bench", "compare", "before", "last").returncode in (0, 1)
    assert strixbox(box, "bench", "report", "--out", f"{HOME}/report.html").returncode == 0
    alternated = ("--size", "64x64", "--steps", "1")
    for knob in ("--disable-xformers", "OMP_NUM_THREADS=1"):
        (choice,) = told(box, "bench", "flags", knob, *alternated)["choices"]
        assert choice["advice"] in ("keep", "drop", "no difference")
        assert len(choice["rounds"]) == 5
    unknown = strixbox(box, "bench", "flags", "--no-such-flag", *alternated)
    assert unknown.returncode == 1
    assert "unrecognized arguments: --no-such-flag" in unknown.stdout

    profiled = strixbox(box, "profile", "txt2img", *SMALL, "--top", "5")
    assert profiled.returncode == 0, profiled.stderr
    assert "convolution" in profiled.stdout
    assert "KSampler" in profiled.stdout


def test_models_are_listed_moved_checked_and_downloaded(box: Box) -> None:
    mirror = "http://mirror.lab/models"
    download = ("models", "download", "--folder", "vae", "--url")
    got = strixbox(box, *download, f"{mirror}/sdxl_vae.safetensors")
    assert got.returncode == 0, got.stderr
    vae = f"{MODELS}/vae/sdxl_vae.safetensors"
    digest = box.run(["sha256sum", vae]).stdout.split()[0]
    assert digest in got.stdout + got.stderr
    missing = strixbox(box, *download, f"{mirror}/gone.safetensors")
    assert (missing.returncode, "404" in missing.stderr) == (1, True)

    listed = {model["name"]: model for model in told(box, "models", "list")["models"]}
    assert listed["random.safetensors"]["tier"] == "active"
    assert told(box, "models", "plan")["commands"] == []
    assert told(box, "models", "verify", "sdxl_vae.safetensors")
    assert strixbox(box, "models", "archive", "sdxl_vae.safetensors").returncode == 0
    assert box.run(["readlink", vae]).stdout.strip() == "/mnt/sata/models/vae/sdxl_vae.safetensors"
    # ComfyUI reaches it through the link, and it still is what was recorded.
    assert "sdxl_vae.safetensors" in _choices(box, "VAELoader", "vae_name")
    assert told(box, "models", "verify", "sdxl_vae.safetensors")
    assert strixbox(box, "models", "activate", "sdxl_vae.safetensors").returncode == 0
    assert box.run(["sha256sum", vae]).stdout.split()[0] == digest
    box.run(f"printf x | dd of={vae} bs=1 seek=5000 conv=notrunc status=none")
    assert told(box, "models", "verify", "sdxl_vae.safetensors", code=1)
    assert strixbox(box, "models", "archive", "no-such").returncode == 2


def test_the_doctor_finds_mends_explains_and_tells_no_secrets(box: Box) -> None:
    vae = f"{MODELS}/vae/ours.safetensors"
    box.run(f"cp {MODELS}/controlnet/net.safetensors {vae}", user="strix")
    box.run(f"touch {vae}.strixbox-part {vae}.strixbox-part.etag", user="strix")
    assert _verdicts(box, code=0)["MODELS.PARTS"] == "warn"
    assert strixbox(box, "doctor", "--fix", "--dry").returncode == 0
    box.run(["test", "-e", f"{vae}.strixbox-part"])
    assert strixbox(box, "doctor", "--fix").returncode == 0
    assert _verdicts(box, code=0)["MODELS.PARTS"] == "ok"
    box.run(f"truncate --size=1M {vae}")
    assert _verdicts(box, code=1)["MODELS.BROKEN"] == "wrong"
    box.run(["rm", vae])

    steps = told(box, "doctor", "slow")["steps"]
    assert [step["verdict"] for step in steps] == ["ok"] * 5
    assert strixbox(box, "doctor", "HIP error: invalid device function").returncode == 0
    assert strixbox(box, "doctor", "nobody knows this").returncode == 1
    assert strixbox(box, "doctor", "--no-such-option").returncode == 2

    # On a terminal too there are no colours where they are not wanted.
    line = "NO_COLOR=1 TERM=xterm-256color script -qec 'strixbox doctor --all' /dev/null"
    shown = box.run(line, user="strix").stdout
    assert "SERVICE.STATE" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)

    assert PLANTED in box.run("journalctl -u comfyui").stdout
    packed = box.run(f"mkdir -p {HOME}/b && cd {HOME}/b && strixbox doctor --bundle", user="strix")
    assert "service.log" in packed.stdout
    everything = box.run(f"cat {HOME}/b/*.tar.gz | tar xzO", user="strix").stdout
    assert "OSError: No such file or directory" in everything
    assert "HF_TOKEN" in everything
    for private in (PLANTED, PRIVATE, HOME, "example.org/?key"):
        assert private not in everything


def _verdicts(box: Box, code: int) -> dict[str, str]:
    return {f["code"]: f["verdict"] for f in told(box, "doctor", code=code)["findings"]}


def test_watching_a_render(box: Box) -> None:
    words = " ".join(SMALL)
    box.run(
        f"cd {HOME} && (strixbox render txt2img {words} --steps 9 & strixbox monitor --interval 0.2"
        " --count 15 --log m.jsonl; strixbox monitor --interval 0.2 --count 2 --log m.csv; wait)",
        user="strix",
    )
    samples = [json.loads(line) for line in box.read(f"{HOME}/m.jsonl").splitlines()]
    assert len(samples) == 15
    assert {sample["server"] for sample in samples} == {"up"}
    assert any(sample["running"] == 1 for sample in samples)
    rows = list(csv.DictReader(io.StringIO(box.read(f"{HOME}/m.csv"))))
    assert [float(row["ram_total"]) > 0 for row in rows] == [True, True]
    assert told(box, "monitor", "--once")["server"] == "up"

    for state in ("runs now", "runs already"):
        assert state in strixbox(box, "dashboard").stderr
    panes = ["tmux", "list-panes", "-t", "=comfyui_monitor:", "-F", "#{pane_dead}"]
    assert box.run(panes, user="strix").stdout.split() == ["0", "0", "0"]
    assert strixbox(box, "dashboard", "--kill").returncode == 0

    (loaded,) = told(box, "preload", "random.safetensors")["files"]
    assert loaded["resident"] == loaded["size"]
    (status,) = told(box, "preload", "--status", "random.safetensors")["files"]
    assert status["resident"] == status["size"]
    assert told(box, "memory")["server"]["device"] == "cpu"
    assert strixbox(box, "memory", "--free").returncode == 0


def test_our_nodes_at_work(box: Box) -> None:
    server = Server(f"http://{box.address}:8188")
    picture = io.BytesIO()
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(picture, "PNG")
    said = []
    for name in ("one.png", "two.png"):  # ComfyUI's own cache goes by the name
        server.upload(name, picture.getvalue())
        done = server.run(_encoded_and_saved(name))
        said.append(done.outputs["encode"]["text"][0].split()[0].rstrip(":,"))
    assert said == ["miss", "hit"]
    images = {image["filename"].rpartition(".")[2]: image for image in done.images()}
    assert images.keys() == {"png", "jpg", "webp"}
    for image in images.values():
        with Image.open(io.BytesIO(server.view(image))) as loaded:
            assert loaded.size == (64, 64)
            graph = json.loads(metadata_of(loaded)["prompt"])
        assert graph["encode"]["class_type"] == "StrixboxVAEEncodeCached"


def _encoded_and_saved(name: str) -> Graph:
    graph: Graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": name}},
        "load": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "random.safetensors"},
        },
        "encode": {
            "class_type": "StrixboxVAEEncodeCached",
            "inputs": {"pixels": ["image", 0], "vae": ["load", 2]},
        },
        "decode": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["encode", 0], "vae": ["load", 2]},
        },
    }
    for kind in ("PNG", "JPEG", "WebP"):
        graph[kind] = {
            "class_type": "StrixboxSaveImage",
            "inputs": {"images": ["decode", 0], "filename_prefix": "ours", "format": kind},
        }
    return graph


def _choices(box: Box, node: str, name: str) -> list[str]:
    """What an input of a node may be, by the running server."""
    told: dict[str, Any] = Server(f"http://{box.address}:8188").object_info(node)
    choices: list[str] = told[node]["input"]["required"][name][0]
    return choices
