"""Deploys to real boxes, run the way a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class SteppedRun:
    """A run of pyinfra that waits before every operation."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def next(self) -> str | None:
        """Name of the operation that is about to begin; None where the run has ended."""
        assert self.process.stdout
        return self.process.stdout.readline().strip() or None

    def go(self) -> None:
        """Have that operation begin."""
        assert self.process.stdin
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended by itself

    def upto(self, wanted: str) -> str:
        """Run until an operation whose name begins with ``wanted`` is about to begin."""
        while (name := self.next()) is not None:
            if name.startswith(wanted):
                return name
            self.go()
        raise AssertionError(f"{wanted} never began")

    def kill(self) -> None:
        """SIGKILL, as when the controller's power fails."""
        self.process.kill()
        self.process.wait()


class Fleet:
    """Boxes of one test with their groups and settings, and runs over them."""

    project = PROJECT

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.troubles: list[str] = []  # sentences of the boxes that failed, in their order
        self.points = 1  # at which a fault was tried
        self.faults: list[tuple[str, str]] = []  # more than one of a test: fault and sentence
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
        boxes = record.get("boxes", {}).values()
        self.troubles += [box["trouble"] for box in boxes if box["trouble"]]
        return Outcome(answer.returncode, text, record)

    @contextmanager
    def stepped(self, entry: str = "deploy.py") -> Iterator[SteppedRun]:
        """Start a run that waits before every operation; it is killed at the end."""
        self.write()
        words = self.command(entry)
        process = subprocess.Popen(
            [words[0], "-m", "tests.lab.stepped", *words[3:]],
            cwd=PROJECT,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            run = SteppedRun(process)
            try:
                yield run
            finally:
                run.kill()


FAULT = "fault"  # a user property of a report: the fault, and what became of it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Note what a test marked ``fault`` tried, for the table at the end."""
    report: pytest.TestReport = yield
    marker = item.get_closest_marker("fault")
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if marker and fleet and report.when == "call":
        told = fleet.faults or [(marker.args[0], (fleet.troubles or [""])[0])]
        for fault, message in told:
            row = [fault, fleet.points, report.passed, message]
            report.user_properties.append((FAULT, json.dumps(row)))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of faults: what was done, at how many points, whether all came right."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    rows: dict[str, tuple[int, bool, str]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == FAULT:
                fault, points, passed, message = json.loads(value)
                before = rows.get(fault, (0, True, ""))
                rows[fault] = (before[0] + points, before[1] and passed, before[2] or message)
    if not rows:
        return
    width = max(len(fault) for fault in rows)
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':<{width}} points  converged  message")
    for fault, (points, passed, message) in sorted(rows.items()):
        line = f"{fault:<{width}} {points:>6}  {'yes' if passed else 'NO':<9}  {message}"
        terminalreporter.write_line(line[:240].rstrip())


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether faults are tried at every point, each from a fresh box."""
    return bool(request.config.getoption("--whole"))


@pytest.fixture(scope="session")
def undisturbed() -> dict[str, dict[str, str]]:
    """State of a box after a run that nothing disturbed, by the state that it began in."""
    return {}


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
