"""``strixbox render``: images, the queue that is shared with others, and what Ctrl-C takes back."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from boxtools import cli, pictures, render
from boxtools.errors import Trouble
from boxtools.pictures import Picture
from boxtools.server import Graph, Server
from boxtools.settings import Settings
from boxtools.workflows import Job, ObjectInfo, graph
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools.conftest import MakeStandin, Standin
from tests.boxtools.test_workflows import png

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slow(make_standin: MakeStandin) -> Standin:
    """A stand-in that takes a quarter of a second for a prompt of ``graphs``."""
    one = make_standin(variables={"STRIXBOX_STANDIN_STEP": "0.05"})
    one.start()
    return one


def graphs(url: str, count: int, first: int = 0) -> list[Graph]:
    info = ObjectInfo.ask(Server(url))
    words: dict[str, Any] = {"width": 64, "height": 64, "steps": 5}
    return [graph(Job(seed=first + number, **words), info) for number in range(count)]


def drained(server: Server) -> None:
    """Wait until nothing runs or waits; what is interrupted ends with its step."""
    until = time.monotonic() + 10
    while server.queue() != ([], []):
        assert time.monotonic() < until
        time.sleep(0.02)


def entry(client: str) -> list[Any]:
    return [1, f"id-of-{client}", {}, {"client_id": client}, []]


# --- Room in the queue --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "waiting", "ours", "expected"),
    [
        ("", "", "", True),
        ("a", "", "a", True),
        ("a", "b", "ab", True),
        ("a", "bc", "abc", False),  # two of ours wait
        ("x", "ab", "ab", False),
        ("x", "a", "a", True),
        ("", "", "a", False),  # not queued yet: the next would overtake it
        ("x", "wyz", "", True),
        ("x", "vwyz", "", False),  # a crowd
        ("a", "vwyz", "a", False),
    ],
)
def test_room(running: str, waiting: str, ours: str, expected: bool) -> None:
    found = render.room([entry(c) for c in running], [entry(c) for c in waiting], set(ours), 2)
    assert found is expected


@given(st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s, max_size=5)))
def test_odd_entries_have_no_client(odd: Any) -> None:
    assert render.client(odd) is None
    assert render.client([1, 2, {}, {"client_id": "a"}]) is None
    assert render.client([1, "p", {}, {"client_id": odd}]) in (None, odd)


def test_never_more_of_ours_wait_than_allowed_and_all_are_made_in_order(slow: Standin) -> None:
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        server = Server(slow.url)
        while not over.is_set():
            seen.append(len(server.queue()[1]))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    steps: list[tuple[int, str]] = []
    line = render.Line(slow.url, 2, lambda index, event: steps.append((index, event.kind)))
    done = [index for index, _ in line.run(graphs(slow.url, 6))]
    over.set()
    watcher.join()
    assert done == list(range(6))
    assert max(seen) == 2
    starts = [index for index, kind in steps if kind == "execution_start"]
    assert starts == list(range(6))
    assert sum(kind == "progress" for _, kind in steps) >= 6 * 5


def test_ours_wait_outside_while_others_fill_the_queue(slow: Standin) -> None:
    other = Server(slow.url)
    for one in graphs(slow.url, render.CROWD + 1, first=100):
        other.submit(one)
    until = time.monotonic() + 5
    while not other.queue()[0]:
        assert time.monotonic() < until
    held: list[int] = []
    line = render.Line(slow.url, 2, held=lambda: held.append(len(other.queue()[1])))
    assert len(list(line.run(graphs(slow.url, 1)))) == 1
    assert held
    assert min(held[:1]) >= render.CROWD - 1


def test_a_failure_takes_back_only_ours(slow: Standin) -> None:
    other = Server(slow.url)
    theirs = other.submit(graphs(slow.url, 1, first=100)[0])
    made: list[int] = []
    with (
        pytest.raises(ZeroDivisionError),
        closing(render.Line(slow.url, 2).run(graphs(slow.url, 5))) as ends,
    ):
        for index, _ in ends:
            made.append(index)
            raise ZeroDivisionError
    drained(other)
    assert made == [0]
    assert other.history(theirs) is not None


def test_withdraw_touches_nobody_elses(slow: Standin) -> None:
    other, ours = Server(slow.url), Server(slow.url)
    first, *rest = graphs(slow.url, 3, first=100)
    theirs = [other.submit(first)]
    mine = ours.submit(graphs(slow.url, 1)[0])
    theirs += [other.submit(one) for one in rest]
    render.withdraw(Server(slow.url), {ours.client_id})
    drained(other)
    for prompt in theirs:
        status = (other.history(prompt) or {}).get("status", {})
        assert status.get("status_str") == "success"
    assert other.history(mine) is None


def test_a_node_that_fails_is_a_sentence_and_the_rest_is_taken_back(slow: Standin) -> None:
    slow.fault("node-error")
    with pytest.raises(Trouble, match="out of memory"):
        list(render.Line(slow.url, 2).run(graphs(slow.url, 4)))
    drained(Server(slow.url))


def test_ctrl_c_takes_back_ours_and_leaves_theirs(
    slow: Standin, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "tools.json"
    file.write_text(settings.model_copy(update={"url": slow.url}).model_dump_json(), "utf-8")
    code = "import sys; from boxtools.cli import main; sys.exit(main())"
    words = ["render", "txt2img", "--size", "64x64", "--steps", "80", "--count", "9"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=os.environ
        | {"STRIXBOX_TOOLS": str(file), "PYTHONPATH": str(ROOT / "files/opt/strixbox")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    other = Server(slow.url)
    until = time.monotonic() + 20
    while [len(part) for part in other.queue()] != [1, 2]:
        assert time.monotonic() < until
        time.sleep(0.02)
    theirs = other.submit(graphs(slow.url, 1, first=100)[0])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in told
    while other.history(theirs) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    status = (other.history(theirs) or {}).get("status", {})
    assert status.get("status_str") == "success"
    assert other.queue() == ([], [])


# --- Copies -------------------------------------------------------------------------------------


def test_store_never_writes_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    assert render.store(b"new", "a.png", tmp_path).name == "a-1.png"
    assert render.store(b"newer", "a.png", tmp_path).name == "a-2.png"
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.png", "a-2.png", "a.png"]


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "", ".", "a\\..\\b", "n\0ul"])
def test_store_stays_in_its_directory(tmp_path: Path, name: str) -> None:
    home = tmp_path / "in" / "here"
    path = render.store(b"x", name, home)
    assert path.parent == home
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_store_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="--out"):
        render.store(b"x", "n" * 300, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(Trouble, match="--out"):
        render.store(b"x", "a.png", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- Image headers ------------------------------------------------------------------------------


def jpeg(width: int, height: int, orientation: int | None = None, order: str = "<") -> bytes:
    parts = [b"\xff\xd8"]
    if orientation is not None:
        mark = b"II*\0" if order == "<" else b"MM\0*"
        entry_ = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
        tiff = mark + struct.pack(f"{order}IH", 8, 1) + entry_ + b"\0\0\0\0"
        exif = b"Exif\0\0" + tiff
        parts.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    parts.append(b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0")
    return b"".join(parts)


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(body)) + body + bytes(12)


HEADERS = {
    "png": (png(), Picture(".png", 1, 1, True)),
    "jpeg": (jpeg(640, 480), Picture(".jpg", 640, 480, False)),
    "jpeg on its side": (jpeg(640, 480, 6), Picture(".jpg", 480, 640, False)),
    "jpeg on its side, Motorola": (jpeg(640, 480, 8, ">"), Picture(".jpg", 480, 640, False)),
    "jpeg upside down": (jpeg(640, 480, 3), Picture(".jpg", 640, 480, False)),
    "webp": (
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480)),
        Picture(".webp", 640, 480, False),
    ),
    "webp without loss": (
        webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14 | 1 << 28)),
        Picture(".webp", 640, 480, True),
    ),
    "webp with more": (
        webp(b"VP8X", b"\x10\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
        Picture(".webp", 640, 480, True),
    ),
    "text": (b"hello", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers(kind: str) -> None:
    content, expected = HEADERS[kind]
    assert pictures.look(content) == expected


@given(
    start=st.sampled_from([content for content, _ in HEADERS.values()]),
    cut=st.integers(0, 80),
    at=st.integers(0, 60),
    tail=st.binary(max_size=60),
)
def test_odd_headers_raise_nothing(start: bytes, cut: int, at: int, tail: bytes) -> None:
    for content in (start[:cut] + tail, start[:at] + tail + start[at + len(tail) :]):
        found = pictures.look(content)
        assert found is None or (found.width > 0 and found.height > 0)


@given(st.integers(1, 100000), st.integers(1, 100000))
def test_any_picture_becomes_a_size_that_comfyui_makes(width: int, height: int) -> None:
    sides = pictures.fit(Picture(".png", width, height, False), 1024 * 1024)
    assert all(side % 8 == 0 and 16 <= side <= 16384 for side in sides)
    if max(width, height) < 4 * min(width, height):
        assert 0.95 < sides[0] * sides[1] / 1024**2 < 1.05
        assert 0.95 < (sides[0] / sides[1]) / (width / height) < 1.05


# --- The command --------------------------------------------------------------------------------

Words = list[str]


def strixbox(*words: str) -> int:
    return cli.main(["render", *words])


def test_images_are_saved_and_told(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert strixbox("txt2img", "-p", "a [red] boat", "--size", "64x128", "--batch", "2",
                    "--count", "2", "--seed", "7", "--json") == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert [made["seed"] for made in told["made"]] == [7, 8]
    assert (told["asked"], told["job"]["steps"], told["job"]["sampler"]) == (2, 25, "dpmpp_2m")
    paths = [Path(path) for made in told["made"] for path in made["images"]]
    assert len(set(paths)) == 4
    for path in paths:
        found = pictures.look(path.read_bytes())
        assert found is not None
        assert (found.width, found.height) == (64, 128)
    assert not any(made["cached"] for made in told["made"])
    used = json.loads((settings.state / "usage.json").read_text())
    assert list(used) == [f"checkpoints/{told['job']['checkpoint']}"]


def test_the_same_job_again_is_said_to_be_the_same(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("txt2img", "--size", "64x64", "--seed", "1")
    assert strixbox(*words) == strixbox(*words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "seed 1" in first
    assert "made before" in second
    assert "made before" not in first


def test_out_copies_and_never_overwrites(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("txt2img", "--size", "64x64", "--seed", "1", "--out", str(tmp_path / "mine"))
    assert strixbox(*words) == strixbox(*words) == 0
    copies = list((tmp_path / "mine").iterdir())
    assert len(copies) == 2
    assert all(path.stat().st_size for path in copies)
    assert capsys.readouterr().out.count(str(tmp_path / "mine")) == 2


def test_a_directory_that_takes_no_copies_is_told_before_anything_is_queued(
    settings: Settings, standin: Standin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert strixbox("txt2img", "--size", "64x64", "--out", str(tmp_path / "file/mine")) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path}/file/mine takes no files: Not a directory; name another with --out" in told
    assert Server(standin.url).table("/history") == {}
    assert strixbox("txt2img", "--print", "--out", str(tmp_path / "other")) == 0
    assert not (tmp_path / "other").exists()


def test_a_local_image_is_uploaded_under_a_name_of_its_own(
    settings: Settings, standin: Standin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = standin.base / "input" / "photo.png"
    theirs.write_bytes(b"of somebody else")
    (tmp_path / "photo.png").write_bytes(png())
    words = ["--image", str(tmp_path / "photo.png"), "--steps", "2", "--json"]
    assert strixbox("img2img", *words) == 0
    assert theirs.read_bytes() == b"of somebody else"
    told = json.loads(capsys.readouterr().out)
    assert (standin.base / "input" / told["job"]["image"]).read_bytes() == png()
    assert (told["job"]["width"], told["job"]["height"]) == (1024, 1024)
    assert told["job"]["denoise"] == 0.7


def test_print_queues_nothing(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strixbox("refiner", "--print", "--seed", "5") == 0
    made = json.loads(capsys.readouterr().out)
    assert {"KSamplerAdvanced", "SaveImage"} <= {node["class_type"] for node in made.values()}
    assert Server(standin.url).table("/history") == {}


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert strixbox("--list") == 0
    assert "tiled-diffusion-vae" in capsys.readouterr().out
    assert strixbox("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["workflows"]["lcm"]["sampler"] == "lcm"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a workflow"),
        (("txt2mig",), "no workflow txt2mig"),
        (("txt2img", "--size", "1000x1001"), "multiples of 8"),
        (("txt2img", "--steps", "0"), "--steps 0"),
        (("txt2img", "--cfg", "nan"), "--cfg nan: Input should be a finite number"),
        (("txt2img", "--batch", "0"), "--batch 0"),
        (("txt2img", "--seed", "-1"), "--seed -1"),
        (("txt2img", "--seed", str(2**64 - 1), "--count", "2"), "--seed"),
        (("img2img",), "--image"),
        (("img2img", "--image", "/nowhere.png"), "cannot be read"),
        (("img2img", "--image", __file__), "is no PNG"),
        (("txt2img", "--mask", "{png}"), "takes no mask"),
        (("inpaint", "--image", "{jpeg}"), "nothing transparent"),
        (("txt2img", "--image", "{png}"), "takes no image"),
    ],
)
def test_wrong_use_is_one_sentence_before_any_server_is_asked(
    tmp_path: Path,
    words: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STRIXBOX_TOOLS", "/nowhere")
    files = {"png": tmp_path / "a.png", "jpeg": tmp_path / "a.jpg"}
    files["png"].write_bytes(png())
    files["jpeg"].write_bytes(jpeg(8, 8))
    assert strixbox(*(word.format(**files) if word[:1] == "{" else word for word in words)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_what_is_missing_on_the_box_is_one_sentence(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert strixbox("turbo") == 1
    assert "models/checkpoints" in capsys.readouterr().err
    assert strixbox("txt2img", "--sampler", "euler_a") == 1
    assert "'euler_a'" in capsys.readouterr().err
    standin.stop()
    assert strixbox("txt2img") == 1
    told = capsys.readouterr().err
    assert "systemctl start" in told
    assert told.count("\n") == 1


def test_what_was_made_before_a_failure_is_told(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.restart(STRIXBOX_STANDIN_STEP="0.05")
    watcher = Server(standin.url)

    def break_after_the_first() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and not watcher.table("/history"):
            time.sleep(0.01)
        standin.fault("node-error")

    breaker = threading.Thread(target=break_after_the_first)
    breaker.start()
    code = strixbox("txt2img", "--size", "64x64", "--steps", "5", "--count", "4", "--json")
    breaker.join()
    told = capsys.readouterr()
    assert code == 1
    assert "out of memory" in told.err
    assert 1 <= len(json.loads(told.out)["made"]) < 4
