"""The main job: a box becomes what it shall be, and the second run changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.request
from collections import Counter

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import CURRENT, SERVICE, WHEELS
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference, settled_difference

pytestmark = pytest.mark.lab

PRELOAD = "strixbox-preload.service"
TORCH = "import torch; print(torch.__version__, torch.version.hip)"


def fetched(fleet: Fleet) -> list[str]:
    """Packages, wheels, models and git remotes that were asked for; indexes and keys aside."""
    paths = [request["path"] for request in fleet.lab.mirror_log()]
    return [path for path in paths if re.search("/pool/|^/wheels/|^/models/|/info/refs$", path)]


def deploy_as_planned_and_twice(fleet: Fleet, box: Box) -> dict[str, str]:
    """A dry run changes nothing and tells what the run changes; the second changes nothing."""
    before = box.state()
    fleet.lab.forget_log()

    plan = fleet.run(dry=True)
    assert plan.code == 0, plan.text
    assert difference(before, box.state()) == []
    assert fetched(fleet) == []

    first = fleet.run()
    assert first.code == 0, first.text
    assert first.changed("e2e") == plan.changed("e2e")
    after = box.state()
    assert difference(before, after) != []
    times = Counter(fetched(fleet))
    assert sum(path.startswith("/wheels/") for path in times) == 4
    assert {path: n for path, n in times.items() if n > 1} == {}

    nothing_to_do(fleet)
    return after


@pytest.mark.parametrize("state", ["bare", "old-rocm"])
def test_dry_run_tells_the_truth_and_the_second_run_changes_nothing(
    fleet: Fleet, state: str, undisturbed: dict[str, dict[str, str]]
) -> None:
    box = fleet.add("e2e", state)
    old = of_rocm(box.state())
    if state == "old-rocm":
        assert there(box, *OLD, *OTHERS) == {*OLD, *OTHERS}
        assert dpkg(box)["amdgpu-install"].startswith("rc ")
        # The driver, AMD's libdrm, and another release beside the one that was chosen.
        met = {"amdgpu-core", "amdgpu-dkms-firmware", "libdrm2-amdgpu", "rocm", "rocm-core6.3.4"}
        assert {"rocm-core", "rocprofiler-systems", *met} <= old.keys()
    else:
        assert old == {}

    undisturbed[state] = deploy_as_planned_and_twice(fleet, box)

    assert there(box, *OLD) == set()
    packages = dpkg(box)
    assert {"amdgpu-install", "amdgpu-dkms", "rocprofiler-systems"}.isdisjoint(packages)
    assert packages["rocm-core"] == "ii 6.4.2.60402-120~24.04"
    versions = of_rocm(undisturbed[state])
    assert {p: v for p, v in versions.items() if not v.endswith(".60402-120~24.04")} == {}
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
    "/opt/rocm-6.3.4",
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

    assert in_release(box, TORCH) == ["2.6.0+rocm6.4.2.git76481f7c", "6.4.43484-123eb5128"]
    # The node's own requirement asked for torch; what it asked for besides is there.
    assert in_release(box, "import comfy_extra_dep") == []


def in_release(box: Box, program: str) -> list[str]:
    """What the Python of the release in use says, with the service's environment."""
    environment = box.read(f"/proc/{box.main_pid(SERVICE)}/environ").split("\0")
    libraries = [line for line in environment if line.startswith("LD_LIBRARY_PATH=")]
    words = ["env", *libraries, f"{CURRENT}/venv/bin/python", "-c", program]
    return box.run(words).stdout.split()


def of_rocm(state: dict[str, str]) -> dict[str, str]:
    """Versions of AMD's packages on a box, in whatever state, as their build numbers tell them."""
    build = re.compile(r"[.:]\d{5,8}-\d+[~.]\d\d\.\d\d$|-\d+~\d\d\.\d\d$")
    found = {k: v for k, v in state.items() if k.startswith("dpkg:") and build.search(v)}
    return {name.removeprefix("dpkg:"): version for name, version in found.items()}


def moved_to_7_2(box: Box, before: dict[str, str]) -> None:
    """The box has one ROCm, its torch finds it, and the user's own files are what they were."""
    state = box.state()
    # Its wheels are lightweight: ROCm's libraries are apt's, of the same release, and held.
    versions = of_rocm(state)
    assert {"rocm-core", "rocblas", "roctracer", "rocprofiler-sdk"} <= versions.keys()
    assert {p: v for p, v in versions.items() if not v.endswith("-81~24.04")} == {}
    assert "hold:miopen-hip" in state
    assert "hold:rocm-libs" not in state
    assert "dpkg:rocm-hip-sdk" not in state
    assert "/opt/rocm-6.4.2" not in state
    assert "/rocm/apt/7.2.1" in box.read("/etc/apt/sources.list.d/strixbox-rocm.sources")
    assert in_release(box, TORCH) == ["2.9.1+rocm7.2.1.lw.gitff65f5bc", "7.2.53211"]
    environment = box.read(f"/proc/{box.main_pid(SERVICE)}/environ")
    assert "LD_LIBRARY_PATH=/opt/rocm-7.2.1/lib" in environment.split("\0")
    assert "HSA_OVERRIDE" not in environment
    assert "HSA_OVERRIDE" not in box.read("/etc/strixbox/shell.sh")
    assert theirs(state) == theirs(before)


def theirs(state: dict[str, str]) -> dict[str, str]:
    """What is in the user's home."""
    return {path: told for path, told in state.items() if path.startswith("/home/strix/")}


def test_two_boxes_at_once_each_on_its_stack_and_back(fleet: Fleet) -> None:
    # As AMD publishes them: without hashes. The first use is what binds.
    wheels = [{**wheel, "sha256": None} for wheel in read_group_data()["lab"]["python_wheels"]]
    digest = read_group_data()["lab"]["python_wheels"][0]["sha256"]
    one, two = fleet.add("one", python_wheels=wheels), fleet.add("two", "converged")
    two.write("/home/strix/ComfyUI/output/mine.png", "mine", owner="strix")
    two.run("echo 'export EDITOR=nano' >> /home/strix/.bashrc")
    before = two.state()
    old = two.run(["readlink", CURRENT]).stdout
    fleet.entries["two"]["groups"] = ["lab", "rocm_7_2", "lab_rocm_7_2"]

    first = fleet.run()
    assert first.code == 0, first.text
    assert first.text.count(": first use, sha256 ") == len(wheels)
    assert f"first use, sha256 {digest} is recorded" in first.text
    moved_to_7_2(two, before)
    nothing_to_do(fleet)
    # What ran before is there, but not the ROCm that it was built for.
    refused = fleet.run("rollback.py", "--limit", "two")
    assert "belongs to the stack rocm-6.4.2" in refused.trouble("two")
    assert "change the box's groups in boxes.yaml and run the deploy" in refused.trouble("two")

    # One comes back while the other would get other bytes for a wheel that it used before.
    fleet.entries["two"]["groups"] = ["lab"]
    fleet.entries["one"]["settings"]["comfyui_commit"] = fleet.lab.data["git"]["comfyui"]["newer"]
    release, pid = one.run(["readlink", CURRENT]).stdout, one.main_pid(SERVICE)
    one.run(["rm", "-r", WHEELS])
    with fleet.lab.replaced(wheels[0]["url"]):
        back = fleet.run()
    assert back.outcome("two") == "changed", back.text
    assert back.outcome("one") == "failed"
    told = back.trouble("one")
    assert f"{wheels[0]['url']} has sha256 " in told
    assert f", not {digest}; it was not used. If the file was changed on purpose mend" in told
    assert (one.run(["readlink", CURRENT]).stdout, one.main_pid(SERVICE)) == (release, pid)
    assert two.run(["readlink", CURRENT]).stdout == old
    after = two.state()
    # What it moved to is gone but for the release, which is kept.
    both = ("/etc/", "/opt/rocm", "dpkg:", "hold:", "unit:")
    assert [x for x in settled_difference(before, after) if x.startswith(both)] == []
    assert theirs(after) == theirs(before)

    last = fleet.run()
    assert last.code == 0, last.text
    assert last.changed("two") == []
    assert one.run(["readlink", CURRENT]).stdout != release
    for box in (one, two):
        assert in_release(box, TORCH) == ["2.6.0+rocm6.4.2.git76481f7c", "6.4.43484-123eb5128"]
    nothing_to_do(fleet)
    assert fleet.run("verify.py").code == 0


def nothing_to_do(fleet: Fleet) -> None:
    """A run that finds everything as it shall be: it changes nothing and fetches nothing."""
    states = [box.state() for box in fleet.boxes]
    fleet.lab.forget_log()
    outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    assert fleet.lab.mirror_log() == []
    for box, state in zip(fleet.boxes, states, strict=True):
        assert outcome.changed(box.name) == []
        assert difference(state, box.state()) == []


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
    while (
        box.main_pid(SERVICE) in (pid, "0")
        or box.run(["systemctl", "is-active", SERVICE], check=False).returncode != 0
    ):
        assert time.monotonic() < end, box.run(["systemctl", "status", SERVICE], check=False)
        time.sleep(0.2)
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
