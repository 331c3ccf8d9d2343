"""One box's trouble stays on it, is told in one sentence, and leaves nothing half-current."""

from __future__ import annotations

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import CURRENT, SERVICE, WHEELS
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab


def current(box: Box) -> str:
    """Where the release in use is."""
    return box.run(["readlink", CURRENT]).stdout.strip()


def active(box: Box) -> str:
    """systemd's word for the service."""
    return box.run(["systemctl", "is-active", SERVICE], check=False).stdout.strip()


# By box: the fault, and what is said of it: what, where, and the mend.
FAULTS = {
    "key": "key of another fingerprint",
    "hash": "wheel with another sha256",
    "wheel": "wheel: 404",
    "repository": "repository that cannot be reached",
    "disk": "disk full: wheels",
}
SENTENCES = {
    "key": (
        "the key at http://radeon.lab/rocm/rocm.gpg.key has the fingerprint ",
        f", not {'0' * 40}; nothing was changed",
        "If AMD announced a new key, set rocm_key_fingerprint; else do not go on",
    ),
    "hash": (
        "/torch-2.6.0",
        f", not {'0' * 64}; it was not used",
        "mend its sha256 in the settings, else do not go on",
    ),
    "wheel": (
        "/torch-2.6.1",
        " cannot be had: the server answers 404",
        "mend the URL in the settings, then run again",
    ),
    "repository": (
        "apt has no index of http://radeon.lab:9/rocm/apt/6.4.2",
        "See that the box reaches it and that rocm_key_fingerprint is AMD's, then run again",
    ),
    "disk": ("/var/cache/strixbox/wheels has", "MiB are needed; free disk room there"),
}


def meet(fleet: Fleet) -> None:
    """A box for each fault, and a good one that has something to do."""
    wheels = [dict(wheel) for wheel in read_group_data()["lab"]["python_wheels"]]
    torch = wheels[0]
    wrong = {**torch, "sha256": "0" * 64}
    # Published nowhere, as the chapter's own pip line.
    version, url = (torch[key].replace("2.6.0", "2.6.1") for key in ("version", "url"))
    missing = {**torch, "version": version, "url": url}
    newer = fleet.lab.data["git"]["comfyui"]["newer"]
    fleet.add("good", "converged", comfyui_preview="taesd")
    fleet.add("key", "converged", rocm_key_fingerprint="0" * 40)
    fleet.add("hash", python_wheels=[wrong, *wheels[1:]])
    fleet.add("wheel", "converged", python_wheels=[missing, *wheels[1:]])
    fleet.add("repository", rocm_repository="http://radeon.lab:9/rocm/apt/6.4.2")
    disk = fleet.add("disk", "converged", comfyui_commit=newer)
    disk.run(f"rm -rf {WHEELS}; mkdir {WHEELS}; mount -t tmpfs -o size=16k,mode=755 tmpfs {WHEELS}")


def mend(fleet: Fleet) -> None:
    """Do what the sentences say."""
    for name, setting in (
        ("key", "rocm_key_fingerprint"),
        ("hash", "python_wheels"),
        ("wheel", "python_wheels"),
        ("repository", "rocm_repository"),
    ):
        del fleet.entries[name]["settings"][setting]
    fleet.boxes[-1].run(["umount", WHEELS])


@pytest.mark.fault("each of several boxes has its own")
def test_each_box_fails_with_its_own_sentence_and_the_other_finishes(fleet: Fleet) -> None:
    meet(fleet)
    bare = [box for box in fleet.boxes if box.name in ("hash", "repository")]
    converged = [box for box in fleet.boxes if box not in bare]
    for box in converged:
        box.run(["systemctl", "start", SERVICE])
    before = {box.name: (current(box), box.main_pid(SERVICE)) for box in converged}

    outcome = fleet.run()

    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    assert outcome.outcome("good") == "changed", outcome.text
    for box in fleet.boxes[1:]:
        assert outcome.outcome(box.name) == "failed", outcome.text
        for words in SENTENCES[box.name]:
            assert words in outcome.trouble(box.name), outcome.trouble(box.name)
    fleet.faults += [(fault, outcome.trouble(name)) for name, fault in FAULTS.items()]
    # Nothing is half-current: where there was nothing before, and where something runs.
    for box in bare:
        assert box.run(["test", "-L", CURRENT], check=False).returncode == 1
        assert active(box) == "inactive"
    for box in converged[1:]:
        assert (current(box), box.main_pid(SERVICE)) == before[box.name], box.name
        assert active(box) == "active"

    # Mended, the same command finishes each of them.
    mend(fleet)
    mended = fleet.run()
    assert mended.code == 0, mended.text
    assert mended.changed("good") == []
    for box in fleet.boxes:
        assert active(box) == "active", box.name
    assert current(fleet.boxes[-1]) != before["disk"][0]  # its upgrade is through


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
