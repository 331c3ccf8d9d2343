"""Renders jobs: many of them without filling ComfyUI's queue, and their images into a directory.

ComfyUI's queue is shared by everybody who uses the server and takes whatever it is given: fifty
prompts queued at once keep everybody else waiting for all fifty. Here only a few of ours wait at
any time, and none is added while others' prompts pile up.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from boxtools.errors import Trouble
from boxtools.server import Done, Event, Graph, Server

CROWD = 4  # prompts of others that wait, from which on ours are held back
LOOK = 0.1  # seconds between looks at the queue
PATIENCE = 2.0  # seconds for a prompt that is just being queued to show up and be withdrawn

Seen = Callable[[int, Event], None]


class Made(BaseModel):
    """What became of one job."""

    seed: int
    seconds: float  # from the start of its execution to its end
    cached: bool  # nothing was computed: the same job was the last one
    images: list[str]


def client(entry: Any) -> str | None:
    """The client that queued an entry of ``/queue``: [number, prompt id, graph, extra, outputs]."""
    extra = entry[3] if isinstance(entry, list) and len(entry) > 3 else None
    found = extra.get("client_id") if isinstance(extra, dict) else None
    return found if isinstance(found, str) and isinstance(entry[1], str) else None


def room(running: list[Any], waiting: list[Any], ours: set[str], ahead: int) -> bool:
    """Whether one more of ours may be queued.

    ``ours`` are the clients of our prompts that are not done. Each must have shown up in the queue
    before the next is sent, or they would not be made in their order.
    """
    begun = {client(entry) for entry in running} & ours
    behind = {client(entry) for entry in waiting} & ours
    others = sum(client(entry) not in ours for entry in waiting)
    return begun | behind == ours and len(behind) < ahead and others < CROWD


@dataclass
class _Prompt:
    """One prompt that is not done, and the connection of its own that it is followed by."""

    index: int
    server: Server


@dataclass
class Line:
    """Our prompts in a server's queue."""

    url: str
    ahead: int = 2
    seen: Seen = lambda index, event: None
    held: Callable[[], None] = lambda: None  # called at each look that finds no room
    _prompts: dict[str, _Prompt] = field(default_factory=dict)
    _ends: queue.SimpleQueue[tuple[str, Done | BaseException]] = field(
        default_factory=queue.SimpleQueue
    )

    def run(self, graphs: Sequence[Graph]) -> Generator[tuple[int, Done]]:
        """Every graph's index and result, as they are done.

        Whatever ends it early, Ctrl-C too, takes back those of ours that wait or run, only ours.

        Raises:
            Trouble: as ``Server.run``, for the first that fails.
        """
        server = Server(self.url)
        sent = 0
        try:
            while sent < len(graphs) or self._prompts:
                if sent < len(graphs) and len(self._prompts) <= self.ahead:
                    if room(*server.queue(), set(self._prompts), self.ahead):
                        self._send(sent, graphs[sent])
                        sent += 1
                    elif not self._prompts:
                        self.held()
                with contextlib.suppress(queue.Empty):
                    name, end = self._ends.get(timeout=LOOK)
                    index = self._prompts.pop(name).index
                    if isinstance(end, BaseException):
                        raise end
                    yield index, end
        finally:
            withdraw(server, set(self._prompts))

    def _send(self, index: int, graph: Graph) -> None:
        prompt = _Prompt(index, Server(self.url))
        name = prompt.server.client_id
        self._prompts[name] = prompt

        def follow() -> None:
            try:
                self._ends.put((name, prompt.server.run(graph, lambda e: self.seen(index, e))))
            except BaseException as error:  # handed to the caller's thread, whatever it is
                self._ends.put((name, error))

        # A daemon: one that waits for a prompt that was withdrawn does not hold up the exit.
        threading.Thread(target=follow, name=f"prompt {index}", daemon=True).start()


def withdraw(server: Server, ours: set[str]) -> None:
    """Take the prompts of these clients out of the queue, and stop the one that runs."""
    until = time.monotonic() + PATIENCE
    left = set(ours)
    # No Trouble from here: what ended the rendering is what the user wants to read.
    with contextlib.suppress(Trouble):
        while left and time.monotonic() < until:
            for entry in server.queue()[1]:
                if client(entry) in ours:
                    server.forget(entry[1])
                    left.discard(str(client(entry)))
            for entry in server.queue()[0]:
                if client(entry) in ours:
                    # By its id: another may have begun since we looked. Releases that do not
                    # know the id stop whatever runs.
                    server.call("POST", "/interrupt", json={"prompt_id": entry[1]})
                    left.discard(str(client(entry)))
            if left:
                time.sleep(LOOK)


def place(image: dict[str, str], directory: Path) -> Path:
    """Where an image that a node saved lies below ComfyUI's output directory."""
    return directory / str(image.get("subfolder", "")) / str(image["filename"])


def check_directory(directory: Path) -> None:
    """See that a directory takes files, and make it where it is not there.

    Raises:
        Trouble: where it does not: before anything is rendered for it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise Trouble(
            f"{directory} takes no files: {error.strerror}; name another with --out"
        ) from None


def store(content: bytes, name: str, directory: Path) -> Path:
    """Write a file under its name, or the next free one like it; never over another.

    Raises:
        Trouble: where it cannot be written.
    """
    plain = PurePosixPath(name.replace("\\", "/")).name.replace("\0", "") or "image.png"
    stem, suffix = PurePosixPath(plain).stem, PurePosixPath(plain).suffix
    number = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            path = directory / (f"{stem}-{number}{suffix}" if number else plain)
            try:
                # The name is taken first, so that nobody's file can be under it at the rename.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                break
            except FileExistsError:
                number += 1
        aside = path.with_name(f".{path.name}.part")
        try:
            with aside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            aside.rename(path)
        except BaseException:
            for one in (aside, path):
                one.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Trouble(
            f"{directory} does not take {plain}: {error.strerror}; name another with --out"
        ) from None
    return path
