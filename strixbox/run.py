"""One run over the boxes: the lock on each, the summary at the end, the record under runs/."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click
from gevent import GreenletExit
from paramiko import Transport
from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host, HostData
from pyinfra.api.state import BaseStateCallback, State, StateStage
from pyinfra.context import config, host, state

from strixbox.agent import AGENTS, GONE, Agent, NoAgent
from strixbox.ahead import ask_ahead, remember
from strixbox.answers import ANSWERS, LOST, Answers, forget
from strixbox.config import Config
from strixbox.inventory import Boxes
from strixbox.journal import JOURNALS, Journal
from strixbox.layout import CHANGES, RUN_LOCK, WRITING
from strixbox.operations.base import FORESEEN
from strixbox.programs import CONNECTION_ENDED
from strixbox.upstream import improve
from strixbox.waves import Wave, part
from strixbox.waves import plan as waves_of

ROOT = Path(__file__).parent.parent
# Seconds that a run waits for what an earlier one, whose connection was cut, left working.
PATIENCE = 300
ALIVE = 15  # seconds between two signs of life; a box that misses four of them is gone


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
        self.refused: dict[str, str] = {}
        self.listens = False  # to pyinfra's callbacks
        self.interrupted = False
        self.failed_before: set[str] = set()  # boxes that had failed when it was interrupted
        self.cut: set[tuple[str, str]] = set()  # operations that its end made fail
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

        Also one of somebody else's, such as server.shell.
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

    def operations(self, box: Host) -> list[dict[str, Any]]:
        """Every operation that was planned for a box, in order, with its outcome."""
        rows = []
        for op_hash in self.state.get_op_order():
            if op_hash not in self.state.ops[box]:
                continue
            meta = self.state.ops[box][op_hash].operation_meta
            row: dict[str, Any] = {"operation": self.name(op_hash)}
            foreseen = FORESEEN.get((box.name, op_hash))
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
            else:
                row["outcome"] = "changed" if meta.did_change() else "unchanged"
            row["seconds"] = round(self.seconds.get((box.name, op_hash), 0.0), 3)
            rows.append(row)
        return rows

    def finish(self) -> None:
        """Print the summary and write the record; called once, however the run ended."""
        if not self.state.initialised:
            return  # no inventory, and so no box, came of it
        boxes = {box.name: self.operations(box) for box in self._boxes()}
        record = {
            "entry": self.entry,
            "wave": self.wave.name if self.wave else None,
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.began, 3),
            "toolkit": toolkit_commit(),
            "dry": dry_run(),
            "interrupted": self.interrupted,
            "boxes": {
                name: {
                    "outcome": self.outcome(name, rows),
                    "config": self.configs[name].digest() if name in self.configs else None,
                    "stack": self.configs[name].stack if name in self.configs else None,
                    "trouble": self.trouble(name, rows),
                    "operations": rows,
                }
                for name, rows in boxes.items()
            },
        }
        path = self._write(record)
        for name, rows in boxes.items():
            if self.outcome(name, rows) == "unchanged":
                remember(self.entry, name)
        unlogged = {
            name: JOURNALS[name].end(self.outcome(name, rows))
            for name, rows in boxes.items()
            if name in JOURNALS
        }
        title = f"{self.wave.title}, " if self.wave else ""
        click.echo(f"\n--> {title}{summary_title(record)}", err=True)
        for name, rows in boxes.items():
            for line in self._lines(name, rows):
                click.echo(f"    {line}", err=True)
            if unlogged.get(name):
                told = f"  {CHANGES} lacks changes of this run: it could not be written"
                click.echo(f"    {told} ({unlogged[name]})", err=True)
        if self.interrupted:
            click.echo("    interrupted; run the same command again to finish", err=True)
        click.echo(f"    record: {path.relative_to(ROOT)}", err=True)
        if self.pipe:
            with suppress(BrokenPipeError), self.pipe:
                json.dump(record, self.pipe)

    def _boxes(self) -> list[Host]:
        wanted = [box for box in self.state.inventory if self.state.is_host_in_limit(box)]
        return sorted(wanted, key=lambda box: str(box.name))

    def _write(self, record: dict[str, Any]) -> Path:
        folder = ROOT / "runs"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{self.id}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o600)
        return path

    def outcome(self, box: str, rows: list[dict[str, Any]]) -> str:
        """One word for a box: failed, interrupted, refused, planned, changed or the like.

        ``refused`` is a dry run's word for a box that the run would fail on; ``unfinished`` is one
        that was left out of the rest of the run.
        """
        outcomes = {row["outcome"] for row in rows} or {"not run"}
        failed = {host.name for host in self.state.failed_hosts}
        if self.interrupted:
            failed = self.failed_before  # the others failed by its end
        if box in failed or box in self.refused or "failed" in outcomes:
            return "failed"
        if self.interrupted and outcomes - {"changed", "unchanged"}:
            return "interrupted"
        if dry_run() and "would fail" in outcomes:
            return "refused"
        if "planned" in outcomes and dry_run():
            return "planned"
        if outcomes & {"planned", "not run", "would fail"} and not (dry_run() and rows):
            return "unfinished"
        return "changed" if "changed" in outcomes else "unchanged"

    def trouble(self, box: str, rows: list[dict[str, Any]]) -> str | None:
        """Why a box failed, in the sentence that its operation gave."""
        host = self.state.inventory.get_host(box)
        if self.outcome(box, rows) == "interrupted":
            return None
        if host not in self.state.activated_hosts:
            return (
                f"not reached: pyinfra's words are above; see that the box is on and that"
                f" '{ssh_words(host.data)}' logs in"
            )
        if box in self.refused:
            return self.refused[box]
        for row in rows:
            if row["outcome"] == "failed":
                return f"{row['operation']}: {row['says']}"
            if row["outcome"] == "would fail" and dry_run():
                return f"would fail: {row['operation']}: {row['says']}"
        if self.outcome(box, rows) == "failed":
            return "a question to the box was not answered; the lines above say why"
        return None

    def _lines(self, box: str, rows: list[dict[str, Any]]) -> list[str]:
        count = {kind: sum(row["outcome"] == kind for row in rows) for kind in _KINDS}
        took = sum(row["seconds"] for row in rows)
        told = ", ".join(f"{n} {kind}" for kind, n in count.items() if n) or "nothing was run"
        lines = [f"{box}: {self.outcome(box, rows)}; {told}; {took:.1f} s"]
        trouble = self.trouble(box, rows)
        if trouble:
            lines += [f"  {trouble}", "  next: mend that, then run the same command again"]
        elif self.outcome(box, rows) not in _NOT_DONE and box in self.configs:
            lines += [f"  {line}" for line in self._next(box, rows)]
        return lines

    def _next(self, box: str, rows: list[dict[str, Any]]) -> list[str]:
        cfg = self.configs[box]
        data = self.state.inventory.get_host(box).data
        if dry_run():
            planned = [row["operation"] for row in rows if row["outcome"] == "planned"]
            return [f"would change: {name}" for name in planned] or ["nothing would change"]
        if self.entry in ("rollback", "uninstall"):
            return []  # what runs now is not what the settings say
        if cfg.comfyui.access == "open":
            return [
                f"ComfyUI: http://{data.ssh_hostname}:{cfg.comfyui.port}",
                "WARNING: comfyui_access is open: whoever reaches this address can run code on the"
                " box; ComfyUI has no password. Set it to local.",
            ]
        port = f" -p {data.ssh_port}" if data.ssh_port != 22 else ""
        return [
            f"ComfyUI: ssh{port} -L {cfg.comfyui.port}:127.0.0.1:{cfg.comfyui.port}"
            f" {data.ssh_user}@{data.ssh_hostname}, then http://127.0.0.1:{cfg.comfyui.port}"
        ]


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


# Entries that change nothing.
READ_ONLY = frozenset({"verify"})
_KINDS = ("changed", "unchanged", "failed", "interrupted", "would fail", "planned", "not run")
_NOT_DONE = frozenset({"unfinished", "interrupted"})
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
    sentence = idle(entry, words, terminal=sys.stdin.isatty())
    if sentence is not None:
        click.echo(f"No box was touched: {sentence}.", err=True)
        raise SystemExit(2)
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


def idle(entry: str, words: Mapping[str, Any], *, terminal: bool) -> str | None:
    """Why a run would not do what it is for, and the mend; None where it would.

    pyinfra (3.10) ends with 0 after it has only planned, and after --no-wait whatever failed.

    + words: those of the command line, by pyinfra's names
    + terminal: whether there is one to ask on
    """
    if words.get("debug_facts") or words.get("debug_operations"):
        return None
    if words.get("no_wait"):
        return "with --no-wait pyinfra ends with 0 also where boxes fail; leave it out"
    yes, dry, told_as_json = (words.get(name) for name in ("yes", "dry", "json_output"))
    if entry in READ_ONLY:
        if dry:
            return f"a dry run of {entry}.py looks at nothing; leave --dry out: it changes nothing"
        if told_as_json and not yes:
            return f"{entry}.py --json looks at nothing without -y; add it: nothing is changed"
        return None
    if yes or dry or (terminal and not told_as_json):
        return None
    why = "with --json nothing is asked" if told_as_json else "there is no terminal to ask on"
    return (
        f"{why} before boxes are changed; add -y to change them without asking, or --dry to see"
        " what would change"
    )


def answer_questions(entry: str) -> None:
    """Have pyinfra not ask before what changes nothing, and tell of a question without an answer.

    pyinfra 3.10 asks in one function, which no setting but -y reaches, ends with 0 where the answer
    is no, and with a traceback where the terminal is at its end (Ctrl-D).
    """
    # Not above: pyinfra_cli patches the standard library with gevent as soon as it is imported.
    from pyinfra_cli import cli

    ask = cli._do_confirm

    def confirm(question: str) -> bool:
        executing = state.current_stage == StateStage.Execute
        if entry in READ_ONLY and not executing:
            return True
        told = "run the same command again to finish"
        if not executing:
            told = "no box was changed; press Enter to go on, or add -y to be asked nothing"
        try:
            if ask(question):
                return True
        except EOFError:
            click.echo(f"\n--> Nobody answered: {told}.", err=True)
            raise SystemExit(2) from None
        click.echo(f"\n--> The answer was no: {told}.", err=True)
        raise SystemExit(1)

    cli._do_confirm = confirm


def begin(cfg: Config, entry: str = "deploy") -> None:
    """Called once for each box, after its connection: lock it and note its settings.

    A box that another run works on is failed with a sentence; the other boxes go on.
    """
    improve()
    log = _log(state, entry)
    log.configs[host.name] = cfg
    sentence = take_box(log, cfg, entry)
    if sentence is not None:
        log.refused[host.name] = sentence
        logger.error(f"{host.print_prefix}{sentence}")
        # The host itself: pyinfra's `host` names another one, or none, by the time of the summary.
        state.fail_hosts({state.inventory.get_host(host.name)})
        # Ends the planning of this box alone; any other exception would end it for all.
        raise GreenletExit


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
    signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C ends with 130; pyinfra 3.10 ends with 0, as if all had been done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the record is written in peace
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # of connections cut by the end
    log = _LOGS[0]
    log.interrupted = True
    log.failed_before = (
        {box.name for box in log.state.failed_hosts} if log.state.initialised else set()
    )
    LOST.update(dict.fromkeys(AGENTS, "the run was interrupted"))
    sys.exit(130)


def take_box(log: RunLog, cfg: Config, entry: str) -> str | None:
    """Have the box's agent, and hold the box's lock by it; None, or why not.

    Only boxes that are reached by ssh have an agent and a lock: a local run has no channel.
    """
    client = getattr(host.connector, "client", None)
    if client is None:
        return None
    if host.name not in AGENTS:  # there is one in a second entry point of the same run
        sentence = meet(client.get_transport()) or (
            None if dry_run() else take_lock(log, AGENTS[host.name])
        )
        if sentence is not None:
            return sentence
        log.ask_ahead(host.name)
    if not dry_run() and entry not in READ_ONLY and host.name not in JOURNALS:
        keep_log(log, AGENTS[host.name], cfg, entry)
    return None


def meet(transport: Transport | None) -> str | None:
    """Have the box's agent; None, or why there is none."""
    if transport is None or not transport.is_active():
        return CONNECTION_ENDED
    no_delay(transport)
    sentence = start_agent(transport)
    if sentence is not None:
        return sentence if transport.is_active() else CONNECTION_ENDED
    ANSWERS[host.name] = Answers(AGENTS[host.name].drop)
    return None


def no_delay(transport: Transport) -> None:
    """Send each command at once, and notice a box that is gone.

    paramiko leaves Nagle on, 40 ms a command on a LAN. It waits for ever for the answer of a box
    that lost its power, and pyinfra with it, for all boxes.
    """
    transport.set_keepalive(ALIVE)
    if isinstance(transport.sock, socket.socket):  # a jump host's is a channel
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000 * ALIVE)


def start_agent(transport: Transport) -> str | None:
    """Start the box's agent, for as long as the connection lives; None, or why it did not."""
    box = state.inventory.get_host(host.name)
    with contextlib.suppress(NoAgent):
        AGENTS[host.name] = Agent.start(box, transport)
        return None
    # Asks for sudo's password where one is needed; the raw channel of the agent could not.
    try:
        allowed, said = host.run_shell_command(StringCommand("true"), _sudo=True)
    except (EOFError, OSError):
        return no_sudo(
            str(host.data.ssh_user), ["it wants a password, and there is no terminal to ask on"]
        )
    if not allowed:
        return no_sudo(str(host.data.ssh_user), said.stderr_lines)
    try:
        AGENTS[host.name] = Agent.start(box, transport)
    except NoAgent as words:
        told = last_line(str(words).splitlines())
        return f"python3 does not start on the box: {told}; see that it is installed, run again"
    return None


def take_lock(log: RunLog, agent: Agent) -> str | None:
    """Hold the box's lock for as long as the connection lives; None, or why it is not held."""
    holder = f"{getpass.getuser()} on {socket.gethostname()} since {log.started:%H:%M:%S} UTC"
    order = {"run": RUN_LOCK, "writing": WRITING, "holder": holder, "patience": PATIENCE}
    try:
        agent.tell(lock=order)
        while "waiting" in (told := agent.hear()):
            logger.info(
                f"{host.print_prefix}an earlier run was cut, and what it started still works:"
                f" {told['waiting']}; waiting up to {PATIENCE} s for its end"
            )
    except GONE:
        return f"the box's lock {RUN_LOCK} could not be taken: {last_line(agent.errors())}"
    return lock_trouble(told)


def keep_log(log: RunLog, agent: Agent, cfg: Config, entry: str) -> None:
    """Have the box log what this run changes."""
    about = {
        "run": log.id,
        "who": f"{getpass.getuser()}@{socket.gethostname()}",
        "entry": entry,
        "toolkit": toolkit_commit(),
        "config": cfg.digest(),
    }
    with suppress(*GONE):  # the next question tells of a connection that is gone
        agent.tell(log=CHANGES, about=about)
    JOURNALS[host.name] = Journal(agent.tell, agent.last_words)


def no_sudo(user: str, said: list[str]) -> str:
    """The sentence for an account that may not become root."""
    return (
        f"sudo does not let {user} become root: {last_line(said)}; see that"
        f" 'sudo -v' works for {user} on the box (group sudo, the password), then run again"
    )


def lock_trouble(told: dict[str, Any]) -> str | None:
    """Why the lock is not held, from the agent's answer."""
    if told["held"]:
        return None
    if "working" in told:
        return (
            f"what an earlier run, which was cut, had started still works on this box:"
            f" {told['working']}; wait for its end, or end it, and run again"
        )
    return (
        f"another run works on this box ({told['holder']}); wait for its end and run again; if that"
        f" run is gone, end what holds its lock on the box: {told['process']}"
    )


def ssh_words(data: HostData) -> str:
    """What logs in to a box by hand, the way that pyinfra does."""
    key = f" -i {data.ssh_key}" if data.get("ssh_key") else ""
    return f"ssh -p {data.ssh_port}{key} {data.ssh_user}@{data.ssh_hostname}"


def last_line(lines: list[str]) -> str:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def dry_run() -> bool:
    """Whether pyinfra was called with --dry."""
    context = click.get_current_context(silent=True)
    return bool(context and context.params.get("dry")) or "--dry" in sys.argv


@cache
def ask_git() -> subprocess.Popen[str] | None:
    """Start git, which takes a while to tell whether the checkout is edited; None without git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.Popen(
            [*git, "--exclude=*"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None


@cache
def toolkit_commit() -> str:
    """Commit of this checkout, with ``+`` where it has local edits; ``unknown`` without git."""
    git = ask_git()
    return (git.communicate()[0].strip() if git else "") or "unknown"


def summary_title(record: dict[str, Any]) -> str:
    """First line of the summary."""
    boxes = record["boxes"]
    outcomes = [box["outcome"] for box in boxes.values()]
    words = {"failed": "failed", "refused": "would fail"}
    told = [f", {outcomes.count(o)} {word}" for o, word in words.items() if o in outcomes]
    what = f"{record['entry']}{' (dry run)' if record['dry'] else ''}"
    count = f"{len(boxes)} box{'es' if len(boxes) != 1 else ''}"
    return f"{what}: {count}{''.join(told)}, {record['seconds']} s"


def _would_change(meta: Any) -> bool:
    return bool(meta._maybe_is_change)
