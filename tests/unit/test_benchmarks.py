"""The harness of benchmarks/: its statistics, its table, and that both sides describe one box."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import report
from benchmarks.compare import Bench, Run
from benchmarks.contenders import PLAYBOOK, Ansible, Contender, Outcome
from benchmarks.measure import BenchError, Measured, descendants, proportional, run
from benchmarks.report import OURS, Cell
from benchmarks.states import unexplained
from benchmarks.variables import PATHS, build_number, inventory, variables, wheel_requirement
from strixbox.config import Config, Wheel
from strixbox.tree import ROOT

CELL = Cell(
    case="no-op",
    boxes=1,
    latency_ms=0,
    contender=OURS,
    seconds=(1.0, 2.0, 1.5),
    cpu_seconds=(0.6, 0.9, 0.8),
    received=(2048, 4096, 3072),
    sent=(1024, 1024, 1024),
)


def test_a_ratio_is_that_of_the_rounds_not_of_all_runs() -> None:
    # The machine was three times slower in the second round, for both.
    assert report.ratio([10.0, 30.0, 10.0], [1.0, 3.0, 1.0]) == 10.0
    # Medians alone would say 20.
    assert report.ratio([10.0, 40.0, 20.0], [1.0, 4.0, 1.0]) == 10.0


def test_runs_that_make_no_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        report.ratio([1.0, 2.0], [1.0])


def test_a_spread_has_median_smallest_and_largest() -> None:
    assert report.spread([1.0, 9.0, 2.0]) == "2.00 (1.00..9.00)"


def test_the_table_compares_cells_of_one_place_with_ours() -> None:
    theirs = replace(
        CELL,
        contender="Ansible",
        boxes=2,
        seconds=(20.0, 30.0, 31.0),
        cpu_seconds=(4.0, 5.0, 6.0),
        commands=150,
        peak_bytes=3 << 20,
    )
    ours = replace(CELL, boxes=2)
    elsewhere = replace(CELL, case="dry run", contender="Ansible")

    _, _, *rows = report.table([ours, theirs, elsewhere]).splitlines()

    cells = [[word.strip() for word in row.strip("|").split("|")] for row in rows]
    assert cells[0][4:] == ["1.50 (1.00..2.00)", "1.0", "0.40", "-", "2", "0", "-"]
    assert cells[1][3:] == ["Ansible", "30.00 (20.00..31.00)", "20.0", "2.50", "75", "2", "0", "3"]
    assert cells[2][5] == "-"


def test_ours_is_told_beside_its_noop_and_beside_one_box() -> None:
    cells = [
        CELL,
        replace(CELL, case="changed template", seconds=(1.8, 1.8, 1.8)),
        replace(CELL, boxes=20, seconds=(4.5, 4.5, 4.5)),
        replace(CELL, boxes=20, contender="Ansible"),
        replace(CELL, case="first deploy", seconds=(60.0,)),
    ]

    assert report.relations(cells) == [
        "changed template, 1 box: 1.20 x its no-op",
        "no-op, 20 boxes: 3.00 x one box",
    ]


def test_results_are_plain_json() -> None:
    told = json.loads(json.dumps(report.as_json({"machine": "m"}, [CELL])))

    assert told["machine"] == "m"
    assert told["cells"][0]["median_seconds"] == 1.5
    assert told["cells"][0]["seconds"] == [1.0, 2.0, 1.5]


def test_a_run_has_the_cpu_of_what_it_started(tmp_path: Path) -> None:
    burn = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    measured = run([sys.executable, "-c", burn], cwd=tmp_path, environment={}, sample=True)

    assert measured.cpu_seconds > 0.02
    assert measured.peak_bytes is not None


def test_a_run_that_fails_gives_no_number(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; print(sys.stdin.read()); sys.exit(3)"]
    with pytest.raises(BenchError, match=r"(?s)ended with 3:.*spoken"):
        run(words, cwd=tmp_path, environment={}, stdin="spoken")


def test_memory_is_that_of_a_process_and_its_descendants() -> None:
    import os

    assert os.getpid() in descendants(os.getppid())
    assert proportional(os.getpid()) > 1 << 20
    assert proportional(2**30) == 0


def test_commands_are_counted_in_ansibles_own_words() -> None:
    text = (
        "<10.0.0.1> SSH: EXEC ssh -C -o ControlMaster=auto\n"
        "<10.0.0.1> (0, b'ok', b'')\n"
        "<10.0.0.2> SSH: EXEC ssh -C\n"
        '    "cmd": "/usr/bin/rsync --delay-updates -F",\n'
    )
    assert Ansible.commands(text) == 3


def test_numbers_that_ansible_cannot_compute() -> None:
    assert build_number("6.4.2") == "60402"
    assert build_number("7.2.1") == "70201"
    assert build_number(None) == "none"
    wheel = Wheel(
        project="torch",
        version="2.6.0",
        url="http://x/torch-2.6.0-cp312-cp312-linux_x86_64.whl",
        sha256="a" * 64,
    )
    assert wheel_requirement(wheel) == f"torch @ {wheel.url}#sha256={'a' * 64}"
    assert wheel_requirement(wheel.model_copy(update={"sha256": None})) == f"torch @ {wheel.url}"


def playbook() -> str:
    """Text of every file of the playbook."""
    return "\n".join(path.read_text("utf-8") for path in sorted(PLAYBOOK.rglob("*.yml")))


def test_ansible_renders_every_template_of_ours(cfg: Config) -> None:
    text = playbook()
    for name, path in variables(cfg, "0" * 64).items():
        text = text.replace(f"{{{{ {name} }}}}", str(path))
    named = set(re.findall(rf"{ROOT}/templates(\S+)\.j2", text))

    files = (ROOT / "templates").rglob("*.j2")
    assert named == {
        f"/{path.relative_to(ROOT / 'templates').as_posix().removesuffix('.j2')}" for path in files
    }


def test_the_playbook_names_no_variable_that_it_is_not_given(cfg: Config) -> None:
    given = variables(cfg, "0" * 64).keys()
    own = re.findall(r"^\s+register: (\w+)$", playbook(), re.MULTILINE)
    used = set(re.findall(r"{{ ([a-z]\w*)", playbook()))

    local = {
        "item",
        "ansible_facts",
        "ansible_check_mode",
        "of_amd",
        "old_rocm",
        "root_free_gib",
        "managed",
        "install",
    }
    assert used - given - set(own) - local - {"profile"} == set()
    assert set(re.findall(r"layout\.(\w+)", playbook())) <= PATHS.keys()


def test_the_inventory_is_what_ansible_reads() -> None:
    box: dict[str, Any] = {"address": "10.0.0.1", "user": "strix", "key": Path("/k")}
    told = yaml.safe_load(json.dumps(inventory({"box1": box}, {"stack": "s"})))

    assert told["all"]["hosts"]["box1"]["ansible_host"] == "10.0.0.1"
    assert told["all"]["vars"] == {"stack": "s"}


def test_a_difference_without_a_known_reason_is_told() -> None:
    lines = [
        "/opt/strixbox/releases/abc/ComfyUI/.git/config: -rw-r--r-- 0:0 a -> -rw-r--r-- 0:0 b",
        "/opt/strixbox/releases/abc/ComfyUI/main.py: -rw-r--r-- 0:0 a -> -rw-r--r-- 0:0 b",
        "hold:rocm-libs: held -> absent",
        # The reason for a path is none for another whose content names it.
        "/etc/x: lrwxrwxrwx 0:0 -> /root/.ansible -> absent",
    ]
    assert unexplained(lines) == lines[1:]


class Named:
    """A contender that does nothing but note its runs."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def describe(self, boxes: Any, settings: dict[str, Any]) -> None:
        """Nothing to write."""

    def run(self, *, dry: bool = False, look: bool = False) -> Outcome:
        """Note the run."""
        self.log.append(f"{self.name}{' dry' if dry else ''}{' looked at' if look else ''}")
        return Outcome(Measured(1.0, 0.5, "", 7 if look else None), 0, 9 if look else None)


class Unmoved(Bench):
    """Rounds without boxes."""

    def __init__(self, contenders: list[Contender], runs_until_trouble: int = 99) -> None:
        self.contenders = contenders
        self.boxes = []
        self.cells = []
        self.counts = True
        self.left = runs_until_trouble

    def restore(self) -> None:
        """Note it."""
        assert isinstance(self.contenders[0], Named)
        self.contenders[0].log.append("restored")

    def one(self, contender: Contender, case: str) -> Run:
        """One run, unless the time for trouble has come."""
        self.left -= 1
        if self.left < 0:
            raise BenchError("trouble")
        return contender.run(dry=case == "dry run").measured, 10, 20


def test_rounds_alternate_and_begin_at_another_one_each_time() -> None:
    log: list[str] = []
    bench = Unmoved([Named("a", log), Named("b", log)])

    bench.measure(["no-op", "dry run"], 2, 0)

    assert log == [
        *("a", "b", "a dry", "b dry"),
        *("b", "a", "b dry", "a dry"),
        *("a looked at", "b looked at"),
    ]
    assert [(c.case, c.contender, c.seconds, c.commands, c.peak_bytes) for c in bench.cells] == [
        ("no-op", "a", (1.0, 1.0), 9, 7),
        ("no-op", "b", (1.0, 1.0), 9, 7),
        ("dry run", "a", (1.0, 1.0), None, None),
        ("dry run", "b", (1.0, 1.0), None, None),
    ]


def test_an_edited_template_is_undone_before_the_next_noop() -> None:
    log: list[str] = []
    bench = Unmoved([Named("a", log)])

    bench.measure(["no-op", "changed template"], 2, 0)

    assert log == ["a", "a", "restored", "a", "a", "restored", "a looked at"]


def test_whole_rounds_are_kept_when_a_later_run_goes_wrong() -> None:
    log: list[str] = []
    bench = Unmoved([Named("a", log), Named("b", log)], runs_until_trouble=5)

    with pytest.raises(BenchError, match="trouble"):
        bench.measure(["no-op", "dry run"], 2, 0)

    assert [(c.case, c.contender, len(c.seconds)) for c in bench.cells] == [
        *(("no-op", "a", 1), ("no-op", "b", 1), ("dry run", "a", 1), ("dry run", "b", 1)),
    ]


def test_a_run_that_changes_something_unasked_is_no_result() -> None:
    bench = Unmoved([])
    quiet = Outcome(Measured(1.0, 0.5, "words of the run"), 0)
    for case, outcome in (("no-op", replace(quiet, changed=1)), ("changed template", quiet)):
        with pytest.raises(BenchError, match="words of the run"):
            bench.judge(Named("a", []), case, outcome)
    bench.judge(Named("a", []), "dry run", quiet)
    bench.judge(Named("a", []), "first deploy", replace(quiet, changed=30))
