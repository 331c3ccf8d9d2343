"""One box's trouble stays on it, is told in one sentence, and leaves nothing half-current."""

from __future__ import annotations

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import CURRENT, SERVICE
from tests.e2e.conftest import Fleet
from tests.lab import difference

pytestmark = pytest.mark.lab


@pytest.mark.fault("wheel with another sha256")
def test_each_box_fails_with_its_own_sentence_and_the_other_finishes(fleet: Fleet) -> None:
    wheels = [dict(wheel) for wheel in read_group_data()["lab"]["python_wheels"]]
    wrong = [{**wheels[0], "sha256": "0" * 64}, *wheels[1:]]
    sentences = {
        "hash": f"has sha256 {wheels[0]['sha256']}, not {'0' * 64}",
        "commit": f"has commit {'1' * 40}",
    }
    fleet.add("good", "converged")
    fleet.add("hash", python_wheels=wrong)
    fleet.add("commit", "converged", comfyui_commit="1" * 40)

    outcome = fleet.run()

    assert outcome.code != 0
    assert outcome.outcome("good") == "changed", outcome.text
    for box in fleet.boxes[1:]:
        assert outcome.outcome(box.name) == "failed", box.name
        assert sentences[box.name] in outcome.trouble(box.name), outcome.trouble(box.name)
    assert "Traceback" not in outcome.text
    # Nothing is half-current where there was nothing before.
    hashed = fleet.boxes[1]
    assert hashed.run(["test", "-e", CURRENT], check=False).returncode == 1
    assert hashed.run(["systemctl", "is-active", SERVICE], check=False).stdout.strip() == "inactive"

    # Mended, the same command finishes each of them.
    del fleet.entries["hash"]["settings"]["python_wheels"]
    del fleet.entries["commit"]["settings"]["comfyui_commit"]
    mended = fleet.run()
    assert mended.code == 0, mended.text


@pytest.mark.fault("service's port taken")
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


@pytest.mark.fault("clock ten years off")
@pytest.mark.parametrize("offset", ["+10y", "-10y"])
def test_a_clock_that_is_ten_years_off(fleet: Fleet, offset: str) -> None:
    box = fleet.add("e2e")
    before = box.state()

    with box.clock(offset):
        outcome = fleet.run()

    assert "OS.CLOCK" in outcome.trouble("e2e"), outcome.text
    assert "sudo timedatectl set-ntp true" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []


@pytest.mark.fault("user's directory: a link, on another disk, with blanks")
def test_the_users_directory_may_be_anywhere(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    box.run("mkdir -p '/mnt/big disk' && mount -t tmpfs -o size=500m tmpfs '/mnt/big disk'")
    place, link = "/mnt/big disk/Comfy UI", "/home/strix/my ComfyUI"
    box.run(["mkdir", "-p", f"{place}/output", f"{place}/models/loras"])
    box.write(f"{place}/output/mine.png", "mine")
    box.run(["chown", "-R", "strix:", place])
    box.run(["ln", "-s", place, link])
    fleet.entries["e2e"]["settings"]["comfyui_base_directory"] = link

    first = fleet.run()

    assert first.code == 0, first.text
    state = box.state()
    assert fleet.run().changed("e2e") == []
    assert difference(state, box.state()) == []
    assert box.run(["readlink", link]).stdout.strip() == place
    assert box.read(f"{place}/output/mine.png") == "mine"
    assert "sd_xl_base" in box.run(["ls", f"{place}/models/checkpoints"]).stdout
    words = box.read(f"/proc/{box.main_pid(SERVICE)}/cmdline").split("\0")
    assert words[words.index("--base-directory") + 1] == link


@pytest.mark.fault("a box of several is off")
def test_a_box_that_is_not_there_does_not_stop_the_others(fleet: Fleet) -> None:
    fleet.add("e2e", "converged")
    gone = fleet.add("gone")
    gone.remove()

    outcome = fleet.run()

    assert outcome.code != 0
    assert outcome.outcome("gone") == "failed"
    assert "not reached" in outcome.trouble("gone")
    assert outcome.outcome("e2e") == "changed", outcome.text  # the service had been stopped


@pytest.mark.fault("two controllers at once")
def test_a_second_run_on_the_same_box_is_refused(fleet: Fleet) -> None:
    fleet.add("e2e", "converged")
    with fleet.stepped() as first:
        assert first.next()

        second = fleet.run()

        assert second.code != 0
        assert "another run works on this box" in second.trouble("e2e")
        assert "wait for its end" in second.trouble("e2e")
        first.go()
        while first.next():
            first.go()
        assert first.process.wait(120) == 0
    assert fleet.run().code == 0


@pytest.mark.fault("purge that would take more")
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


@pytest.mark.fault("repository gone before the purge")
def test_old_rocm_stays_where_the_new_one_cannot_be_had(fleet: Fleet) -> None:
    box = fleet.add("e2e", "old-rocm", rocm_repository="http://radeon.lab:9/rocm/apt/6.4.2")
    before = box.state()

    outcome = fleet.run()

    assert "does not reach http://radeon.lab:9" in outcome.trouble("e2e")
    assert "old ROCm was left in place" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []
