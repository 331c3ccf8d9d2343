"""The main job: a box becomes what it shall be, and the second run changes nothing."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.request

import pytest

from strixbox.layout import SERVICE
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab

PRELOAD = "strixbox-preload.service"


def deploy_as_planned_and_twice(fleet: Fleet, box: Box) -> dict[str, str]:
    """A dry run changes nothing and tells what the run changes; the second changes nothing."""
    before = box.state()

    plan = fleet.run(dry=True)
    assert plan.code == 0, plan.text
    assert difference(before, box.state()) == []

    first = fleet.run()
    assert first.code == 0, first.text
    assert first.changed("e2e") == plan.changed("e2e")
    after = box.state()
    assert difference(before, after) != []

    second = fleet.run()
    assert second.code == 0, second.text
    assert second.changed("e2e") == []
    assert difference(after, box.state()) == []
    return after


@pytest.mark.parametrize("state", ["bare", "old-rocm"])
def test_dry_run_tells_the_truth_and_the_second_run_changes_nothing(
    fleet: Fleet, state: str, undisturbed: dict[str, dict[str, str]]
) -> None:
    box = fleet.add("e2e", state)
    if state == "old-rocm":
        assert there(box, *OLD, *OTHERS) == {*OLD, *OTHERS}
        before = dpkg(box)
        assert before["amdgpu-install"].startswith("rc ")
        assert {"rocm-core", "amdgpu-dkms", "rocprofiler-systems"} <= before.keys()

    undisturbed[state] = deploy_as_planned_and_twice(fleet, box)

    assert there(box, *OLD) == set()
    packages = dpkg(box)
    assert {"amdgpu-install", "amdgpu-dkms", "rocprofiler-systems"}.isdisjoint(packages)
    assert not any("60401-83" in version for version in packages.values()), packages
    assert packages["rocm-core"] == "ii 6.4.2.60402-120~24.04"
    if state == "old-rocm":
        assert there(box, *OTHERS) == {*OTHERS}
        assert box.read("/opt/rocm-notes/README") == "my notes\n"


# What tests/lab/states/old-rocm.sh leaves of AMD's, beside packages, and what is not AMD's alone.
OLD = (
    "/etc/amdgpu-install/amdgpu-setup.conf",
    "/etc/apt/keyrings/rocm.gpg",
    "/etc/apt/preferences.d/rocm-pin-600",
    "/etc/apt/sources.list.d/amdgpu.list",
    "/etc/apt/sources.list.d/rocm.list",
    "/etc/apt/trusted.gpg.d/rocm-keyring.gpg",
    "/etc/ld.so.conf.d/rocm.conf",
    "/opt/rocm-6.2.0",
    "/opt/rocm-6.4.1",
)
OTHERS = ("/etc/apt/keyrings/team.gpg", "/opt/rocm-notes/README")


def there(box: Box, *paths: str) -> set[str]:
    """Which of the paths are on the box, links that lead nowhere included."""
    return set(box.run(["ls", "-d", *paths], check=False).stdout.splitlines())


def dpkg(box: Box) -> dict[str, str]:
    """dpkg's state and version of every package that it knows, removed ones included."""
    form = "${Package}\t${db:Status-Abbrev}${Version}\n"
    lines = box.run(["dpkg-query", "-W", "-f", form]).stdout.splitlines()
    return dict(line.split("\t") for line in lines)


def test_what_the_user_had_is_there_and_in_use(fleet: Fleet) -> None:
    box = fleet.add("e2e", "handmade")
    base = "/home/strix/ComfyUI"
    mine = [
        f"{base}/models/checkpoints/my model.safetensors",
        f"{base}/models/loras/größe.safetensors",
        f"{base}/output/ComfyUI_00001_.png",
        f"{base}/user/default/workflows/mine.json",
        f"{base}/custom_nodes/MyNode/__init__.py",
        f"{base}/custom_nodes/MyNode/requirements.txt",
        f"{base}/main.py",
    ]
    before = {path: box.state()[path] for path in mine}
    bashrc, fstab = box.read("/home/strix/dotfiles-bashrc"), box.read("/etc/fstab")

    deploy_as_planned_and_twice(fleet, box)

    now = box.state()
    assert {path: now[path] for path in mine} == before
    assert now["/home/strix/.bashrc"].endswith("-> dotfiles-bashrc")
    assert box.read("/home/strix/dotfiles-bashrc").startswith(bashrc)
    kept = [line for line in fstab.splitlines() if "comfyui_cache" not in line]
    entries = box.read("/etc/fstab").splitlines()
    assert [line for line in entries if "comfyui_cache" not in line] == kept
    assert sum("comfyui_cache" in line for line in entries) == 1
    assert "[E]" not in box.run("findmnt --verify", check=False).stdout

    url = f"http://{box.address}:8188"
    with urllib.request.urlopen(f"{url}/object_info", timeout=10) as answer:
        nodes = json.load(answer)
    assert "MyNode" in nodes
    assert "VAEDecodeTiled_TiledDiffusion" in nodes
    (seen,) = nodes["CheckpointLoaderSimple"]["input"]["required"].values()
    assert "my model.safetensors" in seen[0]

    python = "/opt/strixbox/current/venv/bin/python"
    told = box.run([python, "-c", "import torch; print(torch.__version__, torch.version.hip)"])
    assert told.stdout.split() == ["2.6.0+rocm6.4.2.git76481f7c", "6.4.43484-123eb5128"]
    # The node's own requirement asked for torch; what it asked for besides is there.
    assert box.run([python, "-c", "import comfy_extra_dep"]).returncode == 0


def test_two_boxes_at_once_each_on_its_stack(fleet: Fleet) -> None:
    fleet.add("one")
    seven = fleet.add("two", "old-rocm", groups=("lab", "rocm_7_2", "lab_rocm_7_2"))

    first = fleet.run()
    assert first.code == 0, first.text
    states = [box.state() for box in fleet.boxes]
    second = fleet.run()

    assert second.code == 0, second.text
    for box, state in zip(fleet.boxes, states, strict=True):
        assert second.changed(box.name) == []
        assert difference(state, box.state()) == []
    state = seven.state()
    # Its wheels are lightweight: ROCm's libraries are apt's, of the same release, and held.
    versions = {k.removeprefix("dpkg:"): v for k, v in state.items() if k.startswith("dpkg:roc")}
    assert {"rocm-core", "rocblas", "roctracer", "rocprofiler-sdk"} <= versions.keys()
    assert all(version.endswith("-81~24.04") for version in versions.values()), versions
    assert not any("60401" in version for version in versions.values())
    assert "hold:miopen-hip" in state
    assert "dpkg:rocm-hip-sdk" not in state
    environment = seven.read(f"/proc/{seven.main_pid(SERVICE)}/environ")
    assert "LD_LIBRARY_PATH=/opt/rocm-7.2.1/lib" in environment.split("\0")
    assert "HSA_OVERRIDE" not in environment
    assert "HSA_OVERRIDE" not in seven.read("/etc/strixbox/shell.sh")


def test_the_service_is_what_the_launch_script_starts(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged", comfyui_profile="normalvram", comfyui_port=8200)

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    pid = box.main_pid(SERVICE)
    words = box.read(f"/proc/{pid}/cmdline").split("\0")
    assert "--normalvram" in words
    assert words[words.index("--port") + 1] == "8200"
    assert box.run(["ps", "-o", "user=", pid]).stdout.strip() == "strix"
    assert fleet.run().changed("e2e") == []
    # A server that was killed is started again by systemd.
    box.run(["kill", "-KILL", pid])
    end = time.monotonic() + 30
    while box.main_pid(SERVICE) in (pid, "0"):
        assert time.monotonic() < end, box.run(["systemctl", "status", SERVICE], check=False)
        time.sleep(0.2)
    assert box.run(["systemctl", "is-active", SERVICE]).stdout.strip() == "active"
    box.run("until curl -sf http://127.0.0.1:8200/system_stats; do sleep 0.2; done", user="strix")
    # SIGINT ends it cleanly: TunableOp writes its results at a normal exit only.
    box.run("systemctl stop comfyui.service")
    shown = box.run("systemctl show -p Result comfyui.service").stdout
    assert shown.strip() == "Result=success"


def test_models_and_ram_disk_survive_a_reboot(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    digest = hashlib.sha256(box.read("/etc/fstab").encode()).hexdigest()

    box.power_off()
    box.power_on()

    outcome = fleet.run("verify.py")
    assert outcome.code == 0, outcome.text
    assert hashlib.sha256(box.read("/etc/fstab").encode()).hexdigest() == digest
    assert "comfyui_cache" in box.run("findmnt -t tmpfs").stdout
    # systemd forgets what a boot before did; the container's clock is the machine's.
    shown = box.run(f"systemctl show -p UserspaceTimestampMonotonic && systemctl show {PRELOAD}")
    told = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
    assert (told["Result"], told["ExecMainStatus"]) == ("success", "0")
    begun, booted = told["ExecMainStartTimestampMonotonic"], told["UserspaceTimestampMonotonic"]
    assert int(begun) > int(booted) > 0
    assert "/home/strix/ComfyUI/models" in told["RequiresMountsFor"].split()


def test_limit_and_diff_do_what_pyinfras_users_expect(fleet: Fleet) -> None:
    one, two = fleet.add("one", "converged"), fleet.add("two", "converged")
    for box in (one, two):
        box.run("echo MINE=1 >> /etc/strixbox/comfyui.env")
    untouched = two.state()

    shown = fleet.run("deploy.py", "--limit", "one", "--diff", dry=True)
    assert "-MINE=1" in shown.text
    assert "MINE=1" in one.read("/etc/strixbox/comfyui.env")
    outcome = fleet.run("deploy.py", "--limit", "one")

    assert outcome.code == 0, outcome.text
    assert list(outcome.record["boxes"]) == ["one"]
    assert "MINE=1" not in one.read("/etc/strixbox/comfyui.env")
    assert difference(untouched, two.state()) == []
