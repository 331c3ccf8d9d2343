"""Who is compared: ours, Ansible, and Ansible with Mitogen; each with the commands of its users."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.measure import BenchError, Measured, run
from benchmarks.report import CHANNELS, OURS
from benchmarks.variables import inventory, key_hash, variables
from strixbox.config import Config
from strixbox.groups import read_group_data
from strixbox.tree import ROOT
from tests.lab import Box, Lab

HERE = Path(__file__).parent
PLAYBOOK = HERE / "ansible"
USER = "strix"


@dataclass(frozen=True)
class Outcome:
    """One run over all boxes."""

    measured: Measured
    changed: int  # operations or tasks, on all boxes
    commands: int | None = None


class Contender(Protocol):
    """A way to have boxes in the wanted state."""

    name: str

    def describe(self, boxes: Sequence[Box], settings: dict[str, Any]) -> None:
        """Write its inventory for these boxes; ``settings`` go before those of group_data."""

    def run(self, *, dry: bool = False, look: bool = False) -> Outcome:
        """Run it; ``look`` counts commands and memory, in a run whose time says nothing."""


class Strixbox:
    """This project, with the command that the README gives."""

    name = OURS

    def __init__(self, folder: Path) -> None:
        self.boxes = folder / "boxes.yaml"
        self.groups = ["lab"]

    def describe(self, boxes: Sequence[Box], settings: dict[str, Any]) -> None:
        """Write boxes.yaml."""
        own = {
            "ssh_strict_host_key_checking": "no",
            "ssh_known_hosts_file": str(self.boxes.with_name("known_hosts")),
        }
        entries = [
            {
                "name": box.name,
                "address": box.address,
                "user": USER,
                "key": str(box.key),
                "groups": self.groups,
                "settings": own | settings,
            }
            for box in boxes
        ]
        self.boxes.write_text(json.dumps({"boxes": entries}), encoding="utf-8")

    def run(self, *, dry: bool = False, look: bool = False) -> Outcome:
        """Deploy to all boxes."""
        # --dry with -y would skip the detection of changes (pyinfra 3.10).
        words = ["--dry" if dry else "-y", "inventory.py", "deploy.py"]
        measured = run(
            [sys.executable, "-m", "benchmarks.counted" if look else "pyinfra", *words],
            cwd=ROOT,
            environment={"STRIXBOX_BOXES": str(self.boxes)},
            sample=look,
        )
        found = re.search(r"record: (\S+)", measured.text)
        if found is None:
            raise BenchError(f"the run left no record:\n{measured.text[-3000:]}")
        record = json.loads((ROOT / found.group(1)).read_text(encoding="utf-8"))
        rows = [row for box in record["boxes"].values() for row in box["operations"]]
        changed = sum(row["outcome"] in ("changed", "planned") for row in rows)
        count = re.search(rf"{CHANNELS} (\d+)", measured.text)
        return Outcome(measured, changed, int(count.group(1)) if count else None)


class Ansible:
    """The playbook in benchmarks/ansible, with pipelining and ControlPersist."""

    name = "Ansible"

    def __init__(self, folder: Path, environment: Path, lab: Lab) -> None:
        self.inventory = folder / "inventory.json"
        self.bin = environment / "bin"
        self.lab = lab
        # A socket's path may have 108 bytes, a project's alone may have more.
        self.sockets = tempfile.TemporaryDirectory(prefix="bench-")

    def describe(self, boxes: Sequence[Box], settings: dict[str, Any]) -> None:
        """Write the inventory."""
        groups = read_group_data()
        own = {
            "box_user": USER,
            "box_home": f"/home/{USER}",
            "comfyui_base_directory": f"/home/{USER}/ComfyUI",
        }
        cfg = Config.load(groups["all"] | groups["lab"] | own | settings)
        shared = variables(cfg, key_hash(self.lab.folder / "mirror"))
        hosts = {
            box.name: {"address": box.address, "user": USER, "key": str(box.key)} for box in boxes
        }
        self.inventory.write_text(json.dumps(inventory(hosts, shared)), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """Variables of a run, beside ansible.cfg."""
        options = (
            *("ControlMaster=auto", "ControlPersist=60s", "UserKnownHostsFile=/dev/null"),
            # Named, so that synchronize's rsync takes the connection that stands.
            *("LogLevel=ERROR", f"ControlPath={self.sockets.name}/%C"),
        )
        return {
            "PATH": f"{self.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ANSIBLE_CONFIG": str(PLAYBOOK / "ansible.cfg"),
            "ANSIBLE_SSH_ARGS": " ".join(f"-o {option}" for option in options),
            "ANSIBLE_NOCOLOR": "1",
            "PYTHONPATH": "",
        }

    def run(self, *, dry: bool = False, look: bool = False) -> Outcome:
        """Play the playbook on all boxes, from a first login on, as ours begins."""
        self.log_out()
        measured = run(
            [
                *(str(self.bin / "ansible-playbook"), "--inventory", str(self.inventory)),
                *(["--check"] if dry else []),
                *(["-vvv"] if look else []),
                "site.yml",
            ],
            cwd=PLAYBOOK,
            environment=self.environment(),
            sample=look,
        )
        if re.search(r"ignored=[1-9]", measured.text):
            raise BenchError(f"tasks failed in check mode:\n{measured.text[-3000:]}")
        recaps = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+)", measured.text, re.MULTILINE)
        return Outcome(
            measured,
            sum(int(changed) for changed in recaps),
            self.commands(measured.text) if look else None,
        )

    @staticmethod
    def commands(text: str) -> int | None:
        """Remote commands in the words of a run with -vvv."""
        return len(re.findall(r"SSH: EXEC ", text)) + len(re.findall(r'"cmd": "\S*rsync ', text))

    def log_out(self) -> None:
        """End the connections that the last run left standing."""
        for socket in Path(self.sockets.name).iterdir():
            words = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "box"]
            subprocess.run(words, capture_output=True, check=False)


class Mitogen(Ansible):
    """The same playbook with Mitogen's strategy plugin."""

    name = "Ansible + Mitogen"

    def environment(self) -> dict[str, str]:
        """Ansible's, with the strategy."""
        (plugins,) = self.bin.parent.glob("lib/python3*/site-packages/ansible_mitogen/plugins")
        return super().environment() | {
            "ANSIBLE_STRATEGY_PLUGINS": str(plugins / "strategy"),
            "ANSIBLE_STRATEGY": "mitogen_linear",
        }

    @staticmethod
    def commands(text: str) -> int | None:
        """It has one connection and calls functions over it: nothing that compares."""
        return None


def environment(folder: Path) -> Path:
    """Ansible's environment, made from its lock where it is not there yet."""
    lock = PLAYBOOK / "requirements.txt"
    path = folder / "ansible"
    note = path / "lock"
    if note.exists() and note.read_bytes() == lock.read_bytes():
        return path
    uv = str(ROOT / "bin" / "uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(path)], check=True)
    install = ("pip", "install", "--quiet", "--require-hashes", "--compile-bytecode")
    subprocess.run([uv, *install, "--python", str(path), "--requirements", str(lock)], check=True)
    note.write_bytes(lock.read_bytes())
    return path
