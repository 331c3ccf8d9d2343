"""Models in their tiers: downloaded, moved, linked; what is the user's is left alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from strixbox.groups import read_group_data
from tests.e2e.conftest import Fleet
from tests.lab import difference

pytestmark = pytest.mark.lab

ACTIVE = "/home/strix/ComfyUI/models"
ARCHIVE = "/mnt/sata/models"
OTHER = "/mnt/sata/elsewhere"


def manifest(**own: Any) -> list[dict[str, Any]]:
    """The lab's models; what is given is set for the checkpoint, the first of them."""
    models = [dict(model) for model in read_group_data()["lab"]["models_manifest"]]
    models[0] |= own
    return models


def test_a_model_goes_to_the_archive_and_comes_back(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    box.run(f"mkdir -p {ARCHIVE} && mount -t tmpfs tmpfs /mnt/sata && mkdir -p {ARCHIVE}")
    box.run(f"chown strix: {ARCHIVE}")
    assert fleet.run().code == 0
    settings = fleet.entries["e2e"]["settings"]
    path = f"checkpoints/{manifest()[0]['name']}"
    digest = box.run(["sha256sum", f"{ACTIVE}/{path}"]).stdout.split()[0]

    settings |= {"models_archive": ARCHIVE, "models_manifest": manifest(tier="archive")}
    plan, moved = fleet.run(dry=True), fleet.run()
    assert moved.code == 0, moved.text
    assert moved.changed("e2e") == plan.changed("e2e")
    assert box.run(["readlink", f"{ACTIVE}/{path}"]).stdout.strip() == f"{ARCHIVE}/{path}"
    assert box.run(["sha256sum", f"{ARCHIVE}/{path}"]).stdout.split()[0] == digest
    owner = box.run(["stat", "--format=%U", f"{ACTIVE}/{path}", f"{ARCHIVE}/{path}"]).stdout
    assert owner.split() == ["strix", "strix"]
    state = box.state()
    assert fleet.run().changed("e2e") == []
    assert difference(state, box.state()) == []

    settings["models_archive"] = OTHER
    box.run(["install", "-d", "-o", "strix", OTHER])
    elsewhere = fleet.run()
    assert elsewhere.code == 0, elsewhere.text
    assert box.run(["readlink", f"{ACTIVE}/{path}"]).stdout.strip() == f"{OTHER}/{path}"
    assert box.run(["test", "-e", f"{ARCHIVE}/{path}"], check=False).returncode == 1

    # One tier: where the other was, is told by the link alone.
    del settings["models_archive"]
    settings["models_manifest"] = manifest()
    back = fleet.run()
    assert back.code == 0, back.text
    assert box.run(["test", "-L", f"{ACTIVE}/{path}"], check=False).returncode == 1
    assert box.run(["sha256sum", f"{ACTIVE}/{path}"]).stdout.split()[0] == digest
    assert box.run(["test", "-e", f"{OTHER}/{path}"], check=False).returncode == 1
    assert fleet.run().changed("e2e") == []


@pytest.mark.fault("archive's disk not mounted")
def test_an_archive_whose_disk_is_not_mounted_is_refused(fleet: Fleet) -> None:
    fleet.add("e2e", "converged", models_archive="/mnt/nowhere/models")
    outcome = fleet.run()
    assert "would fill the system disk; mount the archive disk" in outcome.trouble("e2e")


@pytest.mark.fault("model download cut")
def test_a_cut_download_is_resumed_with_progress_and_what_is_there_is_not_fetched(
    fleet: Fleet,
) -> None:
    box = fleet.add("e2e", "converged")
    name, lora = manifest()[0]["name"], manifest()[2]
    box.run(f"rm {ACTIVE}/checkpoints/{name}")
    # Copied there by hand from another machine, before the manifest named it.
    mine = {**lora, "name": "mine.safetensors", "url": f"{lora['url']}?copy"}
    copied = f"{ACTIVE}/loras/mine.safetensors"
    box.run(["cp", "--preserve=mode,ownership", f"{ACTIVE}/loras/{lora['name']}", copied])
    inode = box.run(["stat", "--format=%i %Y", copied]).stdout
    fleet.entries["e2e"]["settings"]["models_manifest"] = [*manifest(), mine]
    fleet.lab.forget_log()
    path = f"/models/{name}"
    cut = {"path_prefix": path, "kind": "truncate:1000000", "count": 1}
    # Slower than the few seconds that pass without a word.
    with fleet.lab.faults(cut, {"path_prefix": path, "kind": "slow:700000"}):
        outcome = fleet.run()
    assert outcome.code == 0, outcome.text
    assert [(r["path"], r["range"]) for r in fleet.lab.mirror_log()] == [
        (path, None),
        (path, "bytes=1000000-"),
    ]
    told = rf"{re.escape(name)}: \d+ MiB of 4 \(\d+%\), \d+ s left, \d\.\d MiB/s"
    assert re.search(told, outcome.text), outcome.text
    assert box.run(["stat", "--format=%i %Y", copied]).stdout == inode
    assert fleet.run().changed("e2e") == []


@pytest.mark.fault("model: a web page, another sha256")
def test_a_login_page_is_no_model(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    name = manifest()[0]["name"]
    box.run(f"rm {ACTIVE}/checkpoints/{name}")
    with fleet.lab.faults({"path_prefix": f"/models/{name}", "kind": "html"}):
        outcome = fleet.run()
    assert "answers with a web page, not with the file" in outcome.trouble("e2e")
    path = f"{ACTIVE}/checkpoints/{name}"
    assert box.run(["test", "-e", path], check=False).returncode == 1

    fleet.entries["e2e"]["settings"]["models_manifest"] = manifest(sha256="0" * 64)
    other = fleet.run()
    assert f"not {'0' * 64}" in other.trouble("e2e")
    assert box.run(["test", "-e", path], check=False).returncode == 1

    del fleet.entries["e2e"]["settings"]["models_manifest"]
    assert fleet.run().code == 0


@pytest.mark.fault("model: a file of the user's in its place")
def test_a_users_file_of_a_models_name_is_left_alone(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    path = f"{ACTIVE}/checkpoints/{manifest()[0]['name']}"
    box.write(path, "mine", owner="strix")
    outcome = fleet.run()
    assert f"{path} is there with another content" in outcome.trouble("e2e")
    assert "it was left alone" in outcome.trouble("e2e")
    assert box.read(path) == "mine"
