"""boxtools/server.py against a running server: every end of a prompt, and every odd answer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import websocket
from boxtools import server as module
from boxtools.errors import Trouble
from boxtools.server import Done, Event, Graph, Server, parse_message, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.boxtools.conftest import MakeStandin, Standin, free_port

STEPS = 4


def txt2img(seed: int = 1, steps: int = STEPS, batch: int = 1, prefix: str = "test") -> Graph:
    """A whole workflow; nothing of it is cached where ``seed`` is new."""
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "2": _node("CLIPTextEncode", text="a lighthouse", clip=["1", 1]),
        "3": _node("CLIPTextEncode", text="blurry", clip=["1", 1]),
        "4": _node("EmptyLatentImage", width=64, height=96, batch_size=batch),
        "5": _node(
            "KSampler",
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]},
            **{"latent_image": ["4", 0], "seed": seed, "steps": steps, "cfg": 7.0},
            **{"sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        ),
        "6": _node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": _node("SaveImage", images=["6", 0], filename_prefix=prefix),
    }


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


@pytest.fixture(scope="module")
def slow_standin(new_standin: MakeStandin) -> Iterator[Standin]:
    """A stand-in whose steps take long enough to come between, and which sends previews."""
    variables = {"STRIXBOX_STANDIN_STEP": "0.03"}
    one: Standin = new_standin(variables=variables, flags=("--preview-method", "auto"))
    one.start()
    yield one
    one.stop()


@pytest.fixture
def slow(slow_standin: Standin) -> Iterator[Standin]:
    """The same, idle and without what an earlier test computed."""
    server = Server(slow_standin.url)
    server.free()
    yield slow_standin
    for word in ("node-error", "garbage-messages", "hang"):
        slow_standin.fault(word, wanted=False)
    server.call("POST", "/queue", json={"clear": True})
    server.interrupt()
    wait_for(lambda: server.queue() == ([], []))


# --- a prompt's ends --------------------------------------------------------------------------


def test_a_prompt_is_followed_step_by_step(shared_standin: Standin) -> None:
    seen: list[Event] = []
    done = Server(shared_standin.url).run(txt2img(seed=100), seen.append)
    assert [(e.node, e.value, e.maximum) for e in seen if e.kind == "progress"] == [
        ("5", step, STEPS) for step in range(1, STEPS + 1)
    ]
    assert [e.node for e in seen if e.kind == "executing"][-3:] == ["5", "6", "7"]
    assert seen[0].kind == "execution_start"
    assert tuple(seen) == done.events
    assert done.seconds > 0
    assert [e.at for e in seen] == sorted(e.at for e in seen)


def test_its_images_can_be_fetched(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    graph = txt2img(seed=101, batch=2, prefix="sub/[odd] name")
    images = server.run(graph).images()
    assert [(i["subfolder"], i["type"]) for i in images] == [("sub", "output")] * 2
    with Image.open(io.BytesIO(server.view(images[1]))) as picture:
        assert picture.size == (64, 96)
        assert json.loads(picture.info["prompt"]) == graph


def test_what_did_not_change_is_told_as_cached(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    first = server.run(txt2img(seed=102))
    again = server.run(txt2img(seed=102))
    assert "5" not in first.cached
    assert set(again.cached) == set("1234567")
    # The images are those of the first time, without a new file.
    assert again.images() == first.images()
    assert set(server.run(txt2img(seed=103)).cached) == set("1234")


def test_a_refusal_names_node_and_reason(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    graph = txt2img()
    graph["1"]["inputs"]["ckpt_name"] = "gone.safetensors"
    graph["5"]["inputs"].pop("cfg")
    graph["5"]["inputs"]["steps"] = 0
    graph["6"]["inputs"]["vae"] = ["1", 0]
    with pytest.raises(Trouble) as refused:
        server.run(graph)
    sentence = str(refused.value)
    assert sentence.startswith("ComfyUI refuses the workflow: ")
    assert "CheckpointLoaderSimple (1): Value not in list ckpt_name: 'gone.safetensors'" in sentence
    assert "KSampler (5): Required input is missing cfg" in sentence
    assert "KSampler (5): Value 0 smaller than min of 1 steps" in sentence
    assert "VAEDecode (6): Return type mismatch between linked nodes" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ({}, "Prompt has no outputs"),
        ({"1": _node("Unheard", x=1)}, "node Unheard does not exist"),
        ({"1": {"inputs": {}}}, "missing the class_type"),
        ({"7": _node("SaveImage", images=["9", 0], filename_prefix="x")}, "Exception when"),
    ],
)
def test_a_workflow_that_is_none(shared_standin: Standin, graph: Graph, reason: str) -> None:
    with pytest.raises(Trouble, match=reason):
        Server(shared_standin.url).run(graph)


def test_the_servers_own_failure_is_no_refusal(shared_standin: Standin) -> None:
    broken: Any = ["no", "graph"]
    with pytest.raises(Trouble, match=r"answers /prompt with 500 .*journalctl"):
        Server(shared_standin.url).submit(broken)


def test_a_failing_node_is_told_with_its_message(slow: Standin) -> None:
    slow.fault("node-error")
    server = Server(slow.url)
    with pytest.raises(Trouble) as failed:
        server.run(txt2img())
    sentence = str(failed.value)
    assert sentence.startswith("KSampler (5) failed: HIP out of memory. Tried to allocate 2.34 GiB")
    assert 'strixbox doctor "HIP out of memory' in sentence
    assert "\n" not in sentence
    # The next one is not harmed.
    slow.fault("node-error", wanted=False)
    assert server.run(txt2img()).images()


def test_a_crash_in_the_middle_is_told(standin: Standin) -> None:
    standin.fault("crash-while-rendering")
    with pytest.raises(Trouble, match="closed the connection while it worked"):
        Server(standin.url).run(txt2img())
    with pytest.raises(Trouble, match="does not answer at"):
        Server(standin.url).system_stats()


def test_an_interruption_by_somebody_else_is_told(slow: Standin) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "progress" and event.value == 2:
            Server(slow.url).interrupt()

    with pytest.raises(Trouble, match="interrupted by somebody"):
        Server(slow.url).run(txt2img(steps=40), interrupt)


def test_odd_messages_in_between_change_nothing(slow: Standin) -> None:
    slow.fault("garbage-messages")
    seen: list[Event] = []
    done = Server(slow.url).run(txt2img(), seen.append)
    assert done.images()
    told = [e.value for e in seen if e.kind == "progress" and e.node == "5"]
    assert told == list(range(1, STEPS + 1))
    # Some were about this prompt, and were read as nothing rather than failed on.
    assert any(e.kind == "[red]" and e.value == 0 for e in seen)


def test_two_clients_get_their_own_messages(shared_standin: Standin) -> None:
    ends: dict[int, tuple[Done, list[Event]]] = {}

    def render(seed: int) -> None:
        seen: list[Event] = []
        done = Server(shared_standin.url).run(txt2img(seed, steps=seed - 200), seen.append)
        ends[seed] = (done, seen)

    threads = [threading.Thread(target=render, args=(seed,)) for seed in (205, 210)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    for seed, (done, seen) in ends.items():
        assert {e.maximum for e in seen if e.kind == "progress"} == {seed - 200}
        assert len(done.images()) == 1
    assert ends[205][0].images() != ends[210][0].images()


# --- taking it back ---------------------------------------------------------------------------

RUN = """
import json, sys
from boxtools.server import Server
Server(sys.argv[1]).run(json.loads(sys.argv[2]), lambda e: print(e.kind, e.value, flush=True))
"""


def running(standin: Standin, graph: Graph) -> subprocess.Popen[str]:
    """Another process that renders and prints every event."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, standin.url, json.dumps(graph)],
        env=os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C and see that the process ends by it."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130), errors
    assert "KeyboardInterrupt" in errors


def test_ctrl_c_withdraws_what_runs(slow: Standin) -> None:
    process = running(slow, txt2img(steps=4000))
    assert process.stdout is not None
    while process.stdout.readline() != "progress 2\n":
        pass
    server = Server(slow.url)
    prompt_id = server.queue()[0][0][1]
    interrupted(process)
    wait_for(lambda: server.queue() == ([], []))
    past = server.history(prompt_id)
    assert past is not None and past["status"]["status_str"] == "error"
    assert past["status"]["messages"][-1][0] == "execution_interrupted"


def test_ctrl_c_withdraws_what_waits_and_nothing_else(slow: Standin) -> None:
    server = Server(slow.url)
    other = server.submit(txt2img(seed=1, steps=60))
    wait_for(lambda: len(server.queue()[0]) == 1)
    process = running(slow, txt2img(seed=2, steps=4000))
    wait_for(lambda: len(server.queue()[1]) == 1)
    interrupted(process)
    assert server.queue()[1] == []
    wait_for(lambda: server.history(other) is not None)
    past = server.history(other)
    assert past is not None and past["status"]["status_str"] == "success"


def test_ctrl_c_while_the_websocket_is_closed_is_not_lost(
    shared_standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = websocket.WebSocket.send

    def pressed(self: websocket.WebSocket, payload: bytes, opcode: int = 1) -> int:
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise KeyboardInterrupt
        return send(self, payload, opcode)

    monkeypatch.setattr(websocket.WebSocket, "send", pressed)
    with pytest.raises(KeyboardInterrupt):
        Server(shared_standin.url).run(txt2img(seed=99))


def test_it_is_withdrawn_when_the_caller_fails(slow: Standin) -> None:
    def broken(event: Event) -> None:
        prompts.append(server.queue()[0][0][1])
        raise ZeroDivisionError

    prompts: list[str] = []
    server = Server(slow.url)
    with pytest.raises(ZeroDivisionError):
        server.run(txt2img(steps=4000), broken)
    wait_for(lambda: server.queue() == ([], []))
    past = server.history(prompts[0])
    assert past is not None and past["status"]["status_str"] == "error"


def test_a_prompt_that_somebody_took_out_ends(
    slow: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.3)
    server = Server(slow.url)
    server.submit(txt2img(seed=1, steps=60))

    def clear() -> None:
        wait_for(lambda: len(server.queue()[1]) == 1)
        server.call("POST", "/queue", json={"clear": True})

    thief = threading.Thread(target=clear)
    thief.start()
    with pytest.raises(Trouble, match=r"neither in ComfyUI's queue nor in its history"):
        Server(slow.url).run(txt2img(seed=2))
    thief.join()


def test_a_long_silence_is_no_end(slow: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.1)
    server = Server(slow.url)
    server.submit(txt2img(seed=1, steps=12))
    assert Server(slow.url).run(txt2img(seed=2)).images()


def test_an_end_that_was_missed_is_read_from_the_history(
    slow: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    server, second = Server(slow.url), Server(slow.url)
    # ComfyUI sends to the newest connection of a client, here another one.
    second.client_id = server.client_id
    with contextlib.closing(second._connect()):
        seen: list[Event] = []
        connect = server._connect

        def first() -> Any:
            mine = connect()
            taken.append(second._connect())
            return mine

        taken: list[Any] = []
        monkeypatch.setattr(server, "_connect", first)
        done = server.run(txt2img(), seen.append)
        taken[0].close()
    assert [e.kind for e in seen] == ["history"]
    assert done.images()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Until it is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


# --- files, and the rest of the calls ---------------------------------------------------------


def png(size: tuple[int, int], colour: str) -> bytes:
    """A picture with an alpha channel."""
    stream = io.BytesIO()
    Image.new("RGBA", size, colour).save(stream, "PNG")
    return stream.getvalue()


def test_upload_and_view(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    picture = png((24, 16), "#ff000080")
    assert server.upload("a picture.png", picture) == "a picture.png"
    place = {"filename": "a picture.png", "subfolder": "", "type": "input"}
    assert server.view(place) == picture
    # Once more: the name stays, the content is the new one.
    assert server.upload("a picture.png", png((8, 8), "blue")) == "a picture.png"
    with Image.open(shared_standin.base / "input/a picture.png") as kept:
        assert kept.size == (8, 8)


def test_a_mask_becomes_the_alpha_channel(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    server.upload("whole.png", png((24, 16), "#ff0000ff"))
    name = server.upload("masked.png", png((24, 16), "#00000040"), mask_of="whole.png")
    with Image.open(shared_standin.base / "input" / name) as kept:
        assert kept.getpixel((3, 3)) == (255, 0, 0, 0x40)


def test_an_image_that_is_gone(shared_standin: Standin) -> None:
    with pytest.raises(Trouble, match="answers /view with 404 Not Found"):
        Server(shared_standin.url).view({"filename": "gone.png", "type": "output"})


def test_free_forgets_what_was_computed(slow: Standin) -> None:
    server = Server(slow.url)
    server.run(txt2img())
    server.free()
    wait_for(lambda: server.run(txt2img()).cached == (), 5.0)


def test_what_waits_and_what_is_there(slow: Standin) -> None:
    server = Server(slow.url)
    assert server.queue() == ([], [])
    prompts = [server.submit(txt2img(seed, steps=40)) for seed in (1, 2, 3)]
    wait_for(lambda: len(server.queue()[0]) == 1)
    assert [entry[1] for entry in server.queue()[1]] == prompts[1:]
    assert server.history(prompts[0]) is None
    server.forget(prompts[1])
    assert [entry[1] for entry in server.queue()[1]] == prompts[2:]
    assert server.system_stats()["system"]["comfyui_version"] == "0.3.64"
    assert list(server.object_info("KSampler")) == ["KSampler"]
    assert server.object_info("Unheard") == {}


# --- a server that is none --------------------------------------------------------------------


def test_nobody_is_there() -> None:
    server = Server(f"http://127.0.0.1:{free_port()}/")
    for call in (server.system_stats, server.queue, lambda: server.run(txt2img())):
        with pytest.raises(Trouble, match=r"Connection refused.*sudo systemctl start comfyui"):
            call()


def test_an_address_that_is_none() -> None:
    with pytest.raises(Trouble, match="does not answer at"):
        Server("http://[::1").system_stats()


class Odd(BaseHTTPRequestHandler):
    """Answers whatever the test put into ``answer``."""

    answer: tuple[int, bytes] = (200, b"")

    def do_GET(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = type(self).answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def odd() -> Iterator[tuple[Server, type[Odd]]]:
    """A server that is not ComfyUI, and what it answers."""
    handler = type("Handler", (Odd,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_address[1]}"), handler
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe\x00", b'{"a": ', b"[" * 100_000, b"\x00"]
)
def test_json_that_is_none(odd: tuple[Server, type[Odd]], body: bytes) -> None:
    server, handler = odd
    handler.answer = (200, body)
    calls: tuple[Callable[[], object], ...] = (
        *(server.system_stats, server.queue, lambda: server.submit(txt2img())),
        lambda: server.upload("x.png", b""),
    )
    for call in calls:
        with pytest.raises(Trouble, match="answers no JSON; is another program on that port"):
            call()


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"text"', b"NaN"])
def test_json_that_is_no_object(odd: tuple[Server, type[Odd]], body: bytes) -> None:
    server, handler = odd
    handler.answer = (200, body)
    with pytest.raises(Trouble, match="no JSON object; is it ComfyUI"):
        server.queue()
    with pytest.raises(Trouble, match="did not say under which name"):
        server.upload("x.png", b"")
    with pytest.raises(Trouble, match="refuses the workflow: it does not say why"):
        server.submit(txt2img())


def test_an_object_of_other_shape(odd: tuple[Server, type[Odd]]) -> None:
    server, handler = odd
    handler.answer = (200, b'{"queue_running": {"a": 1}, "queue_pending": null, "x": [7]}')
    assert server.queue() == ([], [])
    assert server.history("x") is None


def test_no_websocket(odd: tuple[Server, type[Odd]]) -> None:
    with pytest.raises(Trouble, match=r"websocket at http.* does not open") as failed:
        odd[0].run(txt2img())
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("status", [400, 404, 500, 502])
def test_errors_are_told_with_path_and_status(odd: tuple[Server, type[Odd]], status: int) -> None:
    server, handler = odd
    handler.answer = (status, b"{}")
    with pytest.raises(Trouble, match=f"answers /queue with {status}"):
        server.queue()


def test_a_server_that_hangs(slow: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER", 0.3)
    slow.fault("hang")
    with pytest.raises(Trouble, match="did not answer /system_stats within"):
        Server(slow.url).system_stats()


# --- whatever others send ---------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(st.text() | st.binary() | anything.map(json.dumps))
def test_every_message_is_read_or_passed_over(raw: str | bytes) -> None:
    message = parse_message(raw)
    if message is not None:
        kind, data = message
        assert isinstance(kind, str)
        assert isinstance(data, dict)


@given(anything)
def test_a_typed_message_keeps_its_data(data: Any) -> None:
    raw = json.dumps({"type": "progress", "data": data})
    assert parse_message(raw) is not None
    if isinstance(data, dict):
        # Compared as text: NaN is not equal to itself.
        assert repr(parse_message(raw)) == repr(("progress", json.loads(json.dumps(data))))


def test_deep_messages_are_passed_over() -> None:
    assert parse_message("[" * 1_000_000) is None


node_errors = st.dictionaries(
    st.sampled_from(["1", "5", "99", ""]),
    anything | st.fixed_dictionaries({"errors": anything | st.lists(anything)}),
)


@given(anything | st.fixed_dictionaries({"node_errors": node_errors, "error": anything}))
def test_every_refusal_is_one_line(told: Any) -> None:
    sentence = refusal(told, txt2img())
    assert sentence
    assert len(sentence.splitlines()) == 1


def test_a_refusal_without_node_errors_tells_the_message() -> None:
    told = {"error": {"type": "x", "message": "Prompt has\nno outputs"}, "node_errors": {}}
    assert refusal(told, {}) == "Prompt has no outputs"
    assert refusal({"error": None}, {}) == "it does not say why"


@given(st.dictionaries(st.text(max_size=4), anything))
def test_only_images_are_images(outputs: dict[str, Any]) -> None:
    kinds: tuple[Any, ...] = (None, 5, "text", {})
    odd = {str(number): {"images": images} for number, images in enumerate(kinds)}
    outputs |= odd | {"7": {"images": [{"filename": "a.png"}, 5, {"filename": 5}]}}
    found = Done("id", 0.0, outputs, (), ()).images()
    assert {"filename": "a.png"} in found
    assert all(isinstance(image["filename"], str) for image in found)
