"""Answers a run's questions, holds the box's lock for it, and logs what it changes.

One process for as long as the ssh channel lives that it was started in: a controller that was
killed leaves no stale lock behind. What that controller had started may work on, though: every
command that writes holds a second lock, shared with its children, and a new run waits for it.

A question is a program of this directory. They are answered one after the other by a worker, a
process with neither the lock nor the log, in which each program finds what those before it have
imported. One that fails, crashes, or leaves the worker with other accounts, umask or current
directory, takes the worker with it, and the next question has another. So a question costs a few
lines of Python instead of a channel, sudo and the start of an interpreter.

What the run changes is logged here and not by the controller's own commands, so that a run that is
cut is logged as well.

Of the standard library this imports what starts fast: dataclasses alone takes as long as Python.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import io
import json
import os
import select
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from types import CodeType, ModuleType
from typing import Any, NoReturn

# Before each line of a worker's: whether it answers the next question too.
MORE, LAST = b"+", b"-"


def say(**answer: Any) -> None:
    """One line for the controller."""
    print(json.dumps(answer), flush=True)


class Worker:
    """A process that answers questions, one at a time."""

    def __init__(self) -> None:
        orders, self.orders = os.pipe()
        self.answers, answers = os.pipe()
        self.known: set[str] = set()  # programs whose text it has
        self.number: int | None = None  # of the question under way
        self.rest = b""
        self.pid = os.fork()
        if self.pid == 0:
            serve(orders, answers)
        for descriptor in (orders, answers):
            os.close(descriptor)
        with suppress(OSError):  # also here, so that it is one whenever the channel ends
            os.setpgid(self.pid, self.pid)

    def ask(self, question: dict[str, Any], source: str) -> None:
        """Have it answer; nothing else is under way."""
        self.number = question["id"]
        name = question["program"]
        text = {} if name in self.known else {"source": source}
        self.known.add(name)
        with suppress(BrokenPipeError):  # it died; ``answered`` tells
            write(self.orders, json.dumps(question | text).encode() + b"\n")

    def answered(self) -> bool:
        """Hand on what it says; False where it has ended."""
        data = os.read(self.answers, 1 << 20)
        self.rest += data
        if not self.rest.endswith(b"\n"):
            return bool(data)
        last, line = self.rest[:1] == LAST, self.rest[1:]
        write(1, line)
        self.rest = b""
        self.number = None
        return not last

    def end(self) -> None:
        """It has ended: tell so of the question that it leaves, if any."""
        for descriptor in (self.orders, self.answers):
            os.close(descriptor)
        with suppress(ProcessLookupError):  # with what its last question had started
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self.number is not None:
            say(id=self.number, code=code or 1, out="", err="")


def write(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(descriptor, data) :]


def serve(orders: int, answers: int) -> NoReturn:
    """The worker: answer until the agent is gone, or until a question was the last."""
    with suppress(BaseException):
        os.setpgid(0, 0)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        # Above all the lock, which a question that hangs would keep.
        low, high = sorted((orders, answers))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, 256)
        programs: dict[str, CodeType] = {}
        before = state()
        with open(orders, encoding="utf-8") as stream:
            for line in stream:
                question = json.loads(line)
                name = question["program"]
                if "source" in question:
                    programs[name] = compile(question["source"], name, "exec", dont_inherit=True)
                told = answer(programs[name], question["query"])
                last = told["code"] != 0 or state() != before
                text = json.dumps({"id": question["id"]} | told).encode()
                write(answers, (LAST if last else MORE) + text + b"\n")
                if last:
                    break
    os._exit(0)


def state() -> tuple[Any, ...]:
    """What a question must leave as it was: accounts, umask, current directory."""
    umask = os.umask(0)
    os.umask(umask)
    return os.getresuid(), os.getresgid(), os.getgroups(), umask, os.getcwd()


def answer(program: CodeType, query: str) -> dict[str, Any]:
    """Run a program as ``python3 -c program query`` would."""
    outputs = (io.StringIO(), io.StringIO())
    code: object = 0
    sys.argv = ["-c", query]
    main = sys.modules["__main__"] = ModuleType("__main__")
    with redirect_stdout(outputs[0]), redirect_stderr(outputs[1]):
        try:
            exec(program, main.__dict__)  # noqa: S102 - the controller's own
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
    out, err = (output.getvalue() for output in outputs)
    return {
        "code": code if isinstance(code, int) else int(code is not None),
        "out": out,
        "err": err,
    }


def taken(descriptor: int) -> bool:
    """Take the lock alone; False where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def users(path: str) -> str:
    """Programs that have the file open, with their process numbers."""
    found: dict[str, str] = {}
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        pid = descriptor.split("/")[2]
        try:
            if os.readlink(descriptor) != path or int(pid) == os.getpid():
                continue
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                found[pid] = stream.read().strip()
        except OSError:
            continue
    # flock(1) only waits for the program that it started.
    working = {pid: name for pid, name in found.items() if name != "flock"} or found
    return ", ".join(f"{name} (process {pid})" for pid, name in working.items()) or "a program"


def hold(order: dict[str, Any]) -> None:
    """``{"run", "writing", "holder", "patience"}``: two lock files, who takes the lock, seconds.

    Says ``{"waiting": programs}`` while an earlier run's work is awaited, then ``{"held": true}``,
    or ``{"held": false}`` with the ``holder`` or who is ``working``.
    """
    os.makedirs(os.path.dirname(order["run"]), mode=0o711, exist_ok=True)
    run = os.open(order["run"], os.O_RDWR | os.O_CREAT, 0o600)
    if not taken(run):
        holder = os.pread(run, 500, 0).decode(errors="replace").strip()
        say(held=False, holder=holder, process=users(order["run"]))
        return
    os.ftruncate(run, 0)
    os.pwrite(run, order["holder"].encode(), 0)
    writing = os.open(order["writing"], os.O_RDWR | os.O_CREAT, 0o600)
    end = time.monotonic() + order["patience"]
    told = False
    while not taken(writing):
        if time.monotonic() > end:
            say(held=False, working=users(order["writing"]))
            return
        if not told:
            say(waiting=users(order["writing"]))
            told = True
        if select.select([0], [], [], 0.2)[0]:
            sys.exit(75)  # the controller, which says nothing meanwhile, is gone
    os.close(writing)
    say(held=True)  # `run` stays open, and with it locked


class Log:
    """An append-only file of JSON lines, each of which can be read alone.

    A log that cannot be written stops no run: the controller is told so, once.
    """

    def __init__(self, path: str, about: dict[str, Any]) -> None:
        self.path = path
        self.about = about  # what every line tells of the run
        self.begun: dict[str, str] = {}  # what the run is about to change
        self.changed = False
        self.told = False

    def heed(self, line: dict[str, Any]) -> None:
        """What the controller tells.

        ``{"begun": operation}`` is logged only if nothing follows it; ``{"done": entry}`` is logged
        at once; ``{"end": outcome}`` is logged where the run changed anything, with what it had
        begun and not done.
        """
        if "begun" in line:
            self.begun = {"operation": line["begun"]}
            self.changed = True
        elif "done" in line:
            self.begun = {}
            self.changed = True
            self.add(line["done"])
        else:
            self.end(self.begun | {"outcome": line["end"]})

    def cut(self) -> None:
        """The channel ended; a run that has told no end before was cut."""
        self.end(self.begun | {"outcome": "cut"})

    def end(self, entry: dict[str, Any]) -> None:
        """The last line of a run, where it changed anything."""
        if self.changed:
            self.add(entry)
        self.changed = False

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line and have it on the disk."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": stamp} | self.about | entry) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            if not self.told:
                say(unlogged=error.strerror)
            self.told = True

    def _append(self, line: bytes) -> None:
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a full disk or a power cut tore the line before
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Agent:
    """What the controller sends, one JSON line each, is done as it comes.

    ``{"id", "program", "query"}`` asks; the first time ``source`` is the program's text. The answer
    has the ``id``, the exit ``code``, and what was printed as ``out`` and ``err``. ``{"drop"}``
    takes back the questions that no worker is at yet. ``{"lock"}`` holds the lock, and ``{"log"}``
    with a path and what is ``about`` the run opens the log for the lines that follow.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.waiting: list[dict[str, Any]] = []  # questions
        self.worker: Worker | None = None
        self.log: Log | None = None

    def run(self) -> None:
        """Serve until the channel ends; what is under way then ends with it."""
        rest = b""
        while True:
            answers = [self.worker.answers] if self.worker else []
            ready, _, _ = select.select([0, *answers], [], [])
            if 0 in ready:
                data = os.read(0, 1 << 17)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.heed(json.loads(line))
            if self.worker and self.worker.answers in ready and not self.worker.answered():
                self.worker.end()
                self.worker = None
            self.ask()

    def ask(self) -> None:
        """Have the next question answered, where none is under way."""
        while self.waiting and (self.worker is None or self.worker.number is None):
            question = self.waiting.pop(0)
            try:
                self.worker = self.worker or Worker()
            except OSError as error:  # no memory, no process
                say(id=question["id"], code=1, out="", err=f"{error}\n")
            else:
                self.worker.ask(question, self.sources[question["program"]])

    def heed(self, line: dict[str, Any]) -> None:
        """Do what one line says."""
        if "query" in line:
            if "source" in line:
                self.sources[line["program"]] = line.pop("source")
            self.waiting.append(line)
        elif "drop" in line:
            self.waiting.clear()
        elif "lock" in line:
            hold(line["lock"])
        elif "log" in line:
            self.log = Log(line["log"], line["about"])
        elif self.log:
            self.log.heed(line)

    def end(self) -> None:
        """The channel ended."""
        if self.worker:
            with suppress(ProcessLookupError):
                os.killpg(self.worker.pid, signal.SIGKILL)
        if self.log:
            self.log.cut()


def main() -> int:
    """Serve one channel."""
    say(agent=1)
    agent = Agent()
    try:
        agent.run()
    finally:
        agent.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
