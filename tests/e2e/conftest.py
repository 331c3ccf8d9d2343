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

    project = PROJECT

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

    def write(self) -> Path:
        """Write boxes.yaml as the entries stand."""
        path = self.folder / "boxes.yaml"
        path.write_text(yaml.safe_dump({"boxes": list(self.entries.values())}), encoding="utf-8")
        return path

    def environment(self) -> dict[str, str]:
        """Environment of a run over this test's boxes."""
        return {**os.environ, "STRIXBOX_BOXES": str(self.folder / "boxes.yaml")}

    @staticmethod
    def command(entry: str, *flags: str) -> list[str]:
        """What a user types."""
        # --dry with -y would skip the detection of changes (pyinfra 3.10).
        consent = () if "--dry" in flags else ("-y",)
        return [sys.executable, "-m", "pyinfra", *consent, *flags, "inventory.py", entry]

    def run(self, entry: str = "deploy.py", *flags: str, dry: bool = False) -> Outcome:
        """Run an entry point over all boxes."""
        self.write()
        answer = subprocess.run(
            self.command(entry, *(["--dry"] if dry else []), *flags),
            cwd=PROJECT,
            env=self.environment(),
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
