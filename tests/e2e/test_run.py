"""How a run treats a box: what root's umask, a larger disk, a busy server and a cut run come to."""

from __future__ import annotations

import pty
import subprocess
import time

import pytest

from strixbox.layout import CURRENT, SERVICE, WRITING
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab


def larger_disk(box: Box, place: str) -> None:
    """``place`` leads to a directory on another disk, as its owner had it before."""
    box.run(f"mkdir -p /srv/large /opt && cp -a /opt/. /srv/large/ && rm -rf {place}")
    box.run(["ln", "-s", "/srv/large", place])


def test_a_roots_umask_hides_nothing_from_the_service_also_on_a_larger_disk(fleet: Fleet) -> None:
    box = fleet.add("e2e")
    larger_disk(box, "/opt")
    box.run("sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs")
    box.run(["sh", "-c", "echo 'Defaults umask=0077, umask_override' > /etc/sudoers.d/90-umask"])
    box.run("chmod 440 /etc/sudoers.d/90-umask")

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    closed = box.run(
        ["find", "/opt/strixbox/", "/etc/strixbox", "!", "-type", "l", "!", "-perm", "-004"]
    )
    assert closed.stdout == ""
    python = f"{CURRENT}/venv/bin/python"
    assert box.run([python, "-c", "import torch"], user="strix").returncode == 0
    changes_nothing(fleet, box, "/opt")


def test_an_accounts_own_group_is_asked_of_the_box_also_with_our_directory_elsewhere(
    fleet: Fleet,
) -> None:
    box = fleet.add("e2e")
    larger_disk(box, "/opt/strixbox")
    box.run("groupadd domain-users && usermod --gid domain-users strix && groupdel strix || true")

    first = fleet.run()

    assert first.code == 0, first.text
    owner = box.run(["stat", "-c", "%U:%G", "/var/lib/strixbox/tunableop"]).stdout.strip()
    assert owner == "strix:domain-users"
    changes_nothing(fleet, box, "/opt/strixbox")


def changes_nothing(fleet: Fleet, box: Box, place: str) -> None:
    """The second run changes nothing, and the link is what it was."""
    after = box.state()
    assert fleet.run().changed(box.name) == []
    assert difference(after, box.state()) == []
    assert box.run(["readlink", place]).stdout.strip() == "/srv/large"
    assert fleet.run("verify.py").code == 0


@pytest.mark.fault("server busy for 20 s")
def test_a_busy_server_is_waited_for_and_not_restarted(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    pid = box.main_pid(SERVICE)
    # It answers nobody for longer than one question waits, and then goes on.
    box.run(f"kill -STOP {pid}; systemd-run --on-active=20 kill -CONT {pid}")

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert "is busy or hangs: waiting up to" in outcome.text
    assert outcome.changed("e2e") == []
    assert box.main_pid(SERVICE) == pid


def test_a_dry_run_tells_of_a_refusal_also_with_y(fleet: Fleet) -> None:
    box = fleet.add("e2e")
    box.run("systemd-run --unit=squatter python3 -m http.server 8188")
    box.run("until ss -ltn | grep -q :8188; do sleep 0.1; done")
    for flags in ((), ("-y",)):
        plan = fleet.run("deploy.py", *flags, dry=True)
        assert plan.outcome("e2e") == "refused", plan.text
        assert plan.trouble("e2e").startswith("would fail: Preflight")
        assert "PORT.TAKEN" in plan.text
        assert "Base | Install" in "".join(plan.changed("e2e"))


def test_one_boxs_failure_does_not_stop_the_other_where_pyinfra_asks(fleet: Fleet) -> None:
    fleet.add("bad", rocm_key_fingerprint="0" * 40)
    good = fleet.add("good", "converged")
    fleet.write()
    # Without -y and on a terminal: one question, before the changes.
    ours, theirs = pty.openpty()
    command = [word for word in fleet.command("deploy.py") if word != "-y"]
    with subprocess.Popen(
        command,
        cwd=fleet.project,
        env=fleet.environment(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        text = ""
        for line in process.stdout:
            text += line
            if "Detected changes displayed above" in line:
                with open(ours, "wb", buffering=0, closefd=False) as terminal:
                    terminal.write(b"\n")
    assert process.returncode == 1, text
    assert "Traceback" not in text
    assert good.run(["systemctl", "is-active", SERVICE]).stdout.strip() == "active"


@pytest.mark.fault("a cut run's program still works")
def test_what_a_cut_run_left_working_is_waited_for(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    box.run(f"systemd-run --unit=left flock --shared {WRITING} sleep 15")
    begin = time.monotonic()

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert "what it started still works: sleep (process" in outcome.text
    assert time.monotonic() - begin > 10


@pytest.mark.fault("sudo refused")
def test_sudos_refusal_is_told_as_such(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    box.run("rm -f /etc/sudoers.d/*; gpasswd --delete strix sudo || true")

    outcome = fleet.run()

    assert "sudo does not let strix become root" in outcome.trouble("e2e")
    assert "another run" not in outcome.text


def test_a_ram_disk_hides_nothing(fleet: Fleet) -> None:
    box = fleet.add("e2e")
    box.run("mkdir -p /tmp/comfyui_cache && echo mine > /tmp/comfyui_cache/picture.png")
    before = box.read("/etc/fstab")

    outcome = fleet.run()

    assert "holds 1 files or directories (picture.png)" in outcome.trouble("e2e")
    assert box.read("/etc/fstab") == before
    box.run("rm /tmp/comfyui_cache/picture.png")
    assert fleet.run().code == 0


def test_a_question_without_an_answer_fails_the_box_and_is_told_as_unknown(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    git = box.run("command -v git").stdout.strip()
    box.run(f"mv {git} {git}.away")

    outcome = fleet.run("verify.py")

    assert outcome.code == 1, outcome.text
    assert "WRONG" not in outcome.text
    assert "unknown, verify could not look: checkouts: The box did not answer" in outcome.text
    assert outcome.trouble("e2e").startswith("a question to the box was not answered")
    box.run(f"mv {git}.away {git}")
    assert fleet.run("verify.py").record["boxes"]["e2e"]["unknown"] == []


def test_verify_says_that_a_node_changed_and_nothing_else(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    node = "/home/strix/ComfyUI/custom_nodes/Mine"
    box.write(f"{node}/requirements.txt", "comfy-extra-dep\n", owner="strix")

    outcome = fleet.run("verify.py")

    assert outcome.code != 0
    assert "1 of " in outcome.trouble("e2e")
    assert "Mine changed since the release was built: run the deploy" in outcome.trouble("e2e")
