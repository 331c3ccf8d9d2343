"""One run: what is said and recorded of it, and what it does not begin at all."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.inventory import Inventory

from strixbox import command_line, run
from strixbox.answers import ANSWERS, Answers
from strixbox.command_line import idle, note_run_data, run_data, told_data, wrong_run_data
from strixbox.config import Config
from strixbox.connect import lock_trouble, no_sudo
from strixbox.journal import JOURNALS, Journal
from strixbox.operations.base import FORESEEN, UNKNOWN
from strixbox.report import BoxReport, login_words, title, way_to_comfyui


@pytest.mark.parametrize("entry", ["deploy", "rollback", "uninstall", "deploy+verify", "verify"])
def test_no_run_ends_well_that_did_nothing(entry: str) -> None:
    reads = entry == "verify"
    cases: list[tuple[dict[str, bool], bool, str | None]] = [
        ({}, True, None),
        ({"yes": True}, False, None),
        ({"yes": True, "json_output": True}, False, None),
        ({"debug_operations": True}, False, None),
        ({}, False, None if reads else "there is no terminal to ask on"),
        ({"json_output": True}, True, "add it" if reads else "with --json nothing is asked"),
        ({"dry": True}, False, "leave --dry out" if reads else None),
        ({"dry": True, "json_output": True}, False, "leave --dry out" if reads else None),
        ({"dry": True, "yes": True}, False, "leave --dry out" if reads else None),
        ({"yes": True, "no_wait": True}, True, "leave it out"),
    ]
    for words, terminal, part in cases:
        told = idle(entry, words, terminal=terminal)
        assert (told is None) if part is None else part in str(told), words


class Meta:
    """Stands in for pyinfra's outcome of one operation."""

    def __init__(self, change: bool | None = None, *, done: str = "") -> None:
        self._maybe_is_change = change
        self.done = done
        self.executed = done == "changed"  # a command
        self.stderr_lines = ["the sentence"]

    def is_complete(self) -> bool:
        """Whether it was run."""
        return bool(self.done)

    def did_error(self) -> bool:
        """Whether it failed."""
        return self.done == "failed"

    def did_change(self) -> bool:
        """Whether it changed the box."""
        return self.done == "changed"


def log_of(**operations: Meta) -> tuple[run.RunLog, Any]:
    """The log of a run over one box with these operations."""
    box = SimpleNamespace(name="halo1", data={})
    state: Any = SimpleNamespace(
        get_op_order=lambda: list(operations),
        ops=_Ops({h: SimpleNamespace(operation_meta=meta) for h, meta in operations.items()}),
        op_meta={h: SimpleNamespace(names={f"Task | {h}"}) for h in operations},
        failed_hosts=set(),
        activated_hosts=[box],
        inventory=_Inventory([box]),
        is_host_in_limit=lambda box: True,
        check_for_changes=True,
        print_fact_input=False,
        initialised=True,
    )
    return run.RunLog(state, "deploy"), box


class _Inventory(list[Any]):
    """The boxes of pyinfra's state."""

    def get_host(self, name: str) -> Any:
        """The one of that name."""
        return next(box for box in self if box.name == name)


class _Ops(dict[str, Any]):
    """Operations of the one box, whichever box is asked for."""

    def __getitem__(self, box: Any) -> Any:
        return dict(self)


def test_a_dry_run_tells_of_a_box_that_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "dry_run", lambda: True)
    monkeypatch.setitem(FORESEEN, ("halo1", "preflight"), "PORT.TAKEN: port 8188: nginx.")
    log, box = log_of(base=Meta(False), preflight=Meta(True), service=Meta(True))
    told = log.report(box)
    assert [row["outcome"] for row in told.rows] == ["not run", "would fail", "planned"]
    assert told.outcome == "refused"
    assert told.trouble == "would fail: Task | preflight: PORT.TAKEN: port 8188: nginx."
    assert title("deploy", [told, BoxReport("halo2", [])], 1.0, dry=True) == (
        "deploy (dry run): 2 boxes, 1 would fail, 1.0 s"
    )


@pytest.mark.parametrize(
    ("dry", "metas", "outcome"),
    [
        (True, {"a": Meta(False)}, "unchanged"),
        (True, {"a": Meta(True)}, "planned"),
        (True, {}, "unfinished"),
        (False, {}, "unfinished"),
        (False, {"a": Meta(done="changed"), "b": Meta(True)}, "unfinished"),
        (False, {"a": Meta(done="changed"), "b": Meta(done="unchanged")}, "changed"),
        (False, {"a": Meta(done="unchanged")}, "unchanged"),
        (False, {"a": Meta(done="failed"), "b": Meta(True)}, "failed"),
    ],
)
def test_one_word_for_a_box(
    monkeypatch: pytest.MonkeyPatch, dry: bool, metas: dict[str, Meta], outcome: str
) -> None:
    monkeypatch.setattr(run, "dry_run", lambda: dry)
    log, box = log_of(**metas)
    assert log.report(box).outcome == outcome


def test_the_record_and_the_summary_name_what_verify_could_not_look_at(
    cfg: Config,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(run, "dry_run", lambda: False)
    monkeypatch.setattr(run, "toolkit_commit", lambda: "0123456789ab+")
    monkeypatch.setitem(UNKNOWN, "halo1", ["checkouts: The question does not fit."])
    log, _ = log_of(verify=Meta(done="unchanged"))
    log.configs["halo1"] = cfg
    log.finish()
    (path,) = (tmp_path / "runs").glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    record = json.loads(path.read_text())
    assert record["toolkit"] == "0123456789ab+"
    told = record["boxes"]["halo1"]
    assert told["config"] == cfg.digest()
    assert (told["outcome"], told["trouble"]) == ("unchanged", None)
    assert told["unknown"] == ["checkouts: The question does not fit."]
    assert "unknown, verify could not look: checkouts: The question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metas", "failed", "outcome"),
    [
        ({"a": Meta(done="changed"), "b": Meta(done="failed"), "c": Meta(True)}, (), "interrupted"),
        ({"a": Meta(done="changed"), "c": Meta(True)}, (), "interrupted"),
        ({}, (), "interrupted"),
        ({"a": Meta(done="changed")}, (), "changed"),  # all that there was to do
        ({"a": Meta(done="changed"), "c": Meta(True)}, ("halo1",), "failed"),
    ],
)
def test_what_an_interruption_ends_did_not_fail(
    monkeypatch: pytest.MonkeyPatch, metas: dict[str, Meta], failed: tuple[str, ...], outcome: str
) -> None:
    hold = Hold()
    journal = journal_of(monkeypatch, hold)
    log, box = log_of(**metas)
    log.interrupted = True
    log.failed_before = set(failed)
    # What is asked of a box afterwards has no answer.
    monkeypatch.setattr(log.state, "failed_hosts", [box])
    if "b" in metas:
        log.start("halo1", "b")
        journal.begin()
        log.stop("halo1", "b", failed=True)
    report = log.report(box)
    assert report.outcome == outcome
    assert (report.trouble is None) is (outcome != "failed")
    assert [row["outcome"] for row in report.rows if row["operation"] == "Task | b"] == (
        ["interrupted"] if "b" in metas else []
    )
    told = [line["done"]["outcome"] for line in hold.told if "done" in line]
    assert told == (["interrupted"] if "b" in metas else [])


def test_why_a_box_is_not_locked_is_told() -> None:
    assert lock_trouble({"held": True}) is None
    held = {"held": False, "holder": "berta since 12:00", "process": "python3 (process 7)"}
    other = lock_trouble(held)
    assert "another run works on this box (berta since 12:00)" in str(other)
    assert "end what holds its lock on the box: python3 (process 7)" in str(other)
    left = lock_trouble({"held": False, "working": "git (process 7)"})
    assert "had started still works on this box: git (process 7)" in str(left)
    sudo = no_sudo("anna", ["", "anna is not in the sudoers file.", ""])
    assert "sudo does not let anna become root: anna is not in the sudoers file." in sudo
    assert "another run" not in sudo


def test_how_to_log_in_by_hand_is_told_with_the_key() -> None:
    data = {"ssh_hostname": "halo1.local", "ssh_user": "anna", "ssh_port": 22}
    boxes = Inventory(([("agent", data), ("file", data | {"ssh_key": "/home/a/id"})], {}))
    told = [login_words(boxes.get_host(name).data) for name in ("agent", "file")]
    assert told == ["ssh anna@halo1.local", "ssh -i /home/a/id anna@halo1.local"]


def test_how_to_open_comfyui_is_told_as_the_box_is_reached(cfg: Config) -> None:
    box = {"ssh_hostname": "fe80::1", "ssh_user": "anna", "ssh_port": 2222, "ssh_key": "/id"}
    (told,) = way_to_comfyui(cfg, box)
    assert told == (
        "ComfyUI: ssh -p 2222 -i /id -L 8188:127.0.0.1:8188 anna@fe80::1, then http://127.0.0.1:8188"
    )
    (told,) = way_to_comfyui(cfg, {})  # a box of an inventory of somebody's own, as @local
    assert told == "ComfyUI: http://127.0.0.1:8188 on the box"
    shown = cfg.model_copy(update={"comfyui": cfg.comfyui.model_copy(update={"access": "open"})})
    address, warning = way_to_comfyui(shown, box)
    assert address == "ComfyUI: http://[fe80::1]:8188"
    assert "ComfyUI has no password" in warning


def test_data_of_one_run_is_taken_as_it_was_typed_and_for_its_entry_alone() -> None:
    typed = ["release=012345678901", "purge_rocm=true", "comfyui_port=1", "release"]
    assert run_data(typed) == {"release": "012345678901", "purge_rocm": "true"}
    for entry, pair, words in (
        ("rollback", "release=1234567890e1", None),
        ("rollback", "release=123", "release=123 is not valid; write a release's name"),
        ("deploy", "release=012345678901", "--data release is for rollback.py"),
        ("uninstall", "purge_rocm=true", None),
        ("uninstall", "purge_rocm=yes", "write true or false"),
        ("deploy", "purge_rocm=true", "is for uninstall.py; deploy.py has no use for it"),
        ("deploy", "comfyui_port=8190", None),
    ):
        told = wrong_run_data(entry, [pair])
        assert (told is None) if words is None else words in str(told), pair


def test_data_of_one_run_is_there_for_a_box_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What pyinfra makes of a word that reads like a number.
    box = SimpleNamespace(data={"release": 12345678901, "purge_rocm": True})
    monkeypatch.setattr(command_line, "host", box)
    monkeypatch.setattr(command_line, "_TOLD", {})
    assert told_data("release") == "12345678901"  # an inventory of somebody's own
    assert told_data("purge_rocm") == "true"
    note_run_data(["release=012345678901", "comfyui_port=1"])
    assert told_data("release") == "012345678901"
    box.data = {}
    assert told_data("purge_rocm") is None


def test_a_record_that_cannot_be_written_costs_nothing_but_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold = Hold()
    journal = journal_of(monkeypatch, hold)
    journal.begin()
    (tmp_path / "runs").write_text("no folder")
    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    log, _ = log_of(base=Meta(done="changed"))
    log.finish()
    told = capsys.readouterr().err
    assert "halo1: changed; 1 changed" in told
    assert f"record: could not be written: {tmp_path}/runs/" in told
    assert hold.told[-1] == {"end": "changed"}


class Hold:
    """Stands in for the agent: what it is told, and what it says at the end."""

    def __init__(self, *words: dict[str, Any], gone: bool = False) -> None:
        self.told: list[dict[str, Any]] = []
        self.words = words
        self.gone = gone

    def tell(self, **line: Any) -> None:
        """One line of the controller's."""
        if self.gone:
            raise OSError("Socket is closed")
        self.told.append(line)

    def last_words(self) -> tuple[dict[str, Any], ...]:
        """What it said."""
        return self.words


def journal_of(monkeypatch: pytest.MonkeyPatch, hold: Hold) -> Journal:
    """The journal of the one box."""
    journal = Journal(hold.tell, hold.last_words)
    monkeypatch.setitem(JOURNALS, "halo1", journal)
    return journal


def test_an_operation_that_only_other_boxes_have_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = Hold()
    journal = journal_of(monkeypatch, hold)
    log, _ = log_of(base=Meta(), verify=Meta())
    log.start("halo1", "base")
    journal.begin()
    log.stop("halo1", "base")
    # pyinfra tells of it on every box.
    log.start("halo1", "archive")
    log.stop("halo1", "archive")
    log.start("halo1", "verify")
    assert [line["done"]["operation"] for line in hold.told if "done" in line] == ["Task | base"]


def test_the_box_is_told_what_each_operation_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Hold()
    journal = journal_of(monkeypatch, hold)
    log, _ = log_of(base=Meta(), apt=Meta(), verify=Meta())
    log.start("halo1", "base")
    log.stop("halo1", "base")  # it changed nothing
    log.start("halo1", "apt")
    journal.say("fetch http://anna:secret@mirror/apt")
    for _ in range(2):  # commands
        journal.begin()
    log.stop("halo1", "apt")
    log.start("halo1", "verify")
    log.stop("halo1", "verify", failed=True)
    assert journal.end("failed") is None
    says = ["fetch http://mirror/apt"]
    assert all(line["done"].pop("seconds") < 1 for line in hold.told if "done" in line)
    assert hold.told == [
        {"begun": "Task | apt"},
        {"done": {"operation": "Task | apt", "outcome": "changed", "says": says}},
        {"done": {"operation": "Task | verify", "outcome": "failed", "says": []}},
        {"end": "failed"},
    ]


def test_nothing_is_told_of_a_run_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Hold()
    journal = journal_of(monkeypatch, hold)
    log, _ = log_of(base=Meta())
    log.start("halo1", "base")
    log.stop("halo1", "base")
    assert journal.end("unchanged") is None
    assert hold.told == []


def test_a_log_that_the_box_cannot_write_is_named_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = journal_of(monkeypatch, Hold({"unlogged": "Read-only file system"}))
    journal.begin()
    assert journal.end("changed") == "Read-only file system"


def test_a_connection_that_is_gone_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = journal_of(monkeypatch, Hold(gone=True))
    journal.begin()
    journal.stop(1.0, "changed")
    assert journal.end("failed") == "the connection ended"


@pytest.mark.parametrize("planned", [True, False])
def test_after_planning_and_after_anybodys_operation_the_box_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch, planned: bool
) -> None:
    monkeypatch.setitem(ANSWERS, "halo1", Answers())
    ANSWERS["halo1"].get("question", lambda: "before")
    log, _ = log_of(ours=Meta(), theirs=Meta(done="changed"), last=Meta())
    log.state.check_for_changes = planned
    seen = []
    for op_hash in ("ours", "theirs", "last"):
        log.start("halo1", op_hash)
        seen.append(ANSWERS["halo1"].get("question", partial(str, op_hash)))
    assert seen == (["ours", "ours", "last"] if planned else ["before", "before", "last"])
