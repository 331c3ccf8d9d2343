"""What boxes are compared by sees what a run may leave behind."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Fleet
from tests.lab import difference

pytestmark = pytest.mark.lab

# What is done to a box, and the key that tells of it.
SEEN = {
    "mkdir /tmp/strixbox-apt-left": "/tmp/strixbox-apt-left",
    "echo x > /tmp/left": "/tmp/left",
    "chmod 700 /var/tmp": "/var/tmp",
    "apt-mark auto sudo": "auto:sudo",
    "apt-mark hold sudo": "hold:sudo",
    "touch /var/lib/systemd/linger/strix": "/var/lib/systemd/linger/strix",
    "printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n'"
    " > /etc/systemd/system/strixbox-left.service && ! systemctl start strixbox-left": (
        "active:strixbox-left.service"
    ),
}


def test_what_is_left_in_tmp_and_in_the_books_of_apt_and_systemd_is_a_difference(
    fleet: Fleet,
) -> None:
    box = fleet.add("e2e")
    before = box.state()
    assert difference(before, box.state()) == []
    for command in SEEN:
        box.run(f"mkdir -p /var/lib/systemd/linger && {command}")

    told = difference(before, box.state())

    for key in SEEN.values():
        assert any(line.startswith(f"{key}: ") for line in told), (key, told)
    assert any(line == "active:strixbox-left.service: absent -> failed" for line in told)
