"""Whatever somebody changes by hand is found and mended by the next run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from strixbox.box.leftovers import ASKPASS_TEXT
from strixbox.groups import read_group_data
from strixbox.layout import (
    CHANGES,
    CURRENT,
    ETC,
    GENERATIONS,
    OPT,
    RELEASES,
    SERVICE,
    STATE,
    WHEELS,
)
from tests.e2e.conftest import Fleet
from tests.e2e.drifts import ARCHIVE, MOVED, one_of_each
from tests.lab import Box, difference, settled_difference

pytestmark = pytest.mark.lab

# What is done to a converged box, the operation that has to notice, and what verify says of it: the
# row and words of its sentence.
DRIFT = {
    "echo x >> /etc/strixbox/comfyui.env": (
        "Service | Run the release",
        "launch files",
        "/etc/strixbox/comfyui.env (replace)",
    ),
    "rm /opt/strixbox/lib/launch": (
        "Service | Run the release",
        "launch files",
        "/opt/strixbox/lib/launch (create)",
    ),
    "rm /opt/strixbox/boxtools/server.py": (
        "Tools | Put the strixbox",
        "strixbox command",
        "/opt/strixbox/boxtools/server.py (create)",
    ),
    "echo x >> /opt/strixbox/nodes/strixbox/__init__.py": (
        "Tools | Put the strixbox",
        "strixbox command",
        "/opt/strixbox/nodes/strixbox/__init__.py (replace)",
    ),
    "rm -rf /opt/strixbox/tools/lib/python3*/site-packages/rich-*": (
        "Tools | Install what",
        "strixbox command",
        "/opt/strixbox/tools lacks rich",
    ),
    "touch /opt/strixbox/bin/launch_comfyui_old.sh": (
        "Service | Retire launch profiles",
        "launch files",
        "launch_comfyui_old.sh",
    ),
    "apt-get remove -qy htop": ("Base | Install", "Ubuntu's packages", "not installed: htop"),
    "rm /etc/strixbox/tools.json": (
        "Service | Run the release",
        "launch files",
        "/etc/strixbox/tools.json (create)",
    ),
    "chmod 777 /opt/strixbox/bin": (
        "Base | Have directories",
        "our directories",
        "/opt/strixbox/bin (777",
    ),
    "chown root /var/lib/strixbox/tunableop": (
        "Base | Have directories",
        "our directories",
        "/var/lib/strixbox/tunableop (755 root:",
    ),
    "apt-mark unhold rocm-libs": (
        "ROCm | Install and hold",
        "ROCm from apt",
        "not held: rocm-libs",
    ),
    "dpkg --purge --force-depends rocm-libs": (
        "ROCm | Install and hold",
        "ROCm from apt",
        "not of 6.4.2: rocm-libs",
    ),
    "echo '# x' >> /etc/apt/preferences.d/strixbox-rocm": (
        "ROCm | Add AMD's repository",
        "AMD's repository",
        "/etc/apt/preferences.d/strixbox-rocm",
    ),
    "rm /etc/apt/keyrings/strixbox-rocm.asc": (
        "ROCm | Add AMD's repository",
        "AMD's repository",
        "/etc/apt/keyrings/strixbox-rocm.asc",
    ),
    "gpasswd --delete strix render": ("Base | Put the user", "groups", "strix is not in render"),
    "rm -rf /opt/strixbox/uv/*/bin/uv": ("Python | Install uv", "uv", "is not uv"),
    "rm -rf /opt/strixbox/current/venv/lib/python3*/site-packages/aiohttp-*": (
        "Python | Install torch",
        "torch",
        "aiohttp absent",
    ),
    "echo 'import os' >> /opt/strixbox/current/ComfyUI/main.py": (
        "ComfyUI | Check out",
        "ComfyUI and nodes",
        "edited: main.py",
    ),
    "rm -rf /opt/strixbox/current/nodes/ComfyUI-TiledDiffusion": (
        "ComfyUI | Check out",
        "ComfyUI and nodes",
        "nodes/ComfyUI-TiledDiffusion: absent",
    ),
    "mount -o remount,size=512M /tmp/comfyui_cache": (
        "RAM disk | Mount",
        "RAM disk",
        "is not mounted with its size",
    ),
    "rm /home/strix/ComfyUI/models/vae/sdxl_vae.safetensors": (
        "Models | Have",
        "models",
        "sdxl_vae.safetensors",
    ),
    "sed -i '/strixbox/d' /home/strix/.bashrc": (
        "Launch | Have the variables",
        "login shell",
        "/home/strix/.bashrc lacks it",
    ),
    "systemctl disable comfyui.service": (
        "Service | Run the release",
        "service",
        "it is to be enabled at boot",
    ),
    "sed -i s/NoNewPrivileges=yes/NoNewPrivileges=no/ /etc/systemd/system/comfyui.service": (
        "Service | Run the release",
        "launch files",
        "/etc/systemd/system/comfyui.service (replace)",
    ),
    "systemctl disable strixbox-preload.service": (
        "Service | Preload",
        "preload, warm-up",
        "strixbox-preload.service: it is not enabled",
    ),
    "rm /etc/tmpfiles.d/strixbox.conf": (
        "RAM disk | Keep",
        "RAM disk",
        "/etc/tmpfiles.d/strixbox.conf (create)",
    ),
}

MODELS = "/home/strix/ComfyUI/models"
HELPER = "/tmp/pyinfra-sudo-askpass-0123456789ab"
OLD = 'chown -h strix "$p" && touch -h -d -30days "$p"'
# What a run that is killed leaves: directories, files of root's, and files of the user's.
LEFT = {
    'mkdir -m 711 "$p" && head -c 1000000 /dev/zero > "$p/half"': (
        f"{RELEASES}/0123456789ab",
        f"{GENERATIONS}/0123456789ab-01234567",
        f"{OPT}/uv/0.0.1.strixbox-new",
        "/var/cache/strixbox/uv/.tmpAbCdEf",
        "/tmp/strixbox-apt-dead",
        "/tmp/strixbox-proof-dead",
    ),
    'touch "$p"': (
        f"{CURRENT}.strixbox-new",
        f"{ETC}/comfyui.env.strixbox-new",
        f"{STATE}/files.json.strixbox-new",
        f"{WHEELS}/torch-0.0.1.whl.strixbox-part",
        f"{WHEELS}/torch-0.0.1.whl.strixbox-part.etag",
        "/etc/fstab.strixbox-new",
        "/etc/apt/keyrings/strixbox-rocm.asc.strixbox-new",
        "/etc/systemd/system/comfyui.service.strixbox-new",
    ),
    f'touch "$p" && {OLD}': (
        HELPER,
        "/home/strix/.bashrc.strixbox-new",
        f"{MODELS}/vae/gone.safetensors.strixbox-part",
        f"{MODELS}/vae/gone.safetensors.strixbox-part.etag",
    ),
    f'ln -s / "$p" && {OLD}': (f"{MODELS}/vae/link.safetensors.strixbox-new",),
}
# What looks like it and is somebody's, or in use.
MINE = (
    f"{MODELS}/vae/browser.safetensors.part",
    f"{MODELS}/vae/mine.strixbox-new",
    "/home/strix/fstab.strixbox-new",
    "/tmp/strixbox-apt-strix",
    "/tmp/strixbox-apt-busy",
)


def each(box: Box, command: str, paths: Iterable[str]) -> list[str]:
    """Lines that a shell command, which calls a path ``$p``, says of all the paths."""
    words = ["sh", "-c", f"for p; do {command}; done", "sh", *paths]
    return box.run(words, check=False).stdout.splitlines()


def changes(box: Box) -> list[dict[str, Any]]:
    """The box's own log of who changed what."""
    return [json.loads(line) for line in box.read(CHANGES).splitlines()]


def test_every_kind_of_drift_is_mended_by_one_run(fleet: Fleet) -> None:
    """Drift, and what dead runs left: told by the dry run, and gone after the next."""
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    each(box, 'case $p in /tmp/*) mkdir "$p";; *) touch "$p";; esac', MINE)
    box.run("chown strix /tmp/strixbox-apt-strix")
    box.run("systemd-run --quiet --working-directory=/tmp/strixbox-apt-busy sleep 1000")
    before, logged = box.state(), len(changes(box))
    box.write(HELPER, ASKPASS_TEXT.decode())
    for command, paths in LEFT.items():
        each(box, command, paths)
    for command in DRIFT:
        box.run(command)
    assert difference(before, box.state()) != []
    left = [path for paths in LEFT.values() for path in paths]
    assert each(box, 'ls -d "$p"', (*left, *MINE)) == [*left, *MINE]

    plan = fleet.run(dry=True)

    assert [path for path in left if f"remove {path} (" not in plan.text] == []
    assert each(box, 'ls -d "$p"', (*left, *MINE)) == [*left, *MINE]

    seen = fleet.run("verify.py")

    assert seen.code != 0, seen.text
    rows = re.findall(r"WRONG {4}(.{18}) (.*)", seen.text)
    for command, (_, row, words) in DRIFT.items():
        assert any(name.rstrip() == row and words in told for name, told in rows), (command, rows)

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert each(box, 'ls -d "$p"', (*left, *MINE)) == list(MINE)
    assert [path for path in MINE if f"remove {path} (" in plan.text] == []
    changed = outcome.changed("e2e")
    assert changed[0] == "Leftovers | Clear what dead runs left"
    for command, (operation, *_) in DRIFT.items():
        assert any(name.startswith(operation) for name in changed), command
    assert changed == plan.changed("e2e")
    after = box.state()
    assert [
        line
        for line in difference(before, after)
        if not line.startswith(
            (
                "pid:",  # the service was started anew
                "/etc/group-",  # the copies that gpasswd makes
                "/etc/gshadow-",
                "/var/backups/",  # what the drift had made of our files is kept
                "/var/lib/strixbox/files.json",  # the model has a new inode
                "/var/lib/strixbox/generations/",  # when the generation answered last
            )
        )
    ] == []
    told = changes(box)[logged:]
    assert [line.get("operation") for line in told] == [*changed, None]
    assert {line["outcome"] for line in told} == {"changed"}
    assert len({(line["run"], line["who"], line["toolkit"], line["config"]) for line in told}) == 1
    assert any(
        line.startswith("/etc/strixbox/comfyui.env: ") for e in told[:-1] for line in e["says"]
    )
    assert fleet.run().changed("e2e") == []
    assert fleet.run("verify.py").code == 0
    assert len(changes(box)) == logged + len(told)


@pytest.mark.fault("anything changed by hand, chosen at random")
def test_one_thing_of_every_kind_chosen_at_random(
    fleet: Fleet, pytestconfig: pytest.Config
) -> None:
    manifest = [dict(model) for model in read_group_data()["lab"]["models_manifest"]]
    manifest[0]["tier"] = "archive"
    box = fleet.add("e2e", "converged", models_archive=ARCHIVE, models_manifest=manifest)
    box.run(f"install -d -o strix {ARCHIVE}")
    assert fleet.run().code == 0
    assert fleet.run().changed("e2e") == []
    before = box.state()
    chosen = one_of_each(box, pytestconfig.getoption("--seed"))
    fleet.points = len(chosen)
    for kind, drift in chosen.items():
        print(f"{kind}: {drift.command} ({drift.thing})", flush=True)
        drift.happen(box)

        outcome = fleet.run()

        assert outcome.code == 0, outcome.text
        assert outcome.changed("e2e") != []
        box.run(["rm", "-rf", MOVED])
        assert settled_difference(before, box.state()) == []


def test_a_process_started_with_other_flags_is_restarted(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    profile = "/etc/strixbox/launch/production.json"
    box.run(f"cp {profile} /tmp/kept && sed -i s/--highvram/--lowvram/ {profile}")
    box.run("systemctl restart comfyui.service")
    # The unit counts as started before the launcher has read the profile.
    box.run(
        "timeout 30 sh -c 'until grep -q lowvram"
        " /proc/$(systemctl show --value --property=MainPID comfyui)/cmdline; do sleep 0.1; done'"
    )
    box.run(f"cp /tmp/kept {profile}")

    outcome = fleet.run()

    assert [n.partition(" | ")[0] for n in outcome.changed("e2e")] == ["Service"], outcome.text
    assert "--highvram" in box.read(f"/proc/{box.main_pid(SERVICE)}/cmdline")


def test_the_ram_disk_grows_once_and_keeps_its_files(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    box.run("echo mine > /tmp/comfyui_cache/note")
    fleet.entries["e2e"]["settings"]["tmpfs_size_gib"] = 2

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert [n for n in outcome.changed("e2e") if n.startswith("RAM disk")]
    assert box.read("/tmp/comfyui_cache/note") == "mine\n"
    assert "size=2097152k" in box.run("findmnt /tmp/comfyui_cache").stdout
    assert fleet.run().changed("e2e") == []
