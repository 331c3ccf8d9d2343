"""One box's trouble stays on it, is told in one sentence, and leaves nothing half-current."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import CURRENT, RUN_LOCK, SERVICE
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab


def torch(**own: Any) -> list[dict[str, Any]]:
    """The lab's wheels with something else about torch."""
    wheels = [dict(wheel) for wheel in read_group_data()["lab"]["python_wheels"]]
    wheels[0] |= own
    return wheels


def nothing_half_current(box: Box) -> None:
    """No release is in use, and no service runs."""
    assert box.run(["test", "-e", CURRENT], check=False).returncode == 1
    assert box.run(["systemctl", "is-active", SERVICE], check=False).stdout.strip() == "inactive"


def test_each_box_fails_with_its_own_sentence_and_the_other_finishes(fleet: Fleet) -> None:
    lab = read_group_data()["lab"]
    url = lab["python_wheels"][0]["url"]
    sentences = {
        "key": "has the fingerprint",
        "hash": f"has sha256 {lab['python_wheels'][0]['sha256']}, not {'0' * 64}",
        "wheel": "the server answers 404",
        "repo": "apt has no index of http://radeon.lab:9/rocm/apt/6.4.2",
        "disk": "free disk room",
        "commit": f"has commit {'1' * 40}",
    }
    fleet.add("good")
    fleet.add("key", rocm_key_fingerprint="0" * 40)
    fleet.add("hash", python_wheels=torch(sha256="0" * 64))
    fleet.add("wheel", python_wheels=torch(url=url.replace("rocm-rel", "gone"), sha256=None))
    fleet.add("repo", rocm_repository="http://radeon.lab:9/rocm/apt/6.4.2")
    # preflight would refuse the small disk: it is accepted, so that the build itself runs into it.
    small = fleet.add(
        "disk",
        box_accept=dict.fromkeys(lab["box_accept"], "a test") | {"DISK.ROOM": "a test"},
    )
    small.run("mkdir -p /opt && mount -t tmpfs -o size=60m tmpfs /opt")
    fleet.add("commit", comfyui_commit="1" * 40)

    outcome = fleet.run()

    assert outcome.code != 0
    assert outcome.outcome("good") == "changed", outcome.text
    for box in fleet.boxes[1:]:
        assert outcome.outcome(box.name) == "failed", box.name
        assert sentences[box.name] in outcome.trouble(box.name), outcome.trouble(box.name)
        assert "Traceback" not in outcome.text
        nothing_half_current(box)

    # Mended, the same command finishes each of them.
    small.run("mount -o remount,size=2g /opt")
    for name, entry in fleet.entries.items():
        kept = {k: v for k, v in entry["settings"].items() if k.startswith("ssh_")}
        accepted = {"box_accept": entry["settings"]["box_accept"]} if name == "disk" else {}
        entry["settings"] = kept | accepted
    mended = fleet.run()
    assert mended.code == 0, mended.text
    assert fleet.run("verify.py").code == 0


def test_a_box_that_preflight_refuses_is_left_as_it_is(fleet: Fleet) -> None:
    box = fleet.add("e2e")
    box.run("systemd-run --unit=squatter python3 -m http.server 8188")
    box.run("until ss -ltn | grep -q :8188; do sleep 0.1; done")
    before = box.state()

    outcome = fleet.run()

    assert outcome.outcome("e2e") == "failed"
    assert "PORT.TAKEN: port 8188: python3 (process" in outcome.trouble("e2e")
    assert "set comfyui_port" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []


def test_a_box_that_is_not_there_does_not_stop_the_others(fleet: Fleet) -> None:
    fleet.add("e2e", "converged")
    gone = fleet.add("gone")
    gone.remove()

    outcome = fleet.run()

    assert outcome.code != 0
    assert outcome.outcome("gone") == "failed"
    assert "not reached" in outcome.trouble("gone")
    assert outcome.outcome("e2e") == "changed", outcome.text  # the service had been stopped


def test_a_second_run_on_the_same_box_is_refused(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    fleet.write()
    first = subprocess.Popen(
        fleet.command("deploy.py"),
        env=fleet.environment(),
        cwd=fleet.project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    busy = f"test ! -e {RUN_LOCK} || flock --nonblock {RUN_LOCK} true"
    end = time.monotonic() + 30
    while box.run(busy, check=False).returncode == 0 and time.monotonic() < end:
        time.sleep(0.05)

    second = fleet.run()

    assert second.code != 0
    assert "another run works on this box" in second.trouble("e2e")
    assert "wait for its end" in second.trouble("e2e")
    assert first.wait(120) == 0
    assert fleet.run().code == 0


def test_a_release_that_does_not_answer_is_taken_back(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    before = box.run(["readlink", CURRENT]).stdout
    newer = fleet.lab.data["git"]["comfyui"]["newer"]
    fault = "/home/strix/ComfyUI/user/newer-http-500"
    box.run(f"touch {fault}")
    fleet.entries["e2e"]["settings"] |= {"comfyui_commit": newer, "comfyui_start_timeout": 8}

    outcome = fleet.run()

    assert outcome.outcome("e2e") == "failed"
    assert "does not answer" in outcome.trouble("e2e")
    assert "is in use again" in outcome.trouble("e2e")
    assert box.run(["readlink", CURRENT]).stdout == before
    assert box.run(["systemctl", "is-active", SERVICE]).stdout.strip() == "active"

    box.run(f"rm {fault}")
    again = fleet.run()
    assert again.code == 0, again.text
    assert box.run(["readlink", CURRENT]).stdout != before
    assert fleet.run().changed("e2e") == []


def test_a_release_that_does_not_start_never_becomes_current(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    before = box.run(["readlink", CURRENT]).stdout
    pid = box.main_pid(SERVICE)
    box.run("touch /home/strix/ComfyUI/user/newer-crash-at-start")
    fleet.entries["e2e"]["settings"]["comfyui_commit"] = fleet.lab.data["git"]["comfyui"]["newer"]

    outcome = fleet.run()

    assert outcome.outcome("e2e") == "failed"
    assert "does not start (exit 1): RuntimeError: told to crash" in outcome.trouble("e2e")
    assert box.run(["readlink", CURRENT]).stdout == before
    assert box.main_pid(SERVICE) == pid


def test_flags_that_comfyui_does_not_know_never_become_current(fleet: Fleet) -> None:
    profiles = read_group_data()["all"]["launch_profiles"]
    profiles["production"]["flags"].append("--use-magic")
    newer = fleet.lab.data["git"]["comfyui"]["newer"]
    fleet.add("e2e", "converged", launch_profiles=profiles, comfyui_commit=newer)

    outcome = fleet.run()

    assert "launch profile production: this ComfyUI refuses its flags" in outcome.trouble("e2e")
    assert "--use-magic" in outcome.trouble("e2e")


def test_a_purge_that_would_take_more_is_refused(fleet: Fleet) -> None:
    box = fleet.add("e2e", "old-rocm")
    box.run(
        "mkdir -p /tmp/deb/DEBIAN && cd /tmp/deb && printf 'Package: mytool\\nVersion: 1\\n"
        "Architecture: all\\nMaintainer: me <me@example.org>\\nDescription: mine\\n"
        "Depends: rocm-core\\n' > DEBIAN/control && dpkg-deb -b . /tmp/mytool.deb"
        " && dpkg -i /tmp/mytool.deb && rm -r /tmp/deb /tmp/mytool.deb"
    )
    before = box.state()

    outcome = fleet.run()

    assert "would also remove mytool; nothing was removed" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []


def test_amds_line_beside_others_is_the_owners_to_edit(fleet: Fleet) -> None:
    box = fleet.add("e2e", "old-rocm")
    box.run("cat /etc/apt/sources.list.d/rocm.list >> /etc/apt/sources.list")
    before = box.state()

    outcome = fleet.run()

    assert "/etc/apt/sources.list names AMD's repository beside others" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []


def test_old_rocm_stays_where_the_new_one_cannot_be_had(fleet: Fleet) -> None:
    box = fleet.add("e2e", "old-rocm", rocm_repository="http://radeon.lab:9/rocm/apt/6.4.2")
    before = box.state()

    outcome = fleet.run()

    assert "does not reach http://radeon.lab:9" in outcome.trouble("e2e")
    assert "old ROCm was left in place" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []
