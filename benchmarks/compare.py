"""Ours beside Ansible on the same lab boxes, in alternation: ``python -m benchmarks.compare``.

What it needs it makes: the lab, boxes, and an environment with Ansible and Mitogen. Results go to
``.bench/results`` as JSON and as a Markdown table. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import boxes as bench_boxes
from benchmarks import contenders
from benchmarks.contenders import Ansible, Contender, Mitogen, Outcome, Strixbox
from benchmarks.measure import BenchError, Measured, run
from benchmarks.report import OURS, Cell, as_json, relations, table
from benchmarks.states import unexplained
from strixbox.groups import read_group_data
from strixbox.toolkit import toolkit_commit
from strixbox.tree import ROOT
from tests.lab import Box, Lab, LabError, difference
from tests.lab.podman import install_host_packages

FOLDER = ROOT / ".bench"
FIRST = "first deploy"
TEMPLATE = "changed template"
CASES = ("no-op", "dry run", TEMPLATE, FIRST)
CHAPTER = "chapter by hand"
CASE_BY_HAND = "first deploy, by hand"
# Measured, and the bytes that the boxes received and sent meanwhile.
Run = tuple[Measured, int, int]
SETTLING = 4  # runs in which a contender must come to change nothing


def say(text: str) -> None:
    """One line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """The lab with its boxes, the contenders, and what was measured so far."""

    def __init__(self, names: Collection[str]) -> None:
        FOLDER.mkdir(exist_ok=True)
        install_host_packages({"rsync": "rsync"})  # Ansible's synchronize runs it
        self.lab = Lab.start()
        self.image = bench_boxes.image(self.lab, FOLDER)
        self.counts = True  # whether a no-op more tells commands and memory
        self.converged: str | None = None  # the image of a box that nobody has to change
        environment = contenders.environment(FOLDER)
        known: list[Contender] = [
            Strixbox(FOLDER),
            Ansible(FOLDER, environment, self.lab),
            Mitogen(FOLDER, environment, self.lab),
        ]
        self.contenders = [c for c in known if c.name in names]
        self.boxes: list[Box] = []
        self.edits = 0
        self.cells: list[Cell] = []
        self.notes: list[str] = []

    def fresh(self, count: int, image: str | None = None) -> None:
        """Boxes, ``box1`` to ``box<count>``, from an image; bare ones where none is named."""
        names = [f"box{number}" for number in range(1, count + 1)]
        self.boxes = bench_boxes.start(self.lab, names, image or self.image)

    def describe(self, settings: dict[str, Any] | None = None) -> None:
        """Have every contender know the boxes and the settings."""
        for contender in self.contenders:
            contender.describe(self.boxes, settings or {})

    def converge(self, count: int) -> None:
        """Boxes on which every contender finds nothing to change: copies of one.

        They share that one: each is run until it is satisfied with what the others left. Ours is
        the last, as it takes a clone that has a remote, and Ansible's git none that has not.
        """
        if self.converged is None:
            say("converging a box")
            self.fresh(1)
            self.describe()
            self.settle(self.contenders)
            self.converged = bench_boxes.image_of(self.boxes[0])
        say(f"starting {count} of it")
        self.fresh(count, self.converged)
        self.describe()
        # By ours alone, which waits for the servers: with Ansible that takes half an hour. A run
        # that changed anything is no no-op, and is refused as such.
        self.settle([c for c in self.contenders if c.name == OURS])

    def settle(self, some: Sequence[Contender]) -> None:
        """Run these until none of them changes anything."""
        left: dict[str, int] = {}
        for _ in range(SETTLING):
            left = {c.name: c.run().changed for c in reversed(some)}
            if not any(left.values()):
                return
        raise BenchError(f"the contenders undo each other's work: changes of the last runs {left}")

    def keep(self, count: int) -> bool:
        """Begin with the boxes that an earlier benchmark left; whether there are that many."""
        names = {f"box{number}" for number in range(1, count + 1)}
        self.boxes = [box for box in self.lab.boxes() if box.name in names]
        if len(self.boxes) == count:
            self.restore()
        return len(self.boxes) == count

    def restore(self) -> None:
        """Have boxes and settings as before the edits of a template.

        By ours alone: it keeps, for every text of the files, what to go back to, and would find
        that missing where another wrote them. The others only look at what stands there.
        """
        self.describe()
        for contender in self.contenders:
            if contender.name == OURS:
                contender.run()

    def edit_template(self) -> None:
        """Have one template, /etc/strixbox/shell.sh, come out as never before."""
        self.edits += 1
        names = read_group_data()["all"]["launch_shell"]
        kept = [name for bit, name in enumerate(names) if not self.edits >> bit & 1]
        self.describe({"launch_shell": kept})

    def measure(self, cases: Sequence[str], pairs: int, latency: int) -> None:
        """Run every contender ``pairs`` times in every case, in changing order.

        The cases take turns too, so that each has met what the machine went through meanwhile.
        """
        runs: dict[tuple[str, str], list[Run]] = {
            (case, contender.name): [] for case in cases for contender in self.contenders
        }
        try:
            for number in range(pairs):
                for case in cases:
                    # Whole rounds only: a ratio is that of two runs of one round.
                    done = {c.name: self.one(c, case) for c in rotated(self.contenders, number)}
                    for name, run_of_round in done.items():
                        runs[case, name].append(run_of_round)
                if TEMPLATE in cases:
                    self.restore()
        finally:
            cells = {
                place: cell_of(*place, len(self.boxes), latency, taken)
                for place, taken in runs.items()
                if taken
            }
            self.cells += cells.values()
        for contender in self.contenders if self.counts else ():
            if ("no-op", contender.name) in cells:
                self.look(contender, cells["no-op", contender.name])

    def one(self, contender: Contender, case: str) -> Run:
        """One timed run, and the bytes that the boxes received and sent meanwhile."""
        self.prepare(case)
        before = bench_boxes.traffic(self.boxes)
        outcome = contender.run(dry=case == "dry run")
        after = bench_boxes.traffic(self.boxes)
        self.judge(contender, case, outcome)
        say(f"{case}: {contender.name}: {outcome.measured.seconds:.2f} s")
        return outcome.measured, after[0] - before[0], after[1] - before[1]

    def prepare(self, case: str) -> None:
        """Bring boxes and settings to where the case begins."""
        if case == FIRST:
            self.fresh(len(self.boxes))
            self.describe()
        elif case == TEMPLATE:
            self.edit_template()

    def look(self, contender: Contender, cell: Cell) -> None:
        """A no-op of its own for what cannot be counted while the clock runs."""
        looked = contender.run(look=True)
        self.cells[self.cells.index(cell)] = replace(
            cell, commands=looked.commands, peak_bytes=looked.measured.peak_bytes
        )

    def judge(self, contender: Contender, case: str, outcome: Outcome) -> None:
        """Raises BenchError where a run changed something, or nothing, against its case."""
        some = case in (FIRST, TEMPLATE)
        if bool(outcome.changed) != some:
            raise BenchError(
                f"{contender.name} changed {outcome.changed} things in the case {case!r}:\n"
                + outcome.measured.text[-3000:]
            )

    def delayed(self, latency: int) -> bool:
        """Have the boxes answer later; whether the kernel can."""
        return all(bench_boxes.delay(box, latency) for box in self.boxes)


def rotated(items: Sequence[Contender], by: int) -> list[Contender]:
    """The same, begun at another one each time."""
    start = by % len(items)
    return [*items[start:], *items[:start]]


def cell_of(case: str, contender: str, boxes: int, latency: int, runs: Sequence[Run]) -> Cell:
    """The runs of one contender in one case."""
    return Cell(
        case=case,
        boxes=boxes,
        latency_ms=latency,
        contender=contender,
        seconds=tuple(measured.seconds for measured, _, _ in runs),
        cpu_seconds=tuple(measured.cpu_seconds for measured, _, _ in runs),
        received=tuple(received for _, received, _ in runs),
        sent=tuple(sent for _, _, sent in runs),
    )


def states_agree(bench: Bench) -> None:
    """Have each contender make a bare box; raises BenchError where the ends differ.

    What differs for a known reason (benchmarks/states.py) is told.
    """
    found: dict[str, dict[str, str]] = {}
    for contender in bench.contenders:
        bench.fresh(1)
        bench.describe()
        contender.run()
        found[contender.name] = bench.boxes[0].state()
        kept = FOLDER / f"state-{contender.name}.json"
        kept.write_text(json.dumps(found[contender.name]), encoding="utf-8")
    ours = found.pop(OURS)
    for name, state in found.items():
        lines = difference(ours, state)
        left = unexplained(lines)
        say(f"{name}: {len(ours)} entries compared, {len(lines)} differ, {len(left)} unexplained")
        if left:
            raise BenchError(f"{name} makes another box:\n" + "\n".join(left[:60]))


def by_hand(bench: Bench, pairs: int) -> None:
    """Our first deploy and the chapter's commands, in alternation, each on a bare box.

    With the real ComfyUI and torch for the CPU where the lab has them: there installing is work.
    """
    data = json.loads((bench.lab.folder / "lab.json").read_text(encoding="utf-8"))
    taken: dict[str, list[Run]] = {OURS: [], CHAPTER: []}
    (ours,) = (c for c in bench.contenders if isinstance(c, Strixbox))
    if "real_comfyui" in data["git"]:
        ours.groups = ["lab", "lab_comfyui"]
        bench.notes.append("by hand: ComfyUI v0.3.64 and torch for the CPU, no stand-ins of them")
    ways: list[tuple[str, Callable[[], Measured]]] = [
        (OURS, lambda: ours.run().measured),
        (CHAPTER, lambda: typed(bench.boxes[0], data)),
    ]
    for number in range(pairs):
        for name, work in ways if number % 2 == 0 else reversed(ways):
            bench.fresh(1)
            bench.describe()
            before = bench_boxes.traffic(bench.boxes)
            measured = work()
            after = bench_boxes.traffic(bench.boxes)
            taken[name].append((measured, after[0] - before[0], after[1] - before[1]))
            say(f"first deploy: {name}: {measured.seconds:.2f} s")
    bench.cells += [cell_of(CASE_BY_HAND, name, 1, 0, runs) for name, runs in taken.items()]


def typed(box: Box, data: dict[str, Any]) -> Measured:
    """The chapter's commands in a shell on the box, as its user."""
    real = data["git"].get("real_comfyui")
    wheels = data["wheels"]["cpu" if real else "6.4.2"]
    values = {
        "AMD": data["amd"],
        "INDEX": data["index_url"],
        "WHEELS": " ".join(wheel["url"] for wheel in wheels),
        "COMFYUI": (real or data["git"]["comfyui"])["url"],
        "TILED": (data["git"].get("real_tiled") or data["git"]["tiled"])["url"],
        "FLAGS": "--cpu" if real else "--highvram --use-pytorch-cross-attention --disable-xformers",
        "MODELS": " ".join(f"{model['folder']}={model['url']}" for model in data["models"]),
        "SIZE": "1",
    }
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items())
    options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-q")
    return run(
        [
            *("ssh", *options, "-i", str(box.key), f"{contenders.USER}@{box.address}"),
            f"env {assignments} bash -s",
        ],
        cwd=ROOT,
        environment={},
        stdin=(Path(__file__).parent / "chapter.sh").read_text(encoding="utf-8"),
    )


def about() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    locked = (contenders.PLAYBOOK / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": toolkit_commit(),
        "machine": f"{len(cpu)} x {cpu[0] if cpu else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "versions": [
            line.split()[0]
            for line in locked
            if line.startswith(("ansible==", "ansible-core==", "mitogen=="))
        ],
    }


def save(told: dict[str, Any], cells: Sequence[Cell]) -> str:
    """Write JSON and Markdown; the Markdown."""
    folder = FOLDER / "results"
    folder.mkdir(exist_ok=True)
    stamp = str(told["date"])[:19].replace(":", "").replace("-", "")
    head = (
        f"{told['date'][:10]}, {told['machine']}, {', '.join(told['versions'])},"
        f" commit {told['commit']}, load before {told['load_before']:.1f}."
        " Seconds are median (min..max); ratios are medians over rounds.\n\n"
    )
    notes = "".join(f"- {line}\n" for line in (*relations(cells), *told["notes"]))
    text = f"{head}{table(cells)}\n{notes}"
    (folder / f"{stamp}.json").write_text(json.dumps(as_json(told, cells), indent=1))
    (folder / f"{stamp}.md").write_text(text)
    return text


def numbers(text: str) -> list[int]:
    """``1,5,20``."""
    return [int(word) for word in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = [OURS, Ansible.name, Mitogen.name]
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--boxes", type=numbers, default=[1], help="how many at once: 1,5,20")
    made.add_argument("--latency", type=numbers, default=[0], help="added milliseconds: 0,20")
    made.add_argument("--pairs", type=int, default=3, help="rounds of every case")
    made.add_argument("--case", action="append", choices=CASES, help="repeatable; all by default")
    made.add_argument(
        "--only", action="append", choices=names, help="beside ours, or ours alone; repeatable"
    )
    made.add_argument("--states", action="store_true", help="first see that all make the same box")
    made.add_argument("--by-hand", action="store_true", help="and the chapter's own commands")
    made.add_argument("--keep", action="store_true", help="use boxes that run, and leave them")
    made.add_argument(
        "--no-counts", action="store_true", help="leave commands and memory out, and a no-op more"
    )
    made.add_argument("--no-cases", action="store_true", help="only what the two flags above ask")
    return made


def measured(bench: Bench, words: argparse.Namespace) -> None:
    """Measure all that was asked for, and note what could not be measured."""
    cases = [case for case in CASES if case in (words.case or CASES)]
    for count in words.boxes:
        if cases == [FIRST]:
            bench.fresh(count)
        elif not (words.keep and bench.keep(count)):
            bench.converge(count)
        for latency in words.latency:
            if latency and not bench.delayed(latency):
                note = f"{latency} ms of latency were not added: no sch_netem in the kernel."
                bench.notes = [*dict.fromkeys((*bench.notes, note))]
                continue
            bench.measure([c for c in cases if c != FIRST], words.pairs, latency)
            bench.delayed(0)
        if FIRST in cases:  # without latency: it is about downloads, and each run has a new box
            bench.measure([FIRST], words.pairs, 0)


def ended(number: int, frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM end it like an error: what was measured so far is told."""
    raise BenchError("ended by a signal")


def main() -> int:
    """Measure, print the table; 1 with a sentence where a run went wrong."""
    words = parser().parse_args()
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)  # ignored by what a shell has put into the background
    told = about()
    try:
        bench = Bench({OURS, *(words.only or (Ansible.name, Mitogen.name))})
        bench.counts = not words.no_counts
        try:
            if words.states:
                states_agree(bench)
            if not words.no_cases:
                measured(bench, words)
            if words.by_hand:
                by_hand(bench, words.pairs)
        finally:
            for box in () if words.keep else bench.boxes:
                box.remove()
            # Hours of numbers are not lost with the run that went wrong after them.
            if bench.cells:
                print(save(told | {"notes": bench.notes}, bench.cells))
    except (BenchError, LabError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
