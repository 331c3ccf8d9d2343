"""Deploys to real boxes, run the way a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import Box, Lab, LabError

PROJECT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Outcome:
    """One run of pyinfra and the record it wrote."""

    code: int
    text: str
    record: dict[str, Any]

    def rows(self, box: str) -> dict[str, str]:
        """Outcome by operation of a box."""
        return {r["operation"]: r["outcome"] for r in self.record["boxes"][box]["operations"]}

    def changed(self, box: str) -> list[str]:
        """Operations that changed the box, or would."""
        return [n for n, outcome in self.rows(box).items() if outcome in ("changed", "planned")]

    def outcome(self, box: str) -> str:
        """One word for the box."""
        return str(self.record["boxes"][box]["outcome"])

    def trouble(self, box: str) -> str:
        """The sentence of a failed box."""
        return str(self.record["boxes"][box]["trouble"])


class Fleet:
    """Boxes of one test with their groups and settings, and runs over them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.entries: dict[str, dict[str, Any]] = {}
        self.boxes: list[Box] = []

    def add(
        self, name: str, state: str = "bare", groups: tuple[str, ...] = ("lab",), **settings: Any
    ) -> Box:
        """Start a box and enter it into this test's boxes.yaml."""
        box = self.lab.box(name, state)
        self.boxes.append(box)
        own = {
            "ssh_strict_host_key_checking": "no",
            "ssh_known_hosts_file": str(self.folder / "known_hosts"),
        }
        self.entries[name] = {
            "name": name,
            "address": box.address,
            "user": "strix",
            "key": str(box.key),
            "groups": list(groups),
            "settings": own | settings,
        }
        return box

    def run(self, entry: str = "deploy.py", *flags: str, dry: bool = False) -> Outcome:
        """Run an entry point over all boxes."""
        path = self.folder / "boxes.yaml"
        path.write_text(yaml.safe_dump({"boxes": list(self.entries.values())}), encoding="utf-8")
        command = [sys.executable, "-m", "pyinfra", "--dry" if dry else "-y", *flags]
        answer = subprocess.run(
            [*command, "inventory.py", entry],
            cwd=PROJECT,
            env={**os.environ, "STRIXBOX_BOXES": str(path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        text = answer.stdout + answer.stderr
        found = re.search(r"record: (\S+)", text)
        record = json.loads((PROJECT / found.group(1)).read_text()) if found else {}
        return Outcome(answer.returncode, text, record)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, started once."""
    try:
        return Lab.start()
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no lab on this machine: {error}")


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """Boxes of one test; they end with it."""
    made = Fleet(lab, tmp_path)
    yield made
    for box in made.boxes:
        box.remove()


@pytest.fixture(scope="session")
def converged(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """State name of a box on which the deploy has run; made once."""
    made = Fleet(lab, tmp_path_factory.mktemp("converged"))
    box = made.add("made")
    try:
        outcome = made.run()
        assert outcome.outcome("made") == "changed", outcome.text
        # A clean end, so that the copy has nothing half-written.
        box.run("systemctl stop comfyui.service")
        lab.snapshot(box, "converged")
    finally:
        box.remove()
    return "snapshot:converged"
