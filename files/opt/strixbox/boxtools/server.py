"""ComfyUI's HTTP calls and its websocket, as far as the tools use them.

The shapes are those of ComfyUI v0.3.64's ``server.py`` and ``execution.py``. Whatever the server or
one of its nodes sends, the tools end with a sentence, never with a traceback.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket

from boxtools.errors import Trouble, reason

Graph = dict[str, dict[str, Any]]
"""A workflow in ComfyUI's API format: node id -> {"class_type", "inputs"}."""

ANSWER = 30.0  # seconds for one HTTP answer; /object_info of many nodes takes a few
HISTORY = 5.0  # seconds from the end of a prompt until its history is there
SILENCE = 30.0  # seconds without a message, after which the server is asked whether it lives
PATIENCE = 2.0  # seconds for a prompt that is taken back to be gone


@dataclass(frozen=True)
class Event:
    """One step of a running prompt."""

    kind: str  # execution_start, execution_cached, executing, progress, executed, ...
    node: str | None = None
    value: int = 0  # of progress
    maximum: int = 0  # of progress
    at: float = field(default_factory=time.monotonic)  # seconds, monotonic


@dataclass(frozen=True)
class Done:
    """A finished prompt."""

    prompt_id: str
    seconds: float  # from the start of its execution to its end, as seen from here
    outputs: dict[str, dict[str, Any]]  # by node: {"images": [{"filename", "subfolder", "type"}]}
    cached: tuple[str, ...]  # nodes whose result was still there
    events: tuple[Event, ...]

    def images(self) -> list[dict[str, str]]:
        """Every image that a node wrote, in the order of the nodes."""
        found = []
        for output in self.outputs.values():
            images = output.get("images") if isinstance(output, dict) else None
            for image in images if isinstance(images, list) else []:
                if isinstance(image, dict) and isinstance(image.get("filename"), str):
                    found.append(image)
        return found


class Server:
    """A ComfyUI server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex
        self.http = requests.Session()
        self.http.trust_env = False  # the server is on this box: no proxy of the environment's

    def call(self, method: str, path: str, **words: Any) -> requests.Response:
        """One HTTP call.

        Raises:
            Trouble: where there is no answer, or one that says that it went wrong.
        """
        try:
            answer = self.http.request(method, self.url + path, timeout=ANSWER, **words)
        except requests.Timeout:
            raise Trouble(
                f"ComfyUI at {self.url} did not answer {path} within {ANSWER:.0f} s;"
                " see journalctl -u comfyui"
            ) from None
        except requests.RequestException as error:
            raise Trouble(
                f"ComfyUI does not answer at {self.url} ({reason(error)});"
                " start it: sudo systemctl start comfyui"
            ) from None
        # A workflow that /prompt refuses is told with 400 and the reasons, as JSON.
        refused = path == "/prompt" and answer.status_code == 400
        if answer.status_code >= 400 and not refused:
            raise Trouble(
                f"ComfyUI at {self.url} answers {path} with {answer.status_code}"
                f" {answer.reason}; see journalctl -u comfyui"
            )
        return answer

    def json(self, method: str, path: str, **words: Any) -> Any:
        """The JSON that a call answers with.

        Raises:
            Trouble: as ``call``, and where the answer is no JSON.
        """
        answer = self.call(method, path, **words)
        try:
            return answer.json()
        except (ValueError, RecursionError):
            raise Trouble(
                f"{self.url}{path} answers no JSON; is another program on that port?"
            ) from None

    def table(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``.

        Raises:
            Trouble: as ``json``, and where it is no object.
        """
        found = self.json("GET", path)
        if not isinstance(found, dict):
            raise Trouble(f"{self.url}{path} answers no JSON object; is it ComfyUI?")
        return found

    def system_stats(self) -> dict[str, Any]:
        """Versions, flags and devices."""
        return self.table("/system_stats")

    def object_info(self, name: str | None = None) -> dict[str, Any]:
        """What every node takes and gives, or one node."""
        return self.table(f"/object_info/{name}" if name else "/object_info")

    def queue(self) -> tuple[list[Any], list[Any]]:
        """What runs and what waits."""
        found = self.table("/queue")
        running, pending = found.get("queue_running"), found.get("queue_pending")
        return (
            running if isinstance(running, list) else [],
            pending if isinstance(pending, list) else [],
        )

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What became of a prompt; None while it is not done."""
        found = self.table(f"/history/{prompt_id}").get(prompt_id)
        return found if isinstance(found, dict) else None

    def free(self, *, models: bool = True, memory: bool = True) -> None:
        """Unload models and give their memory back, at the next idle moment."""
        self.call("POST", "/free", json={"unload_models": models, "free_memory": memory})

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop what runs, or only that prompt if it is what runs."""
        self.call("POST", "/interrupt", json={"prompt_id": prompt_id} if prompt_id else {})

    def forget(self, prompt_id: str) -> None:
        """Take a waiting prompt out of the queue."""
        self.call("POST", "/queue", json={"delete": [prompt_id]})

    def view(self, image: dict[str, str]) -> bytes:
        """Bytes of an image that a node wrote."""
        wanted = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
        return self.call("GET", "/view", params=wanted).content

    def upload(self, name: str, content: bytes, *, mask_of: str | None = None) -> str:
        """Put an image into ComfyUI's input directory; returns the name to load it by."""
        files = {"image": (name, content)}
        words = {"overwrite": "true", "type": "input"}
        if mask_of is not None:
            words["original_ref"] = json.dumps({"filename": mask_of, "type": "input"})
        path = "/upload/mask" if mask_of is not None else "/upload/image"
        told = self.json("POST", path, files=files, data=words)
        stored = told.get("name") if isinstance(told, dict) else None
        if not isinstance(stored, str):
            raise Trouble(f"{self.url}{path} did not say under which name it keeps {name}")
        return stored

    def submit(self, graph: Graph, prompt_id: str | None = None) -> str:
        """Queue a workflow, under an id of the caller's if given; returns its prompt id.

        Raises:
            Trouble: naming the nodes that the server refuses, and why.
        """
        body = {"prompt": graph, "client_id": self.client_id}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        told = self.json("POST", "/prompt", json=body)
        if isinstance(told, dict) and isinstance(told.get("prompt_id"), str):
            return str(told["prompt_id"])
        raise Trouble(f"ComfyUI refuses the workflow: {refusal(told, graph)}")

    def run(self, graph: Graph, seen: Callable[[Event], None] | None = None) -> Done:
        """Queue a workflow and wait for its end, handing every step to ``seen``.

        Raises:
            Trouble: where a node fails, the prompt is interrupted, or the server goes away.
        """
        # Chosen here: a Ctrl-C that comes before the server's answer can still withdraw it.
        prompt_id = str(uuid.uuid4())
        with _closed(self._connect()) as socket:
            try:
                prompt_id = self.submit(graph, prompt_id)
                return self._follow(socket, prompt_id, seen or (lambda event: None))
            except Trouble:
                raise  # the server refused it, ended it, or is gone
            except BaseException:
                self._withdraw(prompt_id)
                raise

    def _follow(
        self, socket: websocket.WebSocket, prompt_id: str, seen: Callable[[Event], None]
    ) -> Done:
        events: list[Event] = []
        cached: list[str] = []
        for kind, data in self._messages(socket, prompt_id):
            if kind == "execution_cached" and isinstance(data.get("nodes"), list):
                cached += [str(node) for node in data["nodes"]]
            event = Event(
                kind,
                str(data["node"]) if data.get("node") is not None else None,
                _number(data.get("value")),
                _number(data.get("max")),
            )
            events.append(event)
            seen(event)
            if kind in ("execution_error", "execution_interrupted"):
                raise Trouble(_failure(kind, data))
            ended = kind == "executing" and data.get("node") is None
            if ended or kind in ("execution_success", "history"):
                break
        begun = next((e.at for e in events if e.kind == "execution_start"), events[0].at)
        return Done(
            prompt_id, events[-1].at - begun, self._outputs(prompt_id), tuple(cached), tuple(events)
        )

    def _outputs(self, prompt_id: str) -> dict[str, dict[str, Any]]:
        # The history is written after the last message: at once, or when a profiler or an unload
        # at the end of the prompt is through. Until then the prompt stands in the queue.
        end = time.monotonic() + HISTORY
        while time.monotonic() < end:
            past = self.history(prompt_id)
            if past is not None:
                status = past.get("status")
                if isinstance(status, dict) and status.get("status_str") == "error":
                    raise Trouble(f"prompt {prompt_id} failed; see journalctl -u comfyui")
                outputs = past.get("outputs")
                return outputs if isinstance(outputs, dict) else {}
            if self._queued(prompt_id):
                end = time.monotonic() + HISTORY
            time.sleep(0.1)
        raise Trouble(f"ComfyUI has no history of prompt {prompt_id}; was it restarted?")

    def _withdraw(self, prompt_id: str) -> None:
        """Take the prompt back, running or not; the reason for leaving is told by the caller."""
        until = time.monotonic() + PATIENCE
        with contextlib.suppress(Trouble):
            # Asked for once more until it is gone: a prompt that is just being started misses an
            # interruption, and a node that computes for long sees it late.
            while time.monotonic() < until:
                self.forget(prompt_id)
                self.interrupt(prompt_id)
                if not self._queued(prompt_id):
                    return
                time.sleep(0.1)

    def _queued(self, prompt_id: str) -> bool:
        """Whether a prompt waits or runs: [number, prompt id, graph, extra data, outputs]."""
        known = [entry for part in self.queue() for entry in part]
        return any(isinstance(entry, list) and prompt_id in entry[:2] for entry in known)

    def _connect(self) -> websocket.WebSocket:
        parts = urlsplit(self.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        address = f"{scheme}://{parts.netloc}{parts.path}/ws?clientId={self.client_id}"
        try:
            return websocket.create_connection(address, timeout=SILENCE, http_no_proxy=["*"])
        except (OSError, websocket.WebSocketException) as error:
            raise Trouble(
                f"ComfyUI's websocket at {self.url} does not open ({reason(error)});"
                " start it: sudo systemctl start comfyui"
            ) from None

    def _messages(
        self, socket: websocket.WebSocket, prompt_id: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Messages about one prompt; ends with ``history`` where the last ones were missed."""
        heard = time.monotonic()
        while True:
            raw: str | bytes = ""
            try:
                raw = socket.recv()
            except websocket.WebSocketTimeoutException:
                pass
            except (OSError, websocket.WebSocketException) as error:
                raise Trouble(
                    f"ComfyUI closed the connection while it worked ({reason(error)});"
                    " it may have crashed: journalctl -u comfyui"
                ) from None
            message = parse_message(raw)
            if message is not None and message[1].get("prompt_id") == prompt_id:
                heard = time.monotonic()
                yield message
            elif time.monotonic() - heard >= SILENCE:
                # Messages about other prompts are no sign that this one is alive.
                heard = time.monotonic()
                if self._ended(prompt_id):
                    yield "history", {}
                    return

    def _ended(self, prompt_id: str) -> bool:
        """Whether a prompt is done.

        Raises:
            Trouble: where the server does not know it any more.
        """
        # In this order: a prompt goes from the queue into the history, never back.
        queued = self._queued(prompt_id)
        if self.history(prompt_id) is not None:
            return True
        if queued:
            return False
        raise Trouble(
            f"prompt {prompt_id} is neither in ComfyUI's queue nor in its history: somebody"
            " took it out, or ComfyUI was restarted; queue it again"
        )


def parse_message(raw: str | bytes) -> tuple[str, dict[str, Any]] | None:
    """Kind and data of a websocket message; None for previews and whatever is not understood."""
    if not isinstance(raw, str) or not raw:
        return None  # binary messages are preview pictures
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return None
    data = message.get("data")
    return message["type"], data if isinstance(data, dict) else {}


def refusal(told: Any, graph: Graph) -> str:
    """Why ``/prompt`` refused a workflow, in words."""
    if not isinstance(told, dict):
        return "it does not say why"
    reasons = []
    nodes = told.get("node_errors")
    for node, trouble in nodes.items() if isinstance(nodes, dict) else []:
        errors = trouble.get("errors") if isinstance(trouble, dict) else None
        for error in errors if isinstance(errors, list) else []:
            if isinstance(error, dict):
                kind = graph.get(str(node), {}).get("class_type", "node")
                text = f"{error.get('message', '?')} {error.get('details', '')}"
                reasons.append(f"{kind} ({node}): {text}")
    if not reasons:
        error = told.get("error")
        message = error.get("message") if isinstance(error, dict) else error
        reasons = [str(message or "it does not say why")]
    # Of one line: messages hold what nodes and paths are called, line breaks too.
    return "; ".join(" ".join(reason.split()) for reason in reasons)


@contextlib.contextmanager
def _closed(socket: websocket.WebSocket) -> Iterator[websocket.WebSocket]:
    """Say goodbye at the end, and wait for no answer.

    WebSocket.close() waits up to 3 s for one, and its bare ``except: pass`` swallows a Ctrl-C that
    comes meanwhile (websocket-client 1.9, _core.py).
    """
    try:
        yield socket
    finally:
        with contextlib.suppress(OSError, websocket.WebSocketException):
            socket.send_close()
        socket.shutdown()


def _failure(kind: str, data: dict[str, Any]) -> str:
    if kind == "execution_interrupted":
        return "the prompt was interrupted by somebody; queue it again"
    node = f"{data.get('node_type', 'a node')} ({data.get('node_id', '?')})"
    text = " ".join(str(data.get("exception_message", "no message")).split())
    return f'{node} failed: {text}; for what it means: strixbox doctor "{text[:80]}"'


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 1e9 else 0
