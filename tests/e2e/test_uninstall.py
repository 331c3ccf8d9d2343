"""Off the box again: what was there before is there as it was, and a deploy works afterwards."""

from __future__ import annotations

import json

import pytest

from strixbox.layout import BACKUPS, STATE, TOOLS_STATE
from tests.e2e.conftest import Fleet
from tests.lab import difference

pytestmark = pytest.mark.lab

# What a deploy installs from the distribution stays, and so does what others made meanwhile.
LEFT = (
    *("dpkg:", "hold:", "auto:", "unit:", f"{BACKUPS}/", BACKUPS, "/home/strix/ComfyUI"),
    *("/etc/group", "/etc/gshadow", "/etc/ld.so", "/var/lib/dpkg/", "/var/lib/apt/"),
    *(f"{STATE}:", f"{STATE}/tunableop"),  # what a server wrote as it ended
    *("/etc/passwd-", "/etc/shadow-"),  # the copies that useradd and userdel make
)


def differs(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs and is not of Ubuntu's packages or the user's own directory."""
    return [line for line in difference(before, after) if not line.startswith(LEFT)]


def test_what_was_edited_is_given_back(fleet: Fleet) -> None:
    box = fleet.add("e2e", "handmade")
    # What the deploy needs of Ubuntu's packages would be the only difference in /usr.
    box.run(
        "apt-get update -q && apt-get install -qy --no-install-recommends git htop tmux"
        " python3-venv && apt-get clean"
    )
    before = box.state()
    assert fleet.run().code == 0
    index = [json.loads(line) for line in box.read(f"{BACKUPS}/index.jsonl").splitlines()]
    edited = box.run("readlink -f /etc/fstab /home/strix/.bashrc").stdout.split()
    assert {entry["path"] for entry in index if entry.get("edited")} == set(edited)
    sums = [f"{entry['sha256']}  {entry['copy']}" for entry in index if entry["sha256"]]
    box.run("sha256sum --check --strict", text="\n".join(sums))

    theirs = ("/opt/strixbox/releases/mine", "/opt/strixbox/notes", "/etc/strixbox/mine")
    for path in theirs:
        box.run(["sh", "-c", 'mkdir "$1" && echo "$1" > "$1/note"', "sh", path])
    words = ("--data", "purge_rocm=true")
    plan = fleet.run("uninstall.py", *words, dry=True)
    outcome = fleet.run("uninstall.py", *words)

    assert outcome.code == 0, outcome.text
    assert plan.changed("e2e") == outcome.changed("e2e")
    after = box.state()
    gone = [line for line in differs(before, after) if "/opt/rocm" not in line]
    assert gone == []
    assert "mode=700" not in box.run("findmnt /tmp/comfyui_cache", check=False).stdout
    assert not [key for key in after if key.startswith("unit:comfyui")]
    assert fleet.run("uninstall.py", *words).changed("e2e") == []
    notes = box.run(["sh", "-c", f"cat $(find {BACKUPS} -name note)"]).stdout.split()
    assert sorted(notes) == sorted(theirs)

    again = fleet.run()
    assert again.code == 0, again.text


def test_rocm_stays_unless_it_is_to_go(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    box.write(f"{TOOLS_STATE}/bench/mine.json", "{}", owner="strix")
    outcome = fleet.run("uninstall.py")
    assert outcome.code == 0, outcome.text
    assert f"left: {TOOLS_STATE}/bench: what strixbox bench measured" in outcome.text
    kept = box.run(["find", STATE, "-type", "f", "!", "-path", f"{STATE}/tunableop/*"]).stdout
    assert kept.split() == [f"{TOOLS_STATE}/bench/mine.json"]
    assert "left: /home/strix/ComfyUI" in outcome.text
    state = box.state()
    assert state["dpkg:rocm-libs"].startswith("ii")
    assert "hold:rocm-libs" not in state
    assert box.run("test -e /home/strix/ComfyUI/models/vae/sdxl_vae.safetensors").returncode == 0
