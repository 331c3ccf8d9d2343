"""The monitor's loops: a live screen, a line per interval, and a log file."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from types import FrameType

from rich.console import Console
from rich.live import Live

from boxtools.activity import Observer
from boxtools.monitor_view import plain_line, screen_view
from boxtools.sample import Sample, Sampler
from boxtools.sample_log import SampleLog
from boxtools.server import Server

PROCESSORS = 0.25  # seconds between two looks at the processors, where there is one sample only
SIGNALS = 0.5  # seconds after which a signal is noticed; a new width of the terminal as well


def once(server: Server, sampler: Sampler) -> Sample:
    """One sample."""
    with Observer(server) as observer:
        time.sleep(PROCESSORS)
        return sampler.take(observer.now)


def lines(
    server: Server, sampler: Sampler, console: Console, interval: float, count: int | None
) -> None:
    """A plain line per interval, until ``count`` of them or a signal."""
    for sample in _samples(server, sampler, interval, count):
        # Printed past rich: a line must stay one line, however narrow the terminal is said to be.
        print(plain_line(sample), file=console.file, flush=True)


def log(
    server: Server, sampler: Sampler, file: SampleLog, interval: float, count: int | None
) -> None:
    """Append a sample per interval to a file, until ``count`` of them or a signal.

    Raises:
        Trouble: where the file takes no more.
    """
    with contextlib.closing(file):
        for sample in _samples(server, sampler, interval, count):
            file.append(sample)


def live(server: Server, sampler: Sampler, console: Console, interval: float) -> None:
    """The whole screen, redrawn every interval until q or a signal."""
    with (
        Observer(server) as observer,
        _ended() as ended,
        _keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as screen,
    ):
        while not ended.is_set():
            screen.update(screen_view(sampler.take(observer.now), console.width), refresh=True)
            due = time.monotonic() + interval
            while not ended.is_set() and (left := due - time.monotonic()) > 0:
                if keys.wait(min(left, SIGNALS)) in ("q", "Q"):
                    return


def _samples(
    server: Server, sampler: Sampler, interval: float, count: int | None
) -> Iterator[Sample]:
    with Observer(server) as observer, _ended() as ended:
        due = time.monotonic() + min(interval, PROCESSORS)
        taken = 0
        while not ended.wait(max(0.0, due - time.monotonic())):
            yield sampler.take(observer.now)
            taken += 1
            if taken == count:
                return
            # The next of the grid: neither drift, nor a burst after the box was suspended.
            due = max(due + interval, time.monotonic())


@contextlib.contextmanager
def _ended() -> Iterator[threading.Event]:
    """Set by Ctrl-C and by systemd, and when the terminal goes away: the line is finished first."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Keys:
    """Single keys of the terminal, without Enter and without an echo."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def wait(self, seconds: float) -> str:
        """The next key, empty after that time."""
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        if not ready:
            return ""
        key = os.read(self.descriptor, 1)
        return key.decode("ascii", errors="replace") or "q"  # nothing: the terminal is gone


@contextlib.contextmanager
def _keys() -> Iterator[_Keys]:
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
