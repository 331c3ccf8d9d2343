"""Answers a run's questions, holds the box's lock for it, and logs what it changes.

One process for as long as the ssh channel lives that it was started in: a controller that was
killed leaves no stale lock behind. What that controller had started may work on, though: every
command that writes holds a second lock, shared with its children, and a new run waits for it.

A question is a program of this directory. It is run in a fork, so that the accounts it works as,
its memory and its crash are its own; the modules that most of them need are there already. A
question costs a round trip and a fork, instead of a channel, sudo and the start of a Python.

What the run changes is logged here and not by the controller's own commands, so that a run that is
cut is logged as well.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import importlib
import json
import os
import select
import selectors
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, NoReturn

NEEDED = ("grp", "hashlib", "pwd", "shutil", "subprocess", "tempfile", "urllib.request")


def say(**answer: Any) -> None:
    """One line for the controller."""
    print(json.dumps(answer), flush=True)


@dataclass
class Question:
    """A question under way: its number, its process, and the files of its output."""

    number: int
    pid: int
    ended: int  # readable when the process has ended
    outputs: tuple[int, int]  # standard output and error


def ask(number: int, program: CodeType, query: str) -> Question:
    """Have a child answer."""
    outputs = (os.memfd_create("answer"), os.memfd_create("error"))
    pid = os.fork()
    if pid == 0:
        answer(program, query, outputs)
    with suppress(OSError):  # also here, so that it is one whenever the channel ends
        os.setpgid(pid, pid)
    return Question(number, pid, os.pidfd_open(pid), outputs)


def answer(program: CodeType, query: str, outputs: tuple[int, int]) -> NoReturn:
    """Run a program as ``python3 -c program query`` would."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        # Above all the lock, which a child that hangs would keep. The agent opens no more files.
        os.closerange(3, 256)
        sys.argv = ["-c", query]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(program, main.__dict__)  # noqa: S102 - the controller's own
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def tell(question: Question) -> None:
    """The answer of a child that has ended."""
    _, status = os.waitpid(question.pid, 0)
    os.close(question.ended)
    texts = []
    for output in question.outputs:
        texts.append(os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace"))
        os.close(output)
    code = os.waitstatus_to_exitcode(status)
    say(id=question.number, code=code, out=texts[0], err=texts[1])


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


@dataclass
class Log:
    """An append-only file of JSON lines, each of which can be read alone.

    A log that cannot be written stops no run: the controller is told so, once.
    """

    path: str
    about: dict[str, Any]  # what every line tells of the run
    begun: dict[str, str] = field(default_factory=dict)  # what the run is about to change
    changed: bool = False
    told: bool = False

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
    has the ``id``, the exit ``code``, and what was printed as ``out`` and ``err``. ``{"lock"}``
    holds the lock, and ``{"log"}`` with a path and what is ``about`` the run opens the log for the
    lines that follow.
    """

    def __init__(self) -> None:
        self.poll = selectors.DefaultSelector()
        self.programs: dict[str, CodeType] = {}
        self.questions: dict[int, Question] = {}  # by process
        self.log: Log | None = None

    def run(self) -> None:
        """Serve until the channel ends; what is under way then ends with it."""
        self.poll.register(0, selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _ in self.poll.select():
                if key.data is not None:
                    self.poll.unregister(key.fd)
                    del self.questions[key.data.pid]
                    tell(key.data)
                elif data := os.read(0, 1 << 17):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self.heed(json.loads(line))
                else:
                    return

    def heed(self, line: dict[str, Any]) -> None:
        """Do what one line says."""
        if "query" in line:
            name = line["program"]
            if "source" in line:
                self.programs[name] = compile(line["source"], name, "exec", dont_inherit=True)
            question = ask(line["id"], self.programs[name], line["query"])
            self.questions[question.pid] = question
            self.poll.register(question.ended, selectors.EVENT_READ, question)
        elif "lock" in line:
            hold(line["lock"])
        elif "log" in line:
            self.log = Log(line["log"], line["about"])
        elif self.log:
            self.log.heed(line)

    def end(self) -> None:
        """The channel ended."""
        for pid in self.questions:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self.log:
            self.log.cut()


def main() -> int:
    """Serve one channel."""
    say(agent=1)
    for name in NEEDED:  # while the controller is at its first question
        importlib.import_module(name)
    agent = Agent()
    try:
        agent.run()
    finally:
        agent.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
