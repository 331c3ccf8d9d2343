"""The strixbox command on a deployed box, called as its user calls it over ssh."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab

MODELS = "/home/strix/ComfyUI/models"


def strixbox(box: Box, *words: str, user: str = "strix") -> subprocess.CompletedProcess[str]:
    """Run the command on a box, without a terminal."""
    return box.run(["/usr/local/bin/strixbox", *words], user=user, check=False)


def told(box: Box, *words: str, code: int = 0, user: str = "strix") -> Any:
    """What the command prints with --json."""
    answer = strixbox(box, *words, "--json", user=user)
    assert answer.returncode == code, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    return json.loads(answer.stdout)


@pytest.fixture
def box(fleet: Fleet) -> Box:
    """A converged box whose service answers."""
    box = fleet.add("e2e", "converged")
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    return box


def test_what_is_read_is_told_as_json_and_watched(box: Box) -> None:
    models = told(box, "models", "list")
    names = {model["name"] for model in models["models"]}
    assert "sd_xl_base_1.0.safetensors" in names
    assert told(box, "monitor", "--once")
    assert told(box, "memory")
    assert told(box, "preload")
    assert told(box, "preload", "--status")
    assert told(box, "warmup", "--status")
    assert told(box, "bench", "list") is not None

    for name in ("m.jsonl", "m.csv"):
        log = ("--log", f"/home/strix/{name}", "--count", "2", "--interval", "0.1")
        assert strixbox(box, "monitor", *log).returncode == 0
    samples = [json.loads(line) for line in box.read("/home/strix/m.jsonl").splitlines()]
    assert [sample["server"] for sample in samples] == ["up", "up"]
    head, *rows = box.read("/home/strix/m.csv").splitlines()
    assert head.startswith("time,gpu,")
    assert [row.count(",") for row in rows] == [head.count(",")] * 2

    for state in ("runs now", "runs already"):
        assert state in strixbox(box, "dashboard").stderr
    panes = ["tmux", "list-panes", "-t", "=comfyui_monitor:", "-F", "#{pane_dead}"]
    assert box.run(panes, user="strix").stdout.split() == ["0", "0", "0"]
    assert strixbox(box, "dashboard", "--kill").returncode == 0


def test_the_doctor_finds_that_a_container_has_no_gpu_and_explains_an_error(box: Box) -> None:
    findings = told(box, "doctor", code=1)
    wrong = {f["code"] for f in findings["findings"] if f["verdict"] == "wrong"}
    assert any("KFD" in code for code in wrong), wrong
    explained = strixbox(box, "doctor", "HIP error: invalid device function")
    assert "HSA_OVERRIDE_GFX_VERSION" in explained.stdout

    left = f"{MODELS}/checkpoints/sd_xl_base_1.0.safetensors.strixbox-part"
    box.run(["touch", left], user="strix")
    assert strixbox(box, "doctor", "--fix", "--dry").returncode == 1
    box.run(["test", "-e", left])
    mended = strixbox(box, "doctor", "--fix")
    assert mended.returncode == 1  # there still is no GPU
    assert box.run(["test", "-e", left], check=False).returncode == 1, mended.stdout

    box.run("echo HF_TOKEN=hf_PlantedTokenPlantedTokenPlanted12 >> /etc/strixbox/comfyui.env")
    box.run("systemctl restart comfyui.service")
    packed = box.run("cd && strixbox doctor --bundle", user="strix").stdout
    content = box.run("tar xzOf /home/strix/strixbox-doctor-*.tar.gz").stdout
    assert "service.log" in packed
    assert "HF_TOKEN" in content
    assert "Planted" not in content
    assert "/home/strix" not in content


def test_a_picture_is_rendered_and_copied(box: Box) -> None:
    words = ("render", "txt2img", "--size", "256x256", "--steps", "2", "--seed", "7")
    done = told(box, *words, "--out", "/home/strix/pictures")
    assert done
    assert box.run("ls /home/strix/pictures").stdout.strip().endswith(".png")


def test_a_bench_is_measured_compared_and_reported(box: Box) -> None:
    assert strixbox(box, "bench", "run", "--plan", "quick", "--runs", "2").returncode == 0
    assert strixbox(box, "bench", "run", "--plan", "quick", "--runs", "2").returncode == 0
    compared = strixbox(box, "bench", "compare", "before", "last")
    assert compared.returncode in (0, 1), compared.stderr
    assert strixbox(box, "bench", "report", "--out", "/home/strix/report.html").returncode == 0
    page = box.read("/home/strix/report.html")
    assert "<svg" in page
    assert 'src="http' not in page


# One tensor of noise, as safetensors has it: length of the header, header, data.
MINE = """
import json, os, sys
header = json.dumps({"x": {"dtype": "U8", "shape": [300000], "data_offsets": [0, 300000]}}).encode()
sys.stdout.buffer.write(len(header).to_bytes(8, "little") + header + os.urandom(300000))
"""


def test_a_model_that_the_tools_moved_stays_in_use(fleet: Fleet, box: Box) -> None:
    box.run("mkdir -p /mnt/sata/models && chown strix: /mnt/sata/models")
    fleet.entries["e2e"]["settings"]["models_archive"] = "/mnt/sata/models"
    assert strixbox(box, "models", "plan").returncode == 2  # one tier
    assert fleet.run().code == 0
    assert told(box, "models", "plan")["commands"] == []
    mine = f"{MODELS}/loras/mine.safetensors"
    box.run(["sh", "-c", f"python3 - > {mine} && chown strix: {mine}"], text=MINE)
    digest = box.run(["sha256sum", mine]).stdout.split()[0]
    assert told(box, "models", "verify", "mine.safetensors")["models"][0]["sha256"] == digest

    assert strixbox(box, "models", "archive", "mine.safetensors").returncode == 0

    assert box.run(["readlink", mine]).stdout.strip() == "/mnt/sata/models/loras/mine.safetensors"
    assert box.run(["sha256sum", mine]).stdout.split()[0] == digest
    assert fleet.run().changed("e2e") == []
    assert strixbox(box, "models", "activate", "mine.safetensors").returncode == 0
    assert box.run(["test", "-L", mine], check=False).returncode == 1
    assert box.run(["sha256sum", mine]).stdout.split()[0] == digest

    box.run(f"printf x | dd of={mine} bs=1 seek=1000 conv=notrunc status=none")
    assert told(box, "models", "verify", "mine.safetensors", code=1)
    vae = next(m for m in fleet.lab.data["models"] if m["folder"] == "vae")
    words = ("--url", vae["url"], "--folder", "vae", "--name", "again.safetensors")
    got = strixbox(box, "models", "download", *words, "--sha256", vae["sha256"])
    assert got.returncode == 0, got.stderr
    assert vae["sha256"] in box.run(["sha256sum", f"{MODELS}/vae/again.safetensors"]).stdout


def test_nothing_of_the_tools_keeps_the_deploy_from_its_no_op(fleet: Fleet, box: Box) -> None:
    state = box.state()
    assert fleet.run().changed("e2e") == []
    assert difference(state, box.state()) == []
    # A module of an older toolkit, which Python would still import.
    box.run("touch /opt/strixbox/boxtools/old.py")
    assert [n.partition(" | ")[0] for n in fleet.run().changed("e2e")] == ["Tools"]
    assert box.run("test -e /opt/strixbox/boxtools/old.py", check=False).returncode == 1


def test_the_profiler_is_there_when_it_was_asked_for(fleet: Fleet, box: Box) -> None:
    refused = strixbox(box, "profile", "txt2img")
    assert refused.returncode == 1
    assert "tools_profiler" in refused.stderr
    fleet.entries["e2e"]["settings"]["tools_profiler"] = True
    before = box.main_pid("comfyui.service")
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    assert box.main_pid("comfyui.service") != before
    assert box.run("test -d /opt/strixbox/nodes/strixbox-profiler", check=False).returncode == 0
    del fleet.entries["e2e"]["settings"]["tools_profiler"]
    assert fleet.run().code == 0
    assert (
        box.run("test -e /opt/strixbox/nodes/strixbox-profiler/__init__.py", check=False).returncode
        == 1
    )
