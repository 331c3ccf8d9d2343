"""What ComfyUI is doing, as far as another client can see it.

ComfyUI v0.3.64 sends ``executing``, ``progress`` and ``progress_state`` to the client that queued
the prompt and to nobody else (main.py's hook and comfy_execution/progress.py pass on its
``client_id``); only prompts that were queued without one are told to everybody. To connect under
somebody's ``clientId`` would take the messages away from them. What everybody sees:

- ``/queue``: what runs and what waits, but not how far it is;
- the ``status`` message: how many are left, at every change;
- ``/internal/logs/raw``: the last lines of the log, with the sampler's progress bar as it is now.

So the step and the seconds per step come from that bar, and the node's name is known for prompts
without a client only. The journal is no help: systemd keeps lines, and a bar ends its line when it
is full.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

import websocket

from boxtools.errors import Trouble
from boxtools.server import Server, parse_message

# tqdm's bar: " 45%|####      | 9/20 [00:03<00:04,  2.50it/s]", from 1 s per step on "1.20s/it".
BAR = re.compile(
    r"([0-9]{1,9})/([0-9]{1,9}) \[[^\]<]{1,20}<[^\],]{1,20},\s*(?:([0-9.]{1,12})(s/it|it/s)|\?)"
)
ENDED = "Prompt executed in "
LINE = 2000  # characters of a log entry that are looked at; a bar is at its end


@dataclass(frozen=True)
class Activity:
    """The server at one moment."""

    problem: str | None = None  # why nothing is known of it
    running: int = 0  # prompts
    waiting: int = 0  # prompts
    prompt_id: str | None = None  # of the running one
    node: str | None = None  # class of the running node, where it is told
    step: int | None = None
    steps: int | None = None
    seconds_per_step: float | None = None
    at: float = 0.0  # monotonic seconds

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.running and not self.waiting


def observe(server: Server) -> Activity:
    """Ask once; an absent server is an answer too."""
    return _look(server)[0]


def _look(server: Server) -> tuple[Activity, dict[str, Any]]:
    """What /queue and the log tell, and the graph of the running prompt."""
    try:
        running, waiting = server.queue()
    except Trouble as trouble:
        return Activity(str(trouble), at=time.monotonic()), {}
    prompt, graph = running_prompt(running)
    seen = Activity(
        running=len(running), waiting=len(waiting), prompt_id=prompt, at=time.monotonic()
    )
    if running:
        with contextlib.suppress(Trouble):  # no promise of ComfyUI's: /internal/ may go away
            step, steps, pace = parse_bar(server.json("GET", "/internal/logs/raw"))
            seen = replace(seen, step=step, steps=steps, seconds_per_step=pace)
    return seen, graph


def running_prompt(running: list[Any]) -> tuple[str | None, dict[str, Any]]:
    """Id and graph of the first running prompt; an entry of /queue is [number, id, graph, ...]."""
    first = running[0] if running else None
    if not isinstance(first, list) or len(first) < 3 or not isinstance(first[1], str):
        return None, {}
    return first[1], first[2] if isinstance(first[2], dict) else {}


def parse_bar(told: Any) -> tuple[int | None, int | None, float | None]:
    """Step, steps and seconds per step of the last progress bar in ``/internal/logs/raw``.

    Nothing where the prompt that it belonged to is over. ``told`` is ``{"entries": [{"m"}]}``, an
    entry a piece of what was written to stdout or stderr; a bar's new state replaces the old one.
    """
    entries = told.get("entries") if isinstance(told, dict) else None
    for entry in reversed(entries if isinstance(entries, list) else []):
        text = entry.get("m") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            continue
        if text.startswith(ENDED):
            break
        found = list(BAR.finditer(text[-LINE:]))
        if found:
            step, steps, number, unit = found[-1].groups()
            return int(step), int(steps), _pace(number, unit)
    return None, None, None


def _pace(number: str | None, unit: str | None) -> float | None:
    try:
        value = float(number or "")
    except ValueError:
        return None
    if unit == "s/it":
        return value
    return 1 / value if value > 0 else None


@dataclass(frozen=True)
class Told:
    """The running node, as ``progress_state`` told it to everybody."""

    prompt_id: str | None = None
    node_id: str | None = None
    step: int | None = None
    steps: int | None = None

    def onto(self, seen: Activity, graph: dict[str, Any]) -> Activity:
        """``seen`` with the node, where both are of the same prompt."""
        if self.node_id is None or self.prompt_id != seen.prompt_id:
            return seen
        node = graph.get(self.node_id)
        name = node.get("class_type") if isinstance(node, dict) else None
        seen = replace(seen, node=str(name) if name is not None else f"node {self.node_id}")
        if self.steps is None:
            return seen
        same = self.steps == seen.steps  # the bar in the log may be another node's
        pace = seen.seconds_per_step if same else None
        return replace(seen, step=self.step, steps=self.steps, seconds_per_step=pace)


def parse_told(data: dict[str, Any]) -> Told:
    """The running node of a ``progress_state`` message; of a node without steps ``max`` is 1."""
    prompt, nodes = data.get("prompt_id"), data.get("nodes")
    for node_id, node in nodes.items() if isinstance(nodes, dict) else ():
        if isinstance(node, dict) and node.get("state") == "running":
            step, steps = _count(node.get("value")), _count(node.get("max"))
            if step is None or steps is None or steps <= 1:
                step = steps = None
            return Told(prompt if isinstance(prompt, str) else None, str(node_id), step, steps)
    return Told()


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None


class Observer:
    """Follows a server in a thread while the context lasts; ``now`` is what is known of it.

    It asks once a second, and less often where answers are slow: the queue comes with every
    prompt's whole graph, and the server that makes the list is the one that renders.
    """

    EVERY = 1.0  # seconds
    SHARE = 0.2  # of the time may be spent asking
    CONNECT = 5.0  # seconds for the websocket to open

    def __init__(self, server: Server) -> None:
        self.server = server
        self.now = Activity()
        self._socket: websocket.WebSocket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="activity", daemon=True)

    def __enter__(self) -> Observer:
        self.now = observe(self.server)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        # Not joined: it may wait for an answer of a server that hangs, and nobody waits with it.
        self._ended.set()

    def _loop(self) -> None:
        told = Told()
        while not self._ended.is_set():
            begun = time.monotonic()
            seen, graph = _look(self.server)
            took = time.monotonic() - begun
            soonest = begun + took / self.SHARE
            due = max(begun + self.EVERY, soonest)
            self.now = told.onto(seen, graph)
            self._connect(seen)
            while not self._ended.is_set() and time.monotonic() < due:
                kind, data = self._receive(due - time.monotonic())
                if kind == "status":  # the queue has changed
                    due = min(due, max(soonest, time.monotonic()))
                elif kind == "progress_state":
                    told = parse_told(data)
                    self.now = told.onto(seen, graph)
        self._disconnect()

    def _connect(self, seen: Activity) -> None:
        if self._socket is None and seen.problem is None:
            url = self.server.url.replace("http", "ws", 1) + f"/ws?clientId={uuid.uuid4().hex}"
            with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
                self._socket = websocket.create_connection(
                    url, timeout=self.CONNECT, http_no_proxy=["*"]
                )

    def _receive(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """The next message, or nothing after that time."""
        if self._socket is None:
            self._ended.wait(seconds)
            return "", {}
        try:
            self._socket.settimeout(max(0.05, min(seconds, 0.5)))
            return parse_message(self._socket.recv()) or ("", {})
        except websocket.WebSocketTimeoutException:
            pass
        except (OSError, ValueError, websocket.WebSocketException):
            self._disconnect()
        return "", {}

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                self._socket.close(timeout=1)
            self._socket = None
