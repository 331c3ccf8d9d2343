"""One run over the boxes: how it begins on each, what becomes of it, and how it ends."""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

import click
from gevent import get_hub
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import BaseStateCallback, State
from pyinfra.context import config, host, state

from strixbox.agent import AGENTS
from strixbox.ahead import ask_ahead, remember
from strixbox.answers import forget
from strixbox.command_line import (
    READ_ONLY,
    answer_questions,
    dry_run,
    idle,
    note_run_data,
    wrong_run_data,
)
from strixbox.config import Config
from strixbox.connect import hold_box, keep_log
from strixbox.inventory import ROOT, Boxes
from strixbox.journal import JOURNALS
from strixbox.layout import CHANGES
from strixbox.lost import LOST
from strixbox.operations.base import FORESEEN, REFUSED, UNKNOWN, refuse
from strixbox.report import BoxReport, Row, login_words, title, way_to_comfyui
from strixbox.toolkit import ask_git, toolkit_commit
from strixbox.upstream import improve
from strixbox.waves import Wave, part
from strixbox.waves import plan as waves_of


class RunLog:
    """Times every operation on every box; at the end tells and records what became of them."""

    def __init__(
        self, current: State, entry: str, wave: Wave | None = None, pipe: IO[str] | None = None
    ) -> None:
        self.state = current  # without an inventory until pyinfra has read inventory.py
        self.entry = entry
        self.wave = wave
        self.pipe = pipe  # to the process that waits for this wave
        self.started = datetime.now(UTC)
        self.began = time.monotonic()
        self.configs: dict[str, Config] = {}
        self.listens = False  # to pyinfra's callbacks
        self.interrupted = False
        self.failed_before: set[str] = set()  # boxes that had failed when it was interrupted
        self.cut: set[tuple[str, str]] = set()  # operations that failed only because of that
        self.last: dict[str, str] = {}  # operation by box
        self.begun: dict[tuple[str, str], float] = {}
        self.seconds: dict[tuple[str, str], float] = {}

    @property
    def id(self) -> str:
        """Name of the run: that of its record, and in the logs of the boxes."""
        return f"{self.started:%Y%m%dT%H%M%S}Z-{os.getpid()}"

    def start(self, box: str, op_hash: str) -> None:
        """One operation begins on one box: start its clock.

        pyinfra tells of every operation on every box, also of one that other boxes have alone.
        """
        self.begun[box, op_hash] = time.monotonic()
        if not self._has(box, op_hash):
            return
        self._forget(box, op_hash)
        if box in JOURNALS:
            JOURNALS[box].start(self.name(op_hash))

    def stop(self, box: str, op_hash: str, *, failed: bool = False) -> None:
        """It ended: stop the clock, and tell the box's own log of what it changed."""
        seconds = self.seconds[box, op_hash] = time.monotonic() - self.begun[box, op_hash]
        cut = failed and self.interrupted
        if cut:
            self.cut.add((box, op_hash))
        if box in JOURNALS and self._has(box, op_hash):
            outcome = "interrupted" if cut else "failed" if failed else "changed"
            JOURNALS[box].stop(seconds, outcome)

    def _has(self, box: str, op_hash: str) -> bool:
        """Whether an operation was planned for a box."""
        return op_hash in self.state.ops[self.state.inventory.get_host(box)]

    def _forget(self, box: str, op_hash: str) -> None:
        """Drop what was answered while planning, or before another operation changed the box.

        Also after operations that are not ours, such as server.shell.
        """
        before = self.last.get(box)
        self.last[box] = op_hash
        operations = self.state.ops[self.state.inventory.get_host(box)]
        if before is not None and operations[before].operation_meta.executed:
            forget(box)
        elif before is None and self.state.check_for_changes:  # as -y has pyinfra not do
            forget(box)
            self.ask_ahead(box)

    def ask_ahead(self, box: str) -> None:
        """Ask the box what the last run asked; not where the questions shall be seen (-vv)."""
        if not self.state.print_fact_input:
            ask_ahead(self.entry, box)

    def name(self, op_hash: str) -> str:
        """Name of an operation."""
        (name, *_) = self.state.op_meta[op_hash].names
        return str(name)

    def rows(self, box: Host) -> list[Row]:
        """Every operation that was planned for a box, in order, with its outcome."""
        rows: list[Row] = []
        for op_hash in self.state.get_op_order():
            if op_hash not in self.state.ops[box]:
                continue
            meta = self.state.ops[box][op_hash].operation_meta
            foreseen = FORESEEN.get((box.name, op_hash))
            row: Row = {
                "operation": self.name(op_hash),
                "outcome": "unchanged",
                "seconds": round(self.seconds.get((box.name, op_hash), 0.0), 3),
            }
            if not meta.is_complete() and foreseen:
                row["outcome"] = "would fail"
                row["says"] = foreseen
            elif not meta.is_complete():
                row["outcome"] = "planned" if _would_change(meta) else "not run"
            elif (box.name, op_hash) in self.cut:
                row["outcome"] = "interrupted"
            elif meta.did_error():
                row["outcome"] = "failed"
                row["says"] = meta.stderr_lines[-1] if meta.stderr_lines else ""
            elif meta.did_change():
                row["outcome"] = "changed"
            rows.append(row)
        return rows

    def report(self, box: Host) -> BoxReport:
        """How the run ended on a box."""
        cfg = self.configs.get(box.name)
        # What an interruption ends fails by that alone.
        failed = {one.name for one in self.state.failed_hosts}
        # After these, what runs is not what the settings say.
        as_set = self.entry not in ("rollback", "uninstall")
        return BoxReport(
            name=box.name,
            rows=self.rows(box),
            config=cfg,
            refused=REFUSED.get(box.name),
            failed=box.name in (self.failed_before if self.interrupted else failed),
            reached=box in self.state.activated_hosts,
            interrupted=self.interrupted,
            dry=dry_run(),
            login=login_words(box.data),
            unknown=tuple(UNKNOWN.get(box.name, ())),
            following=way_to_comfyui(cfg, box.data) if cfg and as_set else (),
        )

    def finish(self) -> None:
        """Print the summary and write the record; called once, however the run ended."""
        if not self.state.initialised:
            return  # no inventory, and so no box, came of it
        reports = [self.report(box) for box in self._boxes()]
        seconds = round(time.monotonic() - self.began, 3)
        record = {
            "entry": self.entry,
            "wave": self.wave.name if self.wave else None,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": seconds,
            "toolkit": toolkit_commit(),
            "dry": dry_run(),
            "interrupted": self.interrupted,
            "boxes": {report.name: report.record() for report in reports},
        }
        for report in reports:
            if report.outcome == "unchanged":
                remember(self.entry, report.name)
        unlogged = {
            report.name: JOURNALS[report.name].end(report.outcome)
            for report in reports
            if report.name in JOURNALS
        }
        wave = f"{self.wave.title}, " if self.wave else ""
        click.echo(f"\n--> {wave}{title(self.entry, reports, seconds, dry=dry_run())}", err=True)
        for report in reports:
            for line in report.lines():
                click.echo(f"    {line}", err=True)
            if unlogged.get(report.name):
                told = f"  {CHANGES} lacks changes of this run: it could not be written"
                click.echo(f"    {told} ({unlogged[report.name]})", err=True)
        if self.interrupted:
            click.echo("    interrupted; run the same command again to finish", err=True)
        if self.pipe:
            with suppress(BrokenPipeError), self.pipe:
                json.dump(record, self.pipe)
        self._write(json.dumps(record, indent=1) + "\n")

    def _boxes(self) -> list[Host]:
        wanted = [box for box in self.state.inventory if self.state.is_host_in_limit(box)]
        return sorted(wanted, key=lambda box: str(box.name))

    def _write(self, text: str) -> None:
        path = RUNS / f"{self.id}.json"
        try:
            RUNS.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            # Such as a folder that another account made: what was told above is true all the same.
            told = f"could not be written: {path}: {error.strerror}; see whose {RUNS} is"
            click.echo(f"    record: {told}", err=True)
        else:
            click.echo(f"    record: {path.relative_to(ROOT)}", err=True)


class Clock(BaseStateCallback):
    """pyinfra's callbacks, handed on to the log of their run."""

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        """One operation begins on one box."""
        _LOGS[0].start(host.name, op_hash)

    @staticmethod
    def operation_host_success(
        state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        """It ended well."""
        _LOGS[0].stop(host.name, op_hash)

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """It failed."""
        _LOGS[0].stop(host.name, op_hash, failed=True)


RUNS = ROOT / "runs"
# pyinfra runs once in a process, and deploy.py once in it for each box.
_LOGS: list[RunLog] = []


def expect(current: State, boxes: Boxes) -> Boxes:
    """Called by inventory.py, before any connection: a run that reaches no box is told as well.

    A run that would do nothing and end with 0 is refused. The boxes of this process are returned:
    all, or those of its wave.
    """
    context = click.get_current_context(silent=True)
    words = context.params if context else {}
    entries = words.get("operations", ())
    if not entries or not all(str(entry).endswith(".py") for entry in entries):
        return boxes  # debug-inventory, exec, fact: nothing is deployed
    entry = "+".join(Path(entry).stem for entry in entries)
    sentence = idle(entry, words, terminal=sys.stdin.isatty()) or wrong_run_data(
        entry, words.get("data", ())
    )
    if sentence is not None:
        click.echo(f"No box was touched: {sentence}.", err=True)
        raise SystemExit(2)
    note_run_data(words.get("data", ()))
    answer_questions(entry)
    # One box's trouble is its own. pyinfra, where it asks (no -y), would stop all boxes at the
    # first failure (fail percent 0) and ask once more.
    if words.get("fail_percent") is None:
        config.FAIL_PERCENT = None
    if words.get("dry"):
        # With -y pyinfra would skip what --dry is for.
        current.check_for_changes = True
    waves = waves_of(boxes, words)
    wave, pipe = part(waves) if waves else (None, None)
    # Made after the parting: the second wave begins when the first has ended.
    _keep(RunLog(current, entry, wave, pipe))
    ask_git()
    return wave.boxes if wave else boxes


def begin(cfg: Config, entry: str = "deploy") -> None:
    """Called once for each box, after its connection: lock it and note its settings.

    A box that another run works on is failed with a sentence; the other boxes go on.
    """
    improve()
    log = _log(state, entry)
    log.configs[host.name] = cfg
    new = host.name not in AGENTS  # no second entry point of the same run
    sentence = hold_box(f"{log.started:%H:%M:%S} UTC", locked=not dry_run())
    if sentence is None and host.name in AGENTS:
        if new:
            log.ask_ahead(host.name)
        if not dry_run() and entry not in READ_ONLY and host.name not in JOURNALS:
            keep_log(log.id, cfg, entry)
    if sentence is not None:
        refuse(sentence)


def _log(current: State, entry: str) -> RunLog:
    if not _LOGS:  # an inventory of the user's own
        _keep(RunLog(current, entry))
    log = _LOGS[0]
    if not log.listens:
        log.listens = True
        current.add_callback_handler(Clock())
    return log


def _keep(log: RunLog) -> None:
    """From here on the run is told of at its end, whatever ends it."""
    _LOGS.append(log)
    atexit.register(log.finish)
    for number in ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupted)


# Ctrl-C, a service manager's or a colleague's end, and a terminal that was closed.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C ends with 130; pyinfra 3.10 ends with 0, as if all had been done."""
    for one in ENDS:
        signal.signal(one, signal.SIG_IGN)  # the record is written in peace
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # of connections cut by the end
    log = _LOGS[0]
    log.interrupted = True
    log.failed_before = (
        {box.name for box in log.state.failed_hosts} if log.state.initialised else set()
    )
    LOST.update(dict.fromkeys(AGENTS, "the run was interrupted"))
    # Wherever it comes: in a thread of paramiko's, a greenlet here, an exit would end that alone.
    get_hub().handle_system_error(SystemExit, SystemExit(128 + number))


def _would_change(meta: OperationMeta) -> bool:
    return bool(meta._maybe_is_change)
