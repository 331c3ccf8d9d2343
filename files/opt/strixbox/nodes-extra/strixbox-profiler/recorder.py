"""Records one prompt with torch's profiler, in the thread that runs prompts.

The profiler keeps the state of operators and ``record_function`` by thread, so starting it in a
request's thread would record nothing. ComfyUI's worker calls ``PromptExecutor.execute`` for every
prompt in its own thread (main.py, prompt_worker): while a profile is armed, a wrapper sits there,
and while it records, another around ``execution.execute``, which runs a node. Both are taken away
when the prompt is done. What was recorded is evaluated in a thread of its own, so that the worker
goes on with the next prompt.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .tables import tables
from .web import Refused

FOLDER = "strixbox-profile"  # below ComfyUI's temporary directory
KEEP = 3  # traces; the temporary directory is a RAM disk
ARMED = 600.0  # seconds, after which a forgotten profile no longer keeps others away
SECONDS = 300  # of one recording, unless told otherwise
# More than this are written as a trace only. torch's tables take 60 us of Python an event, during
# which the server answers slowly; strixbox profile makes them from the trace in a tenth of that.
EVENTS = 200_000
PREFIX = "node: "


class Recorder:
    """At most one profile at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = "idle"
        self._error: str | None = None
        self._result: dict[str, Any] | None = None
        self._options: dict[str, Any] = {}
        self._armed_at = 0.0
        self._unhook: Callable[[], None] = lambda: None

    def state(self) -> dict[str, Any]:
        """``{"state"}``, with ``error`` where it failed."""
        with self._lock:
            return self._told()

    def start(self, options: dict[str, Any]) -> dict[str, Any]:
        """Arm for one prompt.

        Raises:
            Refused: with 400 for odd options, with 409 while a profile is under way.
        """
        if not 1 <= options.get("seconds", SECONDS) <= 3600:
            raise Refused(400, "seconds must be from 1 to 3600")
        with self._lock:
            forgotten = self._state == "armed" and time.monotonic() - self._armed_at > ARMED
            if self._state in ("armed", "recording", "writing") and not forgotten:
                raise Refused(409, f"another profile is {self._state}; try again when it is done")
            self._unhook()
            self._options = options
            self._error = self._result = None
            self._armed_at = time.monotonic()
            self._unhook = self._hook()
            self._state = "armed"
            return self._told()

    def stop(self, options: dict[str, Any]) -> dict[str, Any]:
        """Disarm, and hand out the result where there is one."""
        with self._lock:
            if self._state == "armed":
                self._unhook()
                self._state = "idle"
            told = self._told()
            if self._state in ("done", "failed"):
                told |= self._result or {}
                self._result = None
                self._state = "idle"
            return told

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"state": self._state}
        if self._error is not None:
            told["error"] = self._error
        return told

    def _hook(self) -> Callable[[], None]:
        """Sit before the worker's call; returns what takes it away again."""
        import execution

        original = execution.PromptExecutor.execute

        @functools.wraps(original)
        def execute(executor: Any, *words: Any, **named: Any) -> Any:
            run = functools.partial(original, executor, *words, **named)
            if not self._begin(words, named):
                return run()
            return self._record(run, words[1] if len(words) > 1 else named.get("prompt_id"))

        return replaced(execution.PromptExecutor, "execute", execute)

    def _begin(self, words: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether this is the prompt that is waited for; from then on it is recorded."""
        extra = words[2] if len(words) > 2 else named.get("extra_data")
        client = extra.get("client_id") if isinstance(extra, dict) else None
        with self._lock:
            wanted = self._options.get("client_id")
            if self._state != "armed" or wanted not in (None, client):
                return False
            self._unhook()
            self._state = "recording"
            return True

    def _record(self, run: Callable[[], Any], prompt_id: Any) -> Any:
        """Run a prompt under the profiler; a profiler that fails never fails the prompt."""
        try:
            session = Session(self._options)
        except Exception as error:
            self._end(error=f"the profiler does not start: {error}")
            return run()
        try:
            with session.nodes():
                return run()
        finally:
            try:
                session.stop()
                with self._lock:
                    self._state = "writing"
                words = {"prompt_id": str(prompt_id)}
                threading.Thread(target=self._evaluate, args=(session, words), daemon=True).start()
            except Exception as error:
                self._end(error=f"the profiler does not stop: {error}")

    def _evaluate(self, session: Session, words: dict[str, Any]) -> None:
        try:
            self._end(words | session.result())
        except Exception as error:
            logging.exception("strixbox-profiler: the recording cannot be evaluated")
            self._end(error=f"the recording cannot be evaluated: {type(error).__name__}: {error}")

    def _end(self, result: dict[str, Any] | None = None, error: str | None = None) -> None:
        with self._lock:
            self._result, self._error = result, error
            self._state = "failed" if error else "done"
        if error:
            logging.error("strixbox-profiler: %s", error)


class Session:
    """One recording; made, driven and stopped in the thread that is recorded."""

    def __init__(self, options: dict[str, Any]) -> None:
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda":
            activities.append(ProfilerActivity.CUDA)  # HIP too goes by this name
        self.labels: dict[str, tuple[str, str]] = {}  # label -> node id and class
        self.cut = False
        self.stopped = False
        self.begun = time.monotonic()
        self.seconds = 0.0
        self.deadline = self.begun + options.get("seconds", SECONDS)
        self.profile = profile(
            activities=activities,
            record_shapes=options.get("shapes", False),
            profile_memory=options.get("memory", False),
            with_stack=options.get("stack", False),
        )
        self.profile.start()

    @contextlib.contextmanager
    def nodes(self) -> Iterator[None]:
        """Mark every node's share, and end the recording where it becomes too long."""
        import execution

        original = execution.execute

        @functools.wraps(original)
        async def execute(*words: Any, **named: Any) -> Any:
            if self.stopped or len(words) < 4:
                return await original(*words, **named)
            try:
                # server, prompt, caches, node: its first arguments, and as words in every call
                with torch.profiler.record_function(self.label(words[1], words[3])):
                    return await original(*words, **named)
            finally:
                if time.monotonic() > self.deadline:
                    self.cut = True
                    # What goes wrong here is found when the recording is evaluated.
                    with contextlib.suppress(Exception):
                        self.stop()

        restore = replaced(execution, "execute", execute)
        try:
            yield
        finally:
            restore()

    def label(self, prompt: Any, node: Any) -> str:
        """Name of a node's share in the trace."""
        try:
            kind = str(prompt.get_node(node)["class_type"])
        except Exception:
            kind = "?"
        label = f"{PREFIX}{kind} ({node})"
        self.labels[label] = (str(node), kind)
        return label

    def stop(self) -> None:
        """End the recording; a second call does nothing."""
        if not self.stopped:
            self.stopped = True
            self.seconds = time.monotonic() - self.begun
            # The GPU runs behind the CPU; what it still has to do belongs to the recording.
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.profile.stop()

    def result(self) -> dict[str, Any]:
        """What was recorded, as JSON; writes the trace."""
        told: dict[str, Any] = {
            "seconds": self.seconds,
            "cut": self.cut,
            "device": self.device,
            "torch": str(torch.__version__),
            "trace": self._write(),
            "events": None,
            "note": None,
        }
        with contextlib.suppress(Exception):  # private names of torch's
            told["events"] = len(self.profile.profiler.kineto_results.events())
        if (told["events"] or 0) > EVENTS:
            told |= {"operators": [], "kernels": [], "nodes": []}
            told["note"] = f"more than {EVENTS} events: the tables are to be made from the trace"
            return told
        return told | tables(self.profile.key_averages(), self.profile.events(), self.labels)

    def _write(self) -> dict[str, str]:
        import folder_paths

        folder = Path(folder_paths.get_temp_directory()) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted(folder.glob("*.json.gz"), key=lambda path: path.stat().st_mtime)
        for path in older[: max(0, len(older) - KEEP + 1)]:
            path.unlink(missing_ok=True)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.json.gz"
        plain, packed = folder / f".{name[:-3]}", folder / f".{name}.part"
        try:
            self.profile.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=5) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            packed.rename(folder / name)
        finally:
            plain.unlink(missing_ok=True)
            packed.unlink(missing_ok=True)
        return {"filename": name, "subfolder": FOLDER, "type": "temp"}


def replaced(owner: Any, name: str, substitute: Any) -> Callable[[], None]:
    """Put a substitute in the place of an attribute; returns what puts the original back.

    Where somebody else has wrapped the substitute meanwhile, it stays below theirs and passes
    every call on.
    """
    original = getattr(owner, name)
    setattr(owner, name, substitute)

    def restore() -> None:
        if getattr(owner, name) is substitute:
            setattr(owner, name, original)

    return restore
