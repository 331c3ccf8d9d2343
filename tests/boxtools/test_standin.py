"""The stand-in keeps what it promises: ComfyUI v0.3.64's answers, without its pictures.

Tests against it are worth as much as it is like ComfyUI. Where STRIXBOX_COMFYUI_SRC names the real
one, both are asked the same here, and must answer the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from boxtools.errors import Trouble
from boxtools.server import Graph, Server
from boxtools.settings import Settings, load
from PIL import Image

from tests.boxtools.conftest import CODE, MakeStandin, Standin, free_port

TABLE = json.loads((CODE / "core_nodes.json").read_text(encoding="utf-8"))


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a workflow."""
    return {"class_type": kind, "inputs": inputs}


def scaled(width: int = 40, **own: Any) -> Graph:
    """A workflow that needs no model: the real server runs it too."""
    inputs = {"image": ["1", 0], "upscale_method": "bilinear", "width": width, "height": 20}
    return {
        "1": node("EmptyImage", width=64, height=32, batch_size=2, color=255),
        "2": node("ImageScale", **(inputs | {"crop": "disabled"} | own)),
        "3": node("SaveImage", images=["2", 0], filename_prefix="scaled"),
        "4": node("PreviewImage", images=["1", 0]),
    }


def sampled(width: int = 512, height: int = 512, **own: Any) -> Graph:
    """A workflow with a model."""
    inputs: dict[str, Any] = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0]}
    inputs |= {"latent_image": ["3", 0], "seed": 1, "steps": 3, "cfg": 7.0, "denoise": 1.0}
    inputs |= {"sampler_name": "euler", "scheduler": "normal"}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "2": node("CLIPTextEncode", text="x", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=width, height=height, batch_size=1),
        "4": node("KSampler", **(inputs | own)),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("PreviewImage", images=["5", 0]),
    }


# --- starting, stopping, failing --------------------------------------------------------------


def test_the_settings_are_those_of_the_running_server(settings: Settings, standin: Standin) -> None:
    assert load() == settings
    assert settings.url == standin.url
    for model in settings.active.rglob("*.safetensors"):
        assert model.stat().st_size > 1024


def test_launch_starts_a_second_server_as_on_a_box(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    own = ("--port", str(port), "--temp-directory", str(tmp_path / "own"))
    words = ("lowvram", "GPU_MAX_HEAP_SIZE=", "PYTORCH_TUNABLEOP_ENABLED=1", *own)
    process = subprocess.Popen([str(settings.launch), *words], stderr=subprocess.DEVNULL)
    try:
        server = Server(f"http://127.0.0.1:{port}")
        wait_for(lambda: answers(server))
        argv = server.system_stats()["system"]["argv"]
        assert argv[-5:] == ["--lowvram", *own]
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        assert b"PYTORCH_TUNABLEOP_ENABLED=1" in environment
        assert not [one for one in environment if one.startswith(b"GPU_MAX_HEAP_SIZE")]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    refused = subprocess.run([str(settings.launch), "fast"], capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"usage: launch PROFILE" in refused.stderr


def answers(server: Server) -> bool:
    """Whether it answers."""
    with contextlib.suppress(Trouble):
        return bool(server.system_stats())
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is true."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


def test_it_ends_with_sigint_and_keeps_nothing_temporary(standin: Standin) -> None:
    Server(standin.url).run(scaled())
    assert list((standin.temp / "temp").glob("*.png"))
    assert standin.stop() == 0
    assert "Stopped server" in standin.log
    assert "Traceback" not in standin.log
    assert not (standin.temp / "temp").exists()
    standin.restart("--disable-metadata", STRIXBOX_STANDIN_STEP="0")
    assert "--disable-metadata" in Server(standin.url).system_stats()["system"]["argv"]


def test_the_quick_test_loads_nodes_and_ends(make_standin: MakeStandin) -> None:
    one: Standin = make_standin(flags=("--quick-test-for-ci",))
    (one.base / "custom_nodes/broken").mkdir()
    (one.base / "custom_nodes/broken/__init__.py").write_text("import nothing_like_it")
    one.start(wait=False)
    assert one.process is not None
    assert one.process.wait(timeout=20) == 0
    assert re.search(r"seconds \(IMPORT FAILED\): .*/custom_nodes/broken\n", one.log)


def test_faults_are_those_asked_for(make_standin: MakeStandin) -> None:
    one: Standin = make_standin()
    one.fault("crash-at-start")
    with pytest.raises(RuntimeError, match="told to crash at start"):
        one.start()
    one.fault("crash-at-start", wanted=False)
    one.fault("newer-http-500")
    one.start()
    # That one is for a release with a NEWER beside it.
    assert requests.get(f"{one.url}/system_stats", timeout=9).status_code == 200
    one.fault("http-500")
    assert requests.get(f"{one.url}/system_stats", timeout=9).status_code == 500
    one.fault("http-500", wanted=False)
    one.fault("crash-after-ready")
    assert requests.get(f"{one.url}/system_stats", timeout=9).status_code == 200
    assert one.process is not None
    assert one.process.wait(timeout=10) == 1


# --- prompts ----------------------------------------------------------------------------------


def test_models_are_read_and_given_back(make_standin: MakeStandin) -> None:
    one: Standin = make_standin(variables={"STRIXBOX_STANDIN_GPU": "1"})
    one.start()
    server = Server(one.url)
    before = server.system_stats()["devices"][0]
    assert (before["name"], before["type"]) == ("cuda:0 AMD Radeon Graphics : native", "cuda")
    server.run(sampled())
    size = (one.base / "models/checkpoints/sd_xl_base_1.0.safetensors").stat().st_size

    def held() -> int:
        return int(before["vram_free"] - server.system_stats()["devices"][0]["vram_free"])

    assert held() == size
    server.free()
    wait_for(lambda: held() == 0)


def test_sizes_follow_the_graph(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)

    def size(graph: Graph) -> tuple[int, int]:
        with Image.open(io.BytesIO(server.view(server.run(graph).images()[0]))) as picture:
            assert picture.getextrema() != ((0, 0),) * 3  # not black
            return picture.size

    assert size(sampled(72, 100)) == (72, 96)  # a latent holds multiples of 8
    assert size(scaled(width=48)) == (48, 20)
    assert size(scaled(width=0)) == (40, 20)  # 0 keeps the proportions
    name = server.upload("in.png", server.view(server.run(scaled()).images()[0]))
    graph = sampled() | {"3": node("VAEEncode", pixels=["8", 0], vae=["1", 2])}
    graph["8"] = node("LoadImage", image=name)
    assert size(graph) == (40, 16)


def test_other_seeds_give_other_pictures_and_the_same_the_same(standin: Standin) -> None:
    server = Server(standin.url)

    def pixel(seed: int) -> Any:
        with Image.open(io.BytesIO(server.view(server.run(sampled(seed=seed)).images()[0]))) as one:
            return one.getpixel((0, 0))

    first = pixel(1)
    assert pixel(2) != first
    standin.restart()
    assert pixel(1) == first


def test_steps_are_those_of_the_sampler(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)

    def steps(graph: Graph, name: str) -> int:
        events = server.run(graph).events
        return max((e.value for e in events if e.kind == "progress" and e.node == name), default=0)

    assert steps(sampled(seed=11, steps=5), "4") == 5
    graph = sampled()
    graph["4"] = node(
        "KSamplerAdvanced",
        **{name: graph["4"]["inputs"][name] for name in ("model", "positive", "negative")},
        **{"add_noise": "enable", "noise_seed": 1, "steps": 25, "cfg": 7.0},
        **{"sampler_name": "euler", "scheduler": "normal", "return_with_leftover_noise": "enable"},
        **{"start_at_step": 20, "end_at_step": 10000, "latent_image": ["3", 0]},
    )
    assert steps(graph, "4") == 5
    graph = sampled(width=2048, height=2048)
    graph["5"] = node(
        "VAEDecodeTiled",
        **{"samples": ["4", 0], "vae": ["1", 2], "tile_size": 512, "overlap": 64},
        **{"temporal_size": 64, "temporal_overlap": 8},
    )
    assert steps(graph, "5") > 40  # tiles tell their progress too


@pytest.mark.parametrize(
    ("flags", "cached"),
    [((), set("12345")), (("--cache-none",), set()), (("--cache-lru", "99"), set("123456"))],
)
def test_the_cache_is_the_one_asked_for(
    make_standin: MakeStandin, flags: tuple[str, ...], cached: set[str]
) -> None:
    one: Standin = make_standin(flags=flags, variables={"STRIXBOX_STANDIN_STEP": "0"})
    one.start()
    server = Server(one.url)
    graph = sampled()
    server.run(graph)
    # The classic cache keeps what the last prompt held, an LRU cache what was held before.
    other = graph | {"6": node("SaveImage", images=["5", 0], filename_prefix="x")}
    server.run(other)
    assert set(server.run(graph).cached) == cached


# --- node packs -------------------------------------------------------------------------------

PACK = """
import folder_paths, nodes
from aiohttp import web
from comfy.cli_args import args
from server import PromptServer

@PromptServer.instance.routes.get("/mine")
async def mine(request):
    PromptServer.instance.send_sync("mine", {"port": args.port})
    return web.json_response({"temp": folder_paths.get_temp_directory()})

class Count:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("INT",), "count", "mine", True
    @classmethod
    def INPUT_TYPES(cls):
        most = nodes.MAX_RESOLUTION
        return {"required": {"text": ("STRING", {"default": "a"}), "most": ("INT", {"max": most})},
                "hidden": {"unique_id": "UNIQUE_ID"}}
    def count(self, text, most, unique_id):
        return {"ui": {"text": [f"{unique_id}:{len(text)}"]}, "result": (len(text),)}

class Blur:
    RETURN_TYPES, FUNCTION = ("IMAGE",), "blur"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}
    def blur(self, image):
        raise RuntimeError("there are no tensors here")

NODE_CLASS_MAPPINGS = {"Count": Count, "Blur": Blur}
NODE_DISPLAY_NAME_MAPPINGS = {"Count": "Counts"}
"""


def test_a_pack_brings_nodes_and_routes(make_standin: MakeStandin) -> None:
    one: Standin = make_standin()
    (one.base / "custom_nodes/my-pack").mkdir()
    (one.base / "custom_nodes/my-pack/__init__.py").write_text(PACK)
    one.start()
    server = Server(one.url)
    told = server.object_info("Count")["Count"]
    assert told["display_name"] == "Counts"
    assert told["python_module"] == "custom_nodes.my-pack"
    assert told["input"]["required"]["most"] == ["INT", {"max": 16384}]
    graph = scaled() | {"8": node("Blur", image=["2", 0]), "9": node("Count", text="abc", most=5)}
    graph["3"]["inputs"]["images"] = ["8", 0]
    done = server.run(graph)
    assert done.outputs["9"] == {"text": ["9:3"]}
    assert len(done.outputs["3"]["images"]) == 2
    with contextlib.closing(server._connect()) as socket:
        assert server.table("/api/mine") == {"temp": str(one.temp / "temp")}
        while (message := json.loads(socket.recv()))["type"] != "mine":
            pass
        assert message["data"] == {"port": one.port}


# --- the simulated GPU ------------------------------------------------------------------------


def test_tunableop_is_simulated(make_standin: MakeStandin, tmp_path: Path) -> None:
    file = tmp_path / "tuned-%d.csv"
    variables = {"STRIXBOX_STANDIN_GPU": "1", "PYTORCH_TUNABLEOP_FILENAME": str(file)}
    variables["HSA_OVERRIDE_GFX_VERSION"] = "11.0.0"
    one: Standin = make_standin(variables=variables | {"PYTORCH_TUNABLEOP_ENABLED": "1"})
    one.start()
    server = Server(one.url)
    path = "/strixbox/tunableop"
    told = server.table(path)
    assert (told["supported"], told["enabled"], told["tuning"]) == (True, True, True)
    assert told["filename"] == str(tmp_path / "tuned-0.csv")
    server.run(sampled(seed=1))
    first = server.table(path)["results"]
    server.run(sampled(seed=2))
    assert server.table(path)["results"] == first > 0  # a size is tuned once
    server.run(sampled(768, seed=3))
    second = server.table(path)["results"]
    assert second > first
    off = server.json("POST", path, json={"tuning": False, "write": True})
    assert off == told | {"tuning": False, "results": second}
    server.run(sampled(896, seed=4))
    assert server.table(path)["results"] == second
    lines = (tmp_path / "tuned-0.csv").read_text().splitlines()
    assert lines[0] == "Validator,PT_VERSION,2.6.0"
    assert told["validators"]["ROCM_VERSION"].startswith("6.4.")
    assert told["validators"]["GCN_ARCH_NAME"] == "gfx1100"  # as torch itself, by the override
    assert len(lines) == len(told["validators"]) + second
    # Another process takes them up; of another torch it would not.
    one.restart(PYTORCH_TUNABLEOP_TUNING="0")
    assert server.table(path)["results"] == second
    assert server.json("POST", path, json={"tuning": True})["tuning"] is False
    lost = tmp_path / "gone/x.csv"
    one.restart(PYTORCH_TUNABLEOP_FILENAME=str(lost))
    refused = requests.post(one.url + path, json={"write": True}, timeout=9)
    assert refused.status_code == 409


def test_without_a_gpu_there_is_no_such_route(shared_standin: Standin) -> None:
    assert requests.get(f"{shared_standin.url}/strixbox/tunableop", timeout=9).status_code == 404


# --- beside the real one ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_standin: Standin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real ComfyUI on the CPU with the same models."""
    source, python = real_code()
    base = tmp_path_factory.mktemp("real") / "ComfyUI"
    for name in ("input", "output", "user", "custom_nodes"):
        (base / name).mkdir(parents=True)
    shutil.copytree(shared_standin.base / "models", base / "models")
    port = free_port()
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)),
                *("--base-directory", str(base), "--temp-directory", str(base.parent / "ramdisk")),
                *("--database-url", f"sqlite:///{base}/c.db", "--disable-api-nodes"),
            ],
            cwd=source,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=log,
            stderr=log,
        )
    server = Server(f"http://127.0.0.1:{port}")
    until = time.monotonic() + 180
    try:
        while not answers(server):
            assert process.poll() is None, (base / "log").read_text()
            assert time.monotonic() < until, (base / "log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


def real_code() -> tuple[Path, Path]:
    """The real ComfyUI's checkout and Python."""
    names = ("STRIXBOX_COMFYUI_SRC", "STRIXBOX_COMFYUI_PYTHON")
    source, python = (os.environ.get(name) for name in names)
    if not source or not python:
        pytest.skip(f"{' and '.join(names)} name no real ComfyUI")
    return Path(source), Path(python)


def plain(told: Any) -> Any:
    """Without what explains: tooltips and descriptions are ComfyUI's own words."""
    if isinstance(told, dict):
        return {k: plain(v) for k, v in told.items() if k != "tooltip"}
    if isinstance(told, list):
        values = [plain(one) for one in told]
        return values[:1] if values[1:] == [{}] else values  # no options
    return told


@pytest.mark.comfyui
def test_nodes_are_described_as_by_the_real_one(real: Server, shared_standin: Standin) -> None:
    shutil.rmtree(shared_standin.base / "input")
    (shared_standin.base / "input").mkdir()
    ours, theirs = Server(shared_standin.url).object_info(), real.object_info()
    assert set(ours) == set(TABLE["nodes"])
    keys = ("input", "input_order", "output", "output_is_list", "output_name", "output_node")
    for name in TABLE["nodes"]:
        for key in (*keys, "name", "category", "python_module"):
            assert plain(ours[name][key]) == plain(theirs[name][key]), (name, key)
        assert list(ours[name]["input"].get("required", {})) == list(
            theirs[name]["input"].get("required", {})
        )


FLAGS = """
import json, comfy.options
comfy.options.enable_args_parsing()
import sys
sys.argv[1:] = []
from comfy.cli_args import parser
told = {}
for action in parser._actions:
    choices = action.choices and sorted(getattr(c, "value", c) for c in action.choices)
    kind = type(action).__name__.replace("EnumAction", "_StoreAction")
    default = str(getattr(action.default, "value", action.default))
    told[action.option_strings[-1]] = [kind, action.nargs, choices, default, str(action.const)]
excluding = sorted(sorted(a.option_strings[-1] for a in group._group_actions)
    for group in parser._mutually_exclusive_groups)
print(json.dumps([told, [g for g in excluding if len(g) > 1]]))
"""


@pytest.mark.comfyui
def test_flags_are_those_of_the_real_one(shared_standin: Standin) -> None:
    source, python = real_code()
    told = []
    for code, program in ((CODE, shared_standin.python), (source, python)):
        answer = subprocess.run(
            [str(program), "-c", FLAGS],
            cwd=code,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(json.loads(answer.stdout.replace(str(code), "CODE")))
    for flag in {**told[0][0], **told[1][0]}:
        assert told[0][0].get(flag) == told[1][0].get(flag), flag
    assert told[0][1] == told[1][1]


WRONG: dict[str, Graph] = {
    "nothing": {},
    "no output": {"1": node("EmptyImage", width=64, height=64, batch_size=1, color=0)},
    "unknown node": {"1": node("Unheard")},
    "no class": {"1": {"inputs": {}}},
    "missing": scaled() | {"2": node("ImageScale", image=["1", 0], width=5)},
    "too small": scaled(width=-3),
    "too big": scaled(width=99999),
    "not a number": scaled(height="tall"),
    "not in list": scaled(crop="[left]"),
    "not in a long list": sampled(sampler_name="dpm++"),
    "no such model": sampled() | {"1": node("CheckpointLoaderSimple", ckpt_name="no.safetensors")},
    "other type": scaled(image=["5", 0])
    | {"5": node("EmptyLatentImage", width=64, height=64, batch_size=1)},
    "bad link": scaled(image=["1"]),
    "no such source": scaled(image=["77", 0]),
    "no such slot": scaled(image=["1", 4]),
    "no such image": {
        "1": node("LoadImage", image="no.png"),
        "2": node("PreviewImage", images=["1", 0]),
    },
    "a good output beside a bad one": scaled(width=-3)
    | {"3": node("PreviewImage", images=["1", 0])},
}


@pytest.mark.comfyui
@pytest.mark.parametrize("what", WRONG)
def test_refusals_are_those_of_the_real_one(
    real: Server, shared_standin: Standin, what: str
) -> None:
    answers = []
    for server in (Server(shared_standin.url), real):
        answer = requests.post(server.url + "/prompt", json={"prompt": WRONG[what]}, timeout=30)
        told = answer.json()
        for one in told.get("node_errors", {}).values():
            one["errors"].sort(key=json.dumps)  # theirs come in the order of a set
            for error in one["errors"]:
                error["extra_info"].pop("traceback", None)
                error["extra_info"].pop("input_config", None)
            one["dependent_outputs"].sort()
        if isinstance(told.get("error"), dict):
            told["error"]["details"] = sorted(told["error"]["details"].splitlines())
        told.pop("prompt_id", None)
        told.pop("number", None)
        answers.append((answer.status_code, told))
    assert answers[0] == answers[1]


def messages(server: Server, graph: Graph) -> list[Any]:
    """Messages about a prompt until it ends; the ids in them are told by a word."""
    found = []
    with contextlib.closing(server._connect()) as socket:
        prompt_id = server.submit(graph)
        while True:
            raw = socket.recv()
            assert isinstance(raw, str)
            text = raw.replace(prompt_id, "ID")
            text = re.sub(r'"timestamp": \d+', '"timestamp": 0', text)
            text = re.sub(r"ComfyUI_temp_[a-z]+_[0-9]+_", "ComfyUI_temp_x_", text)
            message = json.loads(text)
            if message["type"] != "status":
                found.append(message)
            if message["type"] == "executing" and message["data"]["node"] is None:
                break
    past = server.history(prompt_id)
    assert past is not None
    past["prompt"][3].pop("client_id")
    past["prompt"][4].sort()
    past["prompt"][0] = 0
    text = re.sub(r"ComfyUI_temp_[a-z]+_[0-9]+_", "ComfyUI_temp_x_", json.dumps(past))
    text = re.sub(r'"timestamp": \d+', '"timestamp": 0', text.replace(prompt_id, "ID"))
    return [*found, json.loads(text)]


@pytest.mark.comfyui
def test_messages_and_history_are_those_of_the_real_one(
    real: Server, make_standin: MakeStandin
) -> None:
    ours: Standin = make_standin()
    ours.start()
    for width in (40, 40, 24):
        graph = scaled(width)
        graph["1"]["inputs"]["color"] = 77  # nobody else's, so not in a cache
        told = [messages(server, graph) for server in (Server(ours.url), real)]
        # Which of two nodes that are ready comes first is ComfyUI's own matter.
        kinds = [sorted((m["type"], str(m["data"].get("node"))) for m in t[:-1]) for t in told]
        assert kinds[0] == kinds[1]
        for kind in ("execution_start", "execution_cached", "executed", "execution_success"):
            rows = [[m for m in t[:-1] if m["type"] == kind] for t in told]
            rows = [sorted(row, key=json.dumps) for row in rows]
            assert rows[0] == rows[1], kind
        states = [[m for m in t[:-1] if m["type"] == "progress_state"][-1] for t in told]
        assert states[0] == states[1]
        assert told[0][-1] == told[1][-1]


@pytest.mark.comfyui
def test_a_failing_node_is_told_as_by_the_real_one(real: Server, shared_standin: Standin) -> None:
    told = []
    for server in (Server(shared_standin.url), real):
        graph = {
            "1": node("LoadImage", image=server.upload("broken.png", b"no picture")),
            "2": node("PreviewImage", images=["1", 0]),
        }
        found = messages(server, graph)
        error = next(m["data"] for m in found[:-1] if m["type"] == "execution_error")
        known = ("node_id", "node_type", "executed", "exception_type", "current_inputs")
        status = found[-1]["status"]
        kinds = [kind for kind, _ in status.pop("messages")]
        told.append([{k: error[k] for k in known}, sorted(error), status, kinds])
        with pytest.raises(Trouble, match=r"LoadImage \(1\) failed: cannot identify image file"):
            server.run(graph)
    assert told[0] == told[1]


@pytest.mark.comfyui
def test_answers_have_the_shape_of_the_real_ones(real: Server, shared_standin: Standin) -> None:
    ours = Server(shared_standin.url)
    told = [server.system_stats() for server in (ours, real)]
    assert told[0]["system"].keys() == told[1]["system"].keys()
    assert [d.keys() for d in told[0]["devices"]] == [d.keys() for d in told[1]["devices"]]
    for key in ("name", "type", "index", "vram_total", "torch_vram_total"):
        assert told[0]["devices"][0][key] == told[1]["devices"][0][key]
    for path in ("/queue", "/prompt", "/features", "/models", "/models/vae", "/embeddings"):
        assert ours.json("GET", path) == real.json("GET", path), path
    for path in ("/view", "/view?filename=..", "/view?filename=gone.png", "/models/gone", "/gone"):
        codes = [requests.get(s.url + path, timeout=9).status_code for s in (ours, real)]
        assert codes[0] == codes[1], path
    kept = []
    for server in (ours, real):
        files = [("image", ("a b.png", content)) for content in (b"one", b"one", b"two")]
        post = f"{server.url}/upload/image"
        kept.append([requests.post(post, files=[one], timeout=9).json() for one in files])
    assert kept[0] == kept[1]
    assert [row["name"] for row in kept[0]] == ["a b.png", "a b.png", "a b (1).png"]


@pytest.mark.comfyui
def test_a_websocket_begins_as_with_the_real_one(real: Server, shared_standin: Standin) -> None:
    first = []
    for server in (Server(shared_standin.url), real):
        address = server.url.replace("http", "ws") + "/ws?clientId=me"
        with contextlib.closing(websocket.create_connection(address, timeout=9)) as socket:
            first.append(json.loads(socket.recv()))
    assert first[0] == first[1]
