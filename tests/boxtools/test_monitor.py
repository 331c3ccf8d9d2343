"""strixbox monitor: what it sees of the server, its samples, its file, and its ways to end."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from boxtools import activity
from boxtools.activity import Activity, Observer, observe, parse_bar, parse_told, running_prompt
from boxtools.cli import main
from boxtools.errors import Trouble
from boxtools.gpu import Gpu
from boxtools.monitor_view import bar, plain_line, screen_view
from boxtools.sample import Limits, Sample, Sampler
from boxtools.sample_log import COLUMNS, SampleLog
from boxtools.server import Server
from boxtools.settings import Settings
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.boxtools import trees
from tests.boxtools.conftest import MakeStandin, Standin, free_port
from tests.boxtools.trees import GIB

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "import sys; from boxtools.cli import main; sys.exit(main())"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "files/opt/strixbox"), "TERM": "xterm-256color"}


def sample(**own: Any) -> Sample:
    given = {
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "ram_total": 125 * GIB,
        "ram_available": 90 * GIB,
        "ram_cached": 30 * GIB,
        "swap_total": 0,
        "swap_used": 0,
        "server": "up",
    }
    return Sample(**(given | own))


def full() -> Sample:
    return sample(
        gpu="gfx1151 (1002:1586)",
        gpu_source="sysfs",
        gpu_busy=97,
        gpu_clock=2885,
        vram_used=GIB // 4,
        vram_total=GIB // 2,
        gtt_used=12 * GIB,
        gtt_total=62 * GIB,
        temperature=91,
        power=98.1,
        read_rate=40e9,
        write_rate=20e9,
        limited_by="the temperature of the GPU",
        cpu_busy=23,
        load=1.25,
        running=1,
        waiting=3,
        node="[red]KSampler",
        step=9,
        steps=20,
        seconds_per_step=1.2,
    )


# --- what the server tells


def entry(text: object) -> dict[str, object]:
    return {"t": "2026-01-01T00:00:00.000000", "m": text}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["got prompt\n"], (None, None, None)),
        (["\r  0%|          | 0/5 [00:00<?, ?it/s]"], (0, 5, None)),
        (["\r 45%|████▌     | 9/20 [00:03<00:04,  2.50it/s]"], (9, 20, 0.4)),
        (["\r 45%|####5     | 9/20 [01:30<01:50, 10.00s/it]"], (9, 20, 10)),
        (["\r100%|██████████| 5/5 [00:02<00:00,  2.50it/s]", "\n"], (5, 5, 0.4)),
        (["100%|██| 5/5 [00:02<00:00,  2.50it/s]", "Prompt executed in 3.01 s"], (None,) * 3),
        (["\r 20%|██   | 1/5 [00:02<00:08,  2.00s/it]", "got prompt\n"], (1, 5, 2)),
        (["[INFO] 3/4 [loaded]", 7, None], (None, None, None)),
    ],
    ids=["no bar", "begins", "quick", "slow", "full", "over", "other line", "no bar either"],
)
def test_the_step_comes_from_the_last_bar_in_the_log(
    lines: list[object], found: tuple[int | None, int | None, float | None]
) -> None:
    assert parse_bar({"entries": [entry(line) for line in lines]}) == pytest.approx(found)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(ANYTHING, st.text(alphabet="0123456789/[]<,:.sit ?|\r\n"))
def test_whatever_a_server_says_is_read_without_an_exception(told: Any, line: str) -> None:
    parse_bar(told)
    parse_bar({"entries": [told, entry(told), entry(line)]})
    running_prompt(told if isinstance(told, list) else [told])
    running_prompt([[0, told, told]])
    state = {"prompt_id": told, "nodes": {"1": {"state": "running", "value": told, "max": told}}}
    for data in (told, {"nodes": told}, state):
        if isinstance(data, dict):
            parse_told(data).onto(Activity(prompt_id="p"), {"1": told})


def test_the_running_node_of_a_broadcast_joins_its_own_prompt_only() -> None:
    nodes = {
        "1": {"state": "finished", "value": 1, "max": 1},
        "2": {"state": "running", "value": 3.0, "max": 8},
    }
    told = parse_told({"prompt_id": "p", "nodes": nodes})
    graph = {"2": {"class_type": "VAEDecodeTiled"}}
    seen = Activity(running=1, prompt_id="p", step=5, steps=20, seconds_per_step=2.0)
    joined = told.onto(seen, graph)
    assert (joined.node, joined.step, joined.steps) == ("VAEDecodeTiled", 3, 8)
    assert joined.seconds_per_step is None  # the bar in the log was another node's
    other = Activity(running=1, prompt_id="q")
    assert told.onto(other, graph) == other


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ""}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0]},
            **{"latent_image": ["3", 0], "seed": 1, "steps": 20, "cfg": 7.0, "denoise": 1.0},
            **{"sampler_name": "euler", "scheduler": "normal"},
        },
    },
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
}


def queue(url: str, seed: int, **own: str) -> None:
    graph = json.loads(json.dumps(GRAPH))
    graph["1"]["inputs"]["ckpt_name"] = "sd_xl_base_1.0.safetensors"
    graph["4"]["inputs"]["seed"] = seed
    answer = requests.post(f"{url}/prompt", json={"prompt": graph, **own}, timeout=30)
    assert answer.status_code == 200, answer.text


def test_the_queue_and_the_node_of_a_prompt_without_a_client(make_standin: MakeStandin) -> None:
    standin = make_standin(variables={"STRIXBOX_STANDIN_STEP": "0.04"})
    standin.start()
    server = Server(standin.url)
    assert observe(server).idle
    with Observer(server) as observer:
        time.sleep(0.3)  # for its websocket
        queue(standin.url, 1)
        queue(standin.url, 2)
        until(lambda: observer.now.node == "KSampler" and bool(observer.now.step))
        seen = observer.now
        assert (seen.running, seen.steps, seen.problem, seen.idle) == (1, 20, None, False)
        until(lambda: observer.now.idle)
        standin.stop()
        until(lambda: observer.now.problem is not None)
        assert "does not answer" in str(observer.now.problem)
        standin.start()
        until(lambda: observer.now.problem is None)


def test_an_absent_server_is_an_answer_too() -> None:
    seen = observe(Server(f"http://127.0.0.1:{free_port()}"))
    assert seen.problem is not None and "does not answer" in seen.problem


# --- samples


def test_a_sample_of_a_box(tmp_path: Path) -> None:
    trees.proc(tmp_path)
    trees.apu(tmp_path)
    sampler = Sampler(tmp_path)
    trees.write(tmp_path / "proc/stat", "cpu  300 0 50 700 50 0 0 0")
    taken = sampler.take(Activity(running=1, step=3, steps=20, seconds_per_step=1.23456))
    assert (taken.gpu, taken.gpu_busy, taken.gtt_used) == ("gfx1151 (1002:1586)", 97, 12 * GIB)
    assert (taken.cpu_busy, taken.load, taken.ram_available) == (100, 1.25, 90 * GIB)
    assert (taken.server, taken.step, taken.seconds_per_step) == ("up", 3, 1.235)
    trees.unreadable(tmp_path / trees.DRM / "card1/device/vendor")
    assert sampler.take(Activity("gone")).gpu is None


def test_the_firmwares_counters_say_what_holds_the_clocks_back() -> None:
    limits = Limits()
    first, second = (1, 2, 3, 4, 5, 6, 7), (1, 3, 3, 4, 5, 7, 7)
    assert limits.judge(Gpu("card0", "", throttles=first)) is None
    told = limits.judge(Gpu("card0", "", throttles=second))
    assert told == "the sustained power limit, the temperature of the GPU"
    assert limits.judge(Gpu("card0", "", throttles=second)) is None
    hot = Gpu("card0", "", throttles=second, busy=99, clock=100, temperature=99)
    assert limits.judge(hot) is None  # the counters know better


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"temperature": 93.0}, "the temperature of the GPU"),
        ({"temperature": 93.0, "temperature_limit": 105.0}, None),
        ({"power": 98.0, "power_limit": 100.0}, "the power limit"),
        ({"power": 98.0}, None),
        ({"temperature": 93.0, "clock": 2800.0}, None),
        ({"temperature": 93.0, "busy": 10.0}, None),
        ({}, None),
    ],
    ids=["hot", "cooler than its limit", "at its cap", "no cap", "clocks are up", "idle", "fine"],
)
def test_without_counters_low_clocks_of_a_busy_gpu_at_a_limit(
    now: dict[str, Any], told: str | None
) -> None:
    limits = Limits()
    assert limits.judge(Gpu("card0", "", busy=99, clock=2900)) is None
    assert limits.judge(Gpu("card0", "", **({"busy": 99.0, "clock": 2000.0} | now))) == told


# --- the views


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize(
    "one", [full(), sample(), sample(server="[bold]down")], ids=["full", "empty", "down"]
)
def test_the_screen_at_every_width(width: int, one: Sample) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    console.print(screen_view(one, width))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "q quits" in text
    if width >= 80 and one.gpu:
        for words in ("12.0 GiB of 62.0 GiB", "[red]KSampler", "9/20, 1.20 s/it", "held back by"):
            assert words in text


def test_the_line() -> None:
    line = plain_line(full())
    assert "gpu 97% 2885 MHz 91 °C 98 W  vram 0.2/0.5 GiB  gtt 12.0/62.0 GiB" in line
    assert "queue 1+3  [red]KSampler  9/20, 1.20 s/it  held back by" in line
    assert "no AMD GPU  cpu -  ram 35.0/125.0 GiB  ComfyUI does not answer" in plain_line(
        sample(server="it is gone")
    )


@given(st.none() | st.floats(-2, 2), st.integers(1, 60))
def test_a_bar_has_its_columns(share: float | None, columns: int) -> None:
    assert len(bar(share, columns)) == columns


# --- the file


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_csv_file_has_one_header_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "box.csv"
    for _ in range(2):
        with contextlib.closing(SampleLog(path, "csv")) as log:
            log.append(full())
            log.append(sample())
    assert path.read_text(encoding="utf-8").count("time,gpu,") == 1
    first, second, *others = rows(path)
    assert len(others) == 2
    assert (first["gtt_used"], first["time"], first["node"]) == (
        str(12 * GIB),
        "2026-01-02T03:04:05Z",
        "[red]KSampler",
    )
    assert second["gpu"] == ""


def test_json_lines_are_samples(tmp_path: Path) -> None:
    path = tmp_path / "box.jsonl"
    with contextlib.closing(SampleLog(path, "jsonl")) as log:
        log.append(full())
    assert Sample.model_validate_json(path.read_text(encoding="utf-8")) == full()


def test_a_rotated_file_is_begun_anew_and_half_a_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "box.csv"
    log = SampleLog(path, "csv")
    log.append(sample())
    path.rename(tmp_path / "box.csv.1")  # logrotate's create
    log.append(sample())
    assert (len(rows(tmp_path / "box.csv.1")), len(rows(path))) == (1, 1)
    os.truncate(path, 0)  # logrotate's copytruncate
    log.append(sample())
    assert len(rows(path)) == 1
    log.close()
    lines = tmp_path / "box.jsonl"
    lines.write_bytes(b'{"time": "20')
    log = SampleLog(lines, "jsonl")
    log.append(sample())
    assert [line[:8] for line in lines.read_text(encoding="utf-8").splitlines()] == ['{"time":'] * 2


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "box.csv"
    path.write_text("time,power\n1,2\n", encoding="utf-8")
    with pytest.raises(Trouble, match="other columns"):
        SampleLog(path, "csv").append(sample())
    assert path.read_text(encoding="utf-8") == "time,power\n1,2\n"


def test_a_full_disk_ends_it_with_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "box.jsonl"
    log = SampleLog(path, "jsonl")
    log.append(sample())
    whole = path.read_bytes()
    write = os.write

    def nearly_full(descriptor: int, content: bytes) -> int:
        if len(content) < len(whole):  # the rest of the line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:10])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(Trouble, match=r"No space left on device; 1 of this run are in it"):
        log.append(sample())
    assert path.read_bytes() == whole
    with pytest.raises(Trouble, match="No space left"):
        SampleLog(Path("/dev/full"), "jsonl").append(sample())


# --- the command


def test_once_as_json_and_as_a_picture(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitor", "--once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert tuple(told) == COLUMNS
    assert told["server"] == "up"
    assert main(["monitor", "--once"]) == 0
    assert "ComfyUI" in capsys.readouterr().out


def test_it_works_without_the_server(
    settings: Settings, standin: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.stop()
    assert main(["monitor", "--count", "2", "--interval", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("ComfyUI does not answer" in line for line in lines)


def test_a_log_of_some_samples(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "box.csv"
    words = ["monitor", "--log", str(path), "--interval", "0.1"]
    assert main([*words, "--count", "3"]) == 0
    assert len(rows(path)) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"samples in {path}: 3" in captured.err
    lines = tmp_path / "box.txt"
    assert main([*words, "--count", "1", "--format", "jsonl", "--log", str(lines)]) == 0
    assert json.loads(lines.read_text(encoding="utf-8"))["server"] == "up"


@pytest.mark.parametrize(("name", "other"), [("box.csv", "jsonl"), ("box.jsonl", "csv")])
def test_a_file_of_the_other_format_is_left_alone(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, other: str
) -> None:
    path = tmp_path / name
    words = ["monitor", "--log", str(path), "--interval", "0.1", "--count", "1"]
    assert main(words) == 0
    before = path.read_bytes()
    capsys.readouterr()
    assert main([*words, "--format", other]) == 2
    assert f"{path} holds " in (told := capsys.readouterr().err)
    assert f"say --format {name.partition('.')[2]}" in told
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [["--json"], ["--once", "--log", "x"], ["--format", "csv"], ["--interval", "0"]],
    ids=" ".join,
)
def test_wrong_use(words: list[str]) -> None:
    assert main(["monitor", *words]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_a_log_in_order(
    number: signal.Signals, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "box.jsonl"
    words = [*PROGRAM, "monitor", "--log", str(path), "--interval", "0.1"]
    with subprocess.Popen(words, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE) as process:
        until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2)
        process.send_signal(number)
        _, told = process.communicate(timeout=15)
    assert process.returncode == 0, told
    lines = path.read_bytes().splitlines()
    assert told.decode().rstrip().endswith(f": {len(lines)}")
    assert all(json.loads(line)["server"] == "up" for line in lines)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A tmux server of its own."""
    program = shutil.which("tmux")
    if program is None:
        pytest.skip("tmux is not installed")
    name = f"strixbox-{uuid.uuid4().hex[:8]}"

    def run(*words: str) -> str:
        answer = subprocess.run(
            [program, "-L", name, *words], capture_output=True, text=True, check=True, timeout=20
        )
        return answer.stdout

    yield run
    subprocess.run([program, "-L", name, "kill-server"], capture_output=True, check=False)


def test_the_live_screen_follows_its_size_and_ends_with_q(
    settings: Settings, tmux: Callable[..., str]
) -> None:
    variables = ENVIRONMENT | {"STRIXBOX_TOOLS": os.environ["STRIXBOX_TOOLS"]}
    told = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    # The shell stays, to show what the terminal is like afterwards.
    script = f"'{sys.executable}' -c '{PROGRAM[2]}' monitor; echo code $?; stty -a; exec sleep 60"
    tmux("new-session", "-d", "-x", "100", "-y", "30", *told, script)

    def shown() -> str:
        return tmux("capture-pane", "-p", "-t", ":0.0")

    until(lambda: "q quits" in shown() and "queue" in shown())
    wide = max(map(len, shown().splitlines()))
    tmux("resize-window", "-t", ":0", "-x", "60", "-y", "20")
    until(lambda: "q quits" in shown() and 20 < max(map(len, shown().splitlines())) < wide)
    tmux("send-keys", "-t", ":0.0", "q")
    until(lambda: "code 0" in shown())
    until(lambda: " icanon" in shown() and " echo " in shown())


# --- the real server

SLOW = """
import time
from tqdm.auto import trange
import comfy.utils

class Slow:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"steps": ("INT", {"default": 5})}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "go", True, "test"
    IS_CHANGED = classmethod(lambda cls, **inputs: time.time())

    def go(self, steps):
        bar = comfy.utils.ProgressBar(steps)
        for step in trange(steps):
            time.sleep(0.3)
            bar.update_absolute(step + 1, steps)
        return {"ui": {}}

NODE_CLASS_MAPPINGS = {"Slow": Slow}
"""


@pytest.fixture
def comfyui(tmp_path: Path) -> Iterator[str]:
    """The real ComfyUI on the CPU with a node that takes its time; gives its URL."""
    source, python = (os.environ.get(f"STRIXBOX_COMFYUI_{name}") for name in ("SRC", "PYTHON"))
    if not source or not python:
        pytest.skip("STRIXBOX_COMFYUI_SRC and STRIXBOX_COMFYUI_PYTHON are not set")
    trees.write(tmp_path / "base/custom_nodes/slow.py", SLOW)
    port = free_port()
    words = [
        *(python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)),
        *("--base-directory", str(tmp_path / "base"), "--temp-directory", str(tmp_path / "t")),
        *("--database-url", f"sqlite:///{tmp_path}/c.db"),
    ]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(words, cwd=source, stdout=log, stderr=log) as process,
    ):
        try:
            until(lambda: _listens(port), 120)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.comfyui
def test_the_real_server_shows_steps_to_everybody_and_nodes_to_their_client(comfyui: str) -> None:
    prompt = {"1": {"class_type": "Slow", "inputs": {"steps": 8}}}
    with Observer(Server(comfyui)) as observer:
        time.sleep(0.5)
        for client, node in (({}, "Slow"), ({"client_id": "somebody"}, None)):
            answer = requests.post(
                f"{comfyui}/prompt", json={"prompt": prompt, **client}, timeout=30
            )
            assert answer.status_code == 200, answer.text
            until(lambda: 3 <= (observer.now.step or 0) < 8)
            seen = observer.now
            assert (seen.running, seen.steps, seen.node) == (1, 8, node)
            until(lambda: observer.now.seconds_per_step is not None)
            assert observer.now.seconds_per_step == pytest.approx(0.3, rel=0.5)
            until(lambda: observer.now.idle)
        assert activity.observe(Server(comfyui)).step is None
