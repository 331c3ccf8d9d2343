"""apt and dpkg on a box that is in use: locks, a power cut, Ubuntu's own ROCm, a bad repository."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab

REPOSITORY = "http://radeon.lab/rocm/apt/6.4.2"


def held(box: Box, *paths: str, seconds: int) -> None:
    """Have somebody on the box hold the locks of apt or dpkg for a while."""
    program = (
        "import fcntl, sys, time; files = [open(p, 'w') for p in sys.argv[2:]];"
        " [fcntl.lockf(f, fcntl.LOCK_EX) for f in files];"
        " open('/run/holds', 'w'); time.sleep(float(sys.argv[1]))"
    )
    words = ["systemd-run", "--unit=holder", "python3", "-c", program, str(seconds), *paths]
    box.run(words)
    box.run("until [ -e /run/holds ]; do sleep 0.1; done; rm /run/holds")


def version(box: Box, package: str) -> str:
    """Installed version of a package."""
    return box.run(["dpkg-query", "-W", "-f", "${Version}", package]).stdout.strip()


def test_ubuntus_own_rocm_becomes_amds_and_stays_so(fleet: Fleet) -> None:
    box = fleet.add("e2e", "universe-rocm")
    assert version(box, "rocminfo") == "5.7.1-3build1"

    first = fleet.run()
    assert first.code == 0, first.text
    state = box.state()
    second = fleet.run()

    assert second.code == 0, second.text
    assert second.changed("e2e") == []
    assert difference(state, box.state()) == []
    assert version(box, "rocminfo") == "1.0.0.60402-120~24.04"
    assert version(box, "hipcc") == "1.1.1.60402-120~24.04"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rocm_key_fingerprint": "0" * 40}, "has the fingerprint"),
        ({"rocm_packages": ["rocm-hip-sdk", "rocm-nowhere"]}, "locate package rocm-nowhere"),
        ({"rocm_suite": "jammy"}, "does not reach http://radeon.lab"),
    ],
)
def test_old_rocm_stays_whole_where_the_new_one_cannot_be_installed(
    fleet: Fleet, settings: dict[str, Any], words: str
) -> None:
    box = fleet.add("e2e", "old-rocm", **settings)
    before = box.state()

    outcome = fleet.run()

    assert words in outcome.trouble("e2e"), outcome.text
    assert "old ROCm was left in place" in outcome.trouble("e2e")
    assert difference(before, box.state()) == []
    assert box.run("ls -d /tmp/strixbox-apt-*", check=False).stdout == ""


@pytest.mark.fault("source with another key beside ours")
def test_an_old_source_of_the_same_repository_with_another_key_does_not_stop_apt(
    fleet: Fleet,
) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    # Somebody follows the guide again, and installs the driver with it.
    box.run(
        "cp /etc/apt/keyrings/strixbox-rocm.asc /etc/apt/keyrings/rocm.asc;"
        f" echo 'deb [signed-by=/etc/apt/keyrings/rocm.asc] {REPOSITORY} noble main'"
        " > /etc/apt/sources.list.d/rocm.list"
    )
    refused = box.run("apt-get update", check=False)
    assert "Conflicting values set for option Signed-By" in refused.stdout + refused.stderr

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert box.run("test -e /etc/apt/sources.list.d/rocm.list", check=False).returncode == 1
    assert box.run("test -e /etc/apt/keyrings/rocm.asc", check=False).returncode == 1
    assert box.run("apt-get update", check=False).returncode == 0
    assert fleet.run().changed("e2e") == []


@pytest.mark.fault("locks of apt and dpkg held")
def test_whoever_has_the_locks_is_waited_for(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    box.run("apt-mark unhold rocm-libs; rm /var/lib/apt/lists/*noble*")
    # Those of the lists and of apt-mark are waited for by nobody but us.
    paths = ("/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
    held(box, *paths, seconds=12)

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert "waiting for" in outcome.text
    assert "hold:rocm-libs" in box.state()
    assert fleet.run().changed("e2e") == []


@pytest.mark.fault("dpkg interrupted before")
def test_a_dpkg_that_was_cut_off_is_mended_by_the_run(fleet: Fleet) -> None:
    box = fleet.add("e2e", "old-rocm")
    # What dpkg leaves behind when it is killed: a change in its journal, here to what is so anyway.
    box.run(
        "sed -n '/^Package: rocminfo$/,/^$/p' /var/lib/dpkg/status > /var/lib/dpkg/updates/0000"
    )
    refused = box.run("apt-get install -y rocminfo", check=False)
    assert "dpkg was interrupted" in refused.stdout + refused.stderr

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert [n for n in outcome.changed("e2e") if n.startswith("Purge | Have dpkg finish")]
    assert box.run("ls /var/lib/dpkg/updates").stdout.strip() == ""
    assert fleet.run().changed("e2e") == []


def test_a_hold_of_the_users_is_not_broken(fleet: Fleet) -> None:
    box = fleet.add("e2e", "universe-rocm")
    box.run("apt-mark hold rocminfo")

    outcome = fleet.run()

    assert "nothing was changed" in outcome.trouble("e2e")
    assert "Somebody held rocminfo: 'sudo apt-mark unhold rocminfo'" in outcome.trouble("e2e")
    assert version(box, "rocminfo") == "5.7.1-3build1"

    box.run("apt-mark unhold rocminfo")
    assert fleet.run().code == 0
