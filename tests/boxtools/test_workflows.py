"""Workflows as graphs, and what of them a server would refuse."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boxtools import pictures, render, workflows
from boxtools.errors import Trouble, WrongUse
from boxtools.jobs import chapter, data
from boxtools.server import Event, Graph, Server
from boxtools.workflows import WORKFLOWS, Job, ObjectInfo, graph, parse_size, resolved
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools.conftest import Standin, free_port, safetensors

PACK = {
    "VAEDecodeTiled_TiledDiffusion": {
        "input": {
            "required": {
                "samples": ["LATENT"],
                "vae": ["VAE"],
                "tile_size": ["INT", {"min": 384, "max": 4096}],
                "fast": ["BOOLEAN", {"default": True}],
            }
        },
        "output": ["IMAGE"],
    },
    "VAEEncodeTiled_TiledDiffusion": {
        "input": {
            "required": {
                "pixels": ["IMAGE"],
                "vae": ["VAE"],
                "tile_size": ["INT", {"min": 256, "max": 4096}],
                "fast": ["BOOLEAN", {"default": True}],
                "color_fix": ["BOOLEAN", {"default": True}],
            }
        },
        "output": ["LATENT"],
    },
}
CHECKPOINTS = [
    "sd_xl_base_1.0.safetensors",
    "sd_xl_refiner_1.0.safetensors",
    "sd_xl_turbo_1.0_fp16.safetensors",
]
OTHERS = {"vae": ["sdxl_vae.safetensors"], "loras": ["lcm-lora-sdxl.safetensors"],
          "controlnet": ["controlnet_union_sdxl.safetensors"]}  # fmt: skip


@pytest.fixture(scope="module")
def nodes(shared_standin: Standin) -> dict[str, Any]:
    return Server(shared_standin.url).object_info() | PACK


@pytest.fixture
def info(nodes: dict[str, Any]) -> ObjectInfo:
    return having(nodes, checkpoints=CHECKPOINTS, **OTHERS)


def having(nodes: dict[str, Any], **folders: list[str]) -> ObjectInfo:
    """The nodes with other files in the models' folders."""
    own = copy.deepcopy(nodes)
    for folder, names in folders.items():
        node, name = workflows.LOADERS[folder]
        own[node]["input"]["required"][name][0] = names
    return ObjectInfo(own)


def job(workflow: str, **words: Any) -> Job:
    """A job with the image that its workflow needs."""
    if chapter(workflow).image == "must":
        words = {"image": "a.png", **words}
    return Job(workflow=workflow, **words)


def only(made: Graph, kind: str) -> dict[str, Any]:
    """Inputs of the only node of that class."""
    found = [node["inputs"] for node in made.values() if node["class_type"] == kind]
    assert len(found) == 1, kind
    return dict(found[0])


def kinds(made: Graph) -> list[str]:
    return [node["class_type"] for node in made.values()]


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("words", [{}, {"batch": 2, "vae": "sdxl_vae.safetensors", "tile": 512}])
def test_every_workflow_is_one_that_the_server_takes(
    info: ObjectInfo, workflow: str, words: dict[str, Any]
) -> None:
    assert info.complaints(graph(job(workflow, **words), info)) == []


def test_the_data_has_every_workflow() -> None:
    assert tuple(data().workflows) == WORKFLOWS
    for said in data().workflows.values():
        assert said.model in data().models
        parse_size(said.size)


@pytest.mark.parametrize(
    ("workflow", "steps", "cfg", "sampler", "scheduler", "denoise"),
    [
        ("txt2img", 25, 7.5, "dpmpp_2m", "karras", 1.0),
        ("img2img", 20, 7.0, "dpmpp_2m", "karras", 0.7),
        ("inpaint", 30, 8.0, "dpmpp_sde", "karras", 1.0),
        ("controlnet", 25, 7.5, "dpmpp_2m", "karras", 1.0),
        ("turbo", 4, 1.0, "euler_ancestral", "sgm_uniform", 1.0),
        ("lcm", 6, 1.0, "lcm", "sgm_uniform", 1.0),
    ],
)
def test_the_chapters_values(
    info: ObjectInfo,
    workflow: str,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
    denoise: float,
) -> None:
    found = only(graph(job(workflow), info), "KSampler")
    names = ("steps", "cfg", "sampler_name", "scheduler", "denoise")
    assert [found[name] for name in names] == [steps, cfg, sampler, scheduler, denoise]


def test_what_the_job_says_wins(info: ObjectInfo) -> None:
    asked = job("txt2img", steps=3, cfg=2.0, sampler="euler", scheduler="normal", denoise=0.5)
    found = only(graph(asked, info), "KSampler")
    assert (found["steps"], found["cfg"], found["denoise"]) == (3, 2.0, 0.5)
    assert (found["sampler_name"], found["scheduler"]) == ("euler", "normal")


def test_resolved_leaves_nothing_open_that_the_graph_needs(info: ObjectInfo) -> None:
    full = resolved(job("controlnet"), info)
    assert full.strength == 0.8
    assert full.controlnet == "controlnet_union_sdxl.safetensors"
    assert full.checkpoint == "sd_xl_base_1.0.safetensors"
    assert resolved(full, info) == full


def test_the_refiner_takes_over_where_the_base_stops(info: ObjectInfo) -> None:
    made = graph(job("refiner"), info)
    base, fine = (n["inputs"] for n in made.values() if n["class_type"] == "KSamplerAdvanced")
    assert (base["start_at_step"], base["end_at_step"], fine["start_at_step"]) == (0, 25, 25)
    assert base["steps"] == fine["steps"] == 35
    assert (base["add_noise"], base["return_with_leftover_noise"]) == ("enable", "enable")
    assert (fine["add_noise"], fine["return_with_leftover_noise"]) == ("disable", "disable")
    assert (base["cfg"], fine["cfg"]) == (7.5, 7.0)
    assert base["model"] != fine["model"]
    assert base["positive"] != fine["positive"]  # each model's own text encoder


def test_a_batch_is_made_of_the_latent(info: ObjectInfo) -> None:
    assert only(graph(job("txt2img", batch=3), info), "EmptyLatentImage")["batch_size"] == 3
    assert only(graph(job("img2img", batch=3), info), "RepeatLatentBatch")["amount"] == 3


def test_inpaint_keeps_what_is_there_where_it_is_not_to_be_made_anew(info: ObjectInfo) -> None:
    assert "VAEEncodeForInpaint" in kinds(graph(job("inpaint", mask="m.png"), info))
    soft = graph(job("inpaint", mask="m.png", denoise=0.5), info)
    assert "SetLatentNoiseMask" in kinds(soft)
    assert "VAEEncodeForInpaint" not in kinds(soft)
    assert "LoadImageMask" not in kinds(graph(job("inpaint"), info))


def test_tiles_are_the_packs_or_cores(info: ObjectInfo) -> None:
    for workflow, suffix in (("tiled-vae", ""), ("tiled-diffusion-vae", "_TiledDiffusion")):
        made = graph(job(workflow, image="a.png"), info)
        for kind in ("VAEEncodeTiled", "VAEDecodeTiled"):
            assert only(made, kind + suffix)["tile_size"] == 1024
        assert only(made, "KSampler")["denoise"] == 0.7  # of the image something must be left


def test_tiles_never_overlap_whole(info: ObjectInfo) -> None:
    for tile, overlap in ((64, 16), (128, 32), (256, 64), (1024, 64)):
        made = graph(job("tiled-vae", image="a.png", tile=tile), info)
        for kind in ("VAEEncodeTiled", "VAEDecodeTiled"):
            assert only(made, kind)["overlap"] == overlap


def test_lcm_uses_a_lora_only_with_a_checkpoint_that_is_not_distilled(
    nodes: dict[str, Any],
) -> None:
    with_lora = graph(job("lcm"), having(nodes, checkpoints=CHECKPOINTS, **OTHERS))
    assert only(with_lora, "LoraLoader")["lora_name"] == "lcm-lora-sdxl.safetensors"
    distilled = having(nodes, checkpoints=[*CHECKPOINTS, "sdxl_lcm.safetensors"], **OTHERS)
    made = graph(job("lcm"), distilled)
    assert "LoraLoader" not in kinds(made)
    assert only(made, "CheckpointLoaderSimple")["ckpt_name"] == "sdxl_lcm.safetensors"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["z/sd_xl_base_1.0.safetensors", "a_sdxl.safetensors"], "z/sd_xl_base_1.0.safetensors"),
        (["sd_xl_turbo.safetensors", "juggernautXL.safetensors"], "juggernautXL.safetensors"),
        (["dreamshaper.safetensors"], "dreamshaper.safetensors"),
        (["w\\SD_XL_BASE_1.0.safetensors"], "w\\SD_XL_BASE_1.0.safetensors"),
        (["dreamshaper.safetensors", "deliberate.safetensors"], None),
        (["sd_xl_refiner_1.0.safetensors"], None),
        ([], None),
    ],
)
def test_the_checkpoint_that_fits(
    nodes: dict[str, Any], names: list[str], chosen: str | None
) -> None:
    assert workflows.pick("base", having(nodes, checkpoints=names)) == chosen


def test_inpaint_takes_the_base_where_there_is_no_inpainting_model(nodes: dict[str, Any]) -> None:
    special = [*CHECKPOINTS, "sd_xl_inpainting_0.1.safetensors"]
    for names, chosen in ((special, special[-1]), (CHECKPOINTS, CHECKPOINTS[0])):
        assert workflows.pick("inpaint", having(nodes, checkpoints=names)) == chosen


@pytest.mark.parametrize(
    ("workflow", "folder", "option"),
    [
        ("txt2img", "checkpoints", "--checkpoint"),
        ("inpaint", "checkpoints", "--checkpoint"),
        ("turbo", "checkpoints", "--checkpoint"),
        ("refiner", "checkpoints", "--refiner"),
        ("lcm", "loras", "--lora"),
        ("controlnet", "controlnet", "--controlnet"),
    ],
)
def test_a_missing_model_is_a_sentence_with_folder_and_mend(
    nodes: dict[str, Any], workflow: str, folder: str, option: str
) -> None:
    bare = having(nodes, checkpoints=[], vae=[], loras=[], controlnet=[])
    with pytest.raises(Trouble) as caught:
        graph(job(workflow), bare)
    text = str(caught.value)
    assert f"models/{folder}" in text
    assert option in text
    assert "strixbox models download --url" in text
    assert "\n" not in text


def test_a_missing_pack_names_the_other_way(nodes: dict[str, Any]) -> None:
    bare = {name: node for name, node in nodes.items() if name not in PACK}
    with pytest.raises(Trouble, match="comfyui_nodes"):
        graph(job("tiled-diffusion-vae"), having(bare, checkpoints=CHECKPOINTS))


def test_images_are_asked_for_and_refused(info: ObjectInfo) -> None:
    for workflow in ("img2img", "inpaint", "controlnet"):
        with pytest.raises(WrongUse, match="--image"):
            graph(Job(workflow=workflow), info)
    for workflow in ("txt2img", "refiner"):
        with pytest.raises(WrongUse, match="takes no image"):
            graph(Job(workflow=workflow, image="a.png"), info)
    with pytest.raises(WrongUse, match="no workflow"):
        graph(Job(workflow="txt2mig"), info)


def test_sizes() -> None:
    assert parse_size(" 1024X1536 ") == (1024, 1536)
    for wrong in (
        "",
        "1024",
        "1024x",
        "10x10",
        "1020x1024",
        "8x8",
        "16392x16",
        "-8x8",
        "\u0668\u0660x8",
    ):
        with pytest.raises(WrongUse):
            parse_size(wrong)


BREAKS: dict[str, tuple[Any, str]] = {
    "a value that is not in the list": (
        lambda g: g["5"]["inputs"].update(sampler_name="euler_a"),
        "sampler_name is 'euler_a'",
    ),
    "a number too small": (lambda g: g["5"]["inputs"].update(steps=0), "the least is 1"),
    "a number too big": (lambda g: g["5"]["inputs"].update(cfg=1e9), "the most is 100"),
    "no number": (lambda g: g["5"]["inputs"].update(steps="many"), "no number"),
    "not a number": (lambda g: g["5"]["inputs"].update(cfg=float("nan")), "cfg is nan"),
    "a missing input": (lambda g: g["6"]["inputs"].pop("vae"), "vae is missing"),
    "a link of another type": (
        lambda g: g["7"]["inputs"].update(images=["4", 0]),
        "takes IMAGE, but EmptyLatentImage gives LATENT",
    ),
    "a link to nowhere": (lambda g: g["6"]["inputs"].update(vae=["99", 0]), "not there"),
    "a link to no output": (lambda g: g["6"]["inputs"].update(vae=["1", 3]), "output 3"),
    "an unknown node": (lambda g: g["6"].update(class_type="VAEDecod"), "no such node"),
    "no class": (lambda g: g["6"].pop("class_type"), "names no class"),
    "nothing saved": (lambda g: g.pop("7"), "saves or shows"),
}


@pytest.mark.parametrize("break_it", BREAKS)
def test_complaints_find_what_is_wrong_and_only_that(info: ObjectInfo, break_it: str) -> None:
    broken = graph(job("txt2img"), info)
    change, expected = BREAKS[break_it]
    change(broken)
    found = info.complaints(broken)
    assert len(found) == 1
    assert expected in found[0]


def test_complaints_agree_with_the_server(shared_standin: Standin) -> None:
    server = Server(shared_standin.url)
    info = ObjectInfo.ask(server)
    for name, (change, _) in BREAKS.items():
        broken = graph(job("txt2img"), info)
        change(broken)
        if name == "not a number":  # JSON has no word for it
            continue
        assert info.complaints(broken)
        with pytest.raises(Trouble):
            server.submit(broken)


def test_both_ways_of_writing_a_list_of_choices() -> None:
    node = {"input": {"required": {"a": [["x", "y"]], "b": ["COMBO", {"options": ["z"]}]},
                      "optional": {"c": ["COMBO", {}]}}}  # fmt: skip
    info = ObjectInfo({"N": node})
    assert info.choices("N", "a") == ["x", "y"]
    assert info.choices("N", "b") == ["z"]
    assert info.choices("N", "c") == info.choices("N", "d") == info.choices("M", "a") == []


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["input", "required", "output", "class_type", "inputs", "a", "1"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    declared=st.dictionaries(st.sampled_from(["N", "M"]), odd, max_size=2),
    nodes=st.dictionaries(st.sampled_from(["1", "2", "3"]), odd, max_size=3),
    kind=st.sampled_from(["N", "M"]),
)
def test_odd_nodes_and_graphs_raise_nothing(
    declared: dict[str, Any], nodes: dict[str, Any], kind: str
) -> None:
    info = ObjectInfo(declared)
    whole = nodes | {"1": {"class_type": kind, "inputs": nodes.get("1")}}
    for complaint in info.complaints(whole):
        assert isinstance(complaint, str)
    info.choices(kind, "a")
    info.inputs(kind)
    info.outputs(kind)


# --- The real ComfyUI ---------------------------------------------------------------------------

SOURCE = os.environ.get("STRIXBOX_COMFYUI_SRC", "")
PYTHON = os.environ.get("STRIXBOX_COMFYUI_PYTHON", "")
TILED = os.environ.get("STRIXBOX_TILED_SRC", "")
MODELS = {
    "checkpoints": [*CHECKPOINTS, "sd_xl_inpainting_0.1.safetensors"],
    **OTHERS,
}


RANDOM = "sdxl_lcm_random.safetensors"


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI on the CPU, with files that have only the names of models."""
    if not SOURCE or not PYTHON:
        pytest.skip("STRIXBOX_COMFYUI_SRC and STRIXBOX_COMFYUI_PYTHON do not name a ComfyUI")
    quiet = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    base = tmp_path_factory.mktemp("comfyui")
    for folder, names in MODELS.items():
        (base / "models" / folder).mkdir(parents=True)
        for name in names:
            (base / "models" / folder / name).write_bytes(safetensors(64))
    for name in ("input", "output", "user", "custom_nodes"):
        (base / name).mkdir()
    # One that is real, for pictures; its name fits LCM, which then needs no LoRA.
    program = Path(__file__).with_name("random_checkpoint.py")
    target = base / "models/checkpoints" / RANDOM
    subprocess.run([PYTHON, str(program), SOURCE, str(target)], env=quiet, check=True)
    if TILED:
        (base / "custom_nodes" / "ComfyUI-TiledDiffusion").symlink_to(TILED)
    port = free_port()
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(PYTHON, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)),
                *("--base-directory", str(base), "--temp-directory", str(base / "t")),
                *("--database-url", f"sqlite:///{base}/user/c.db"),
            ],
            cwd=SOURCE,
            env=quiet,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Server(f"http://127.0.0.1:{port}")
    try:
        until = time.monotonic() + 180
        while True:
            try:
                server.system_stats()
                break
            except Trouble:
                assert process.poll() is None, (base / "log").read_text(encoding="utf-8")
                assert time.monotonic() < until
                time.sleep(0.5)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def png() -> bytes:
    """A white PNG of one pixel, in RGBA."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        summed = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", summed)

    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    stream.write(chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 6, 0, 0, 0)))
    stream.write(chunk(b"IDAT", zlib.compress(b"\0\xff\xff\xff\xff")))
    stream.write(chunk(b"IEND", b""))
    return stream.getvalue()


@pytest.mark.comfyui
def test_the_real_server_takes_every_workflow(comfyui: Server) -> None:
    info = ObjectInfo.ask(comfyui)
    comfyui.upload("a.png", png())
    more: dict[str, Any] = {"denoise": 0.5, "batch": 2, "tile": 512, "keep": False}
    words_of_all: list[dict[str, Any]] = [{}, more]
    for workflow in WORKFLOWS:
        if chapter(workflow).pack and not info.has("VAEDecodeTiled_TiledDiffusion"):
            continue
        images: dict[str, list[str | None]]
        images = {"no": [None], "may": [None, "a.png"], "must": ["a.png"]}
        masks = [None, "a.png"] if workflow == "inpaint" else [None]
        for image in images[chapter(workflow).image]:
            for mask in masks:
                for words in words_of_all:
                    asked = Job(workflow=workflow, image=image, mask=mask, **words)
                    made = graph(asked, info)
                    assert info.complaints(made) == []
                    prompt = comfyui.submit(json.loads(json.dumps(made)))
                    comfyui.forget(prompt)
                    comfyui.interrupt()


@pytest.mark.comfyui
def test_complaints_agree_with_the_real_server(comfyui: Server) -> None:
    info = ObjectInfo.ask(comfyui)
    for name, (change, _) in BREAKS.items():
        broken = graph(job("txt2img"), info)
        change(broken)
        if name != "not a number":
            assert info.complaints(broken)
            with pytest.raises(Trouble):
                comfyui.submit(broken)


@pytest.mark.comfyui
def test_nothing_is_wrong_with_the_defaults_of_the_real_nodes(comfyui: Server) -> None:
    """Each node alone, with its own defaults: only links and names may be complained about."""
    info = ObjectInfo.ask(comfyui)
    for name in info.nodes:
        inputs = {
            key: extra["default"]
            for key, (_, extra, _) in info.inputs(name).items()
            if "default" in extra
        }
        for complaint in info.complaints({"1": {"class_type": name, "inputs": inputs}}):
            assert complaint.endswith((" is missing", "saves or shows anything")) or (
                "but there is" in complaint
            ), complaint


@pytest.mark.comfyui
@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ("txt2img", {"batch": 2}),
        ("img2img", {}),
        ("inpaint", {}),
        ("inpaint", {"denoise": 0.5, "mask": "a.png"}),
        ("refiner", {"refiner": RANDOM, "steps": 4}),
        ("turbo", {}),
        ("lcm", {}),
        ("tiled-vae", {"tile": 64, "image": "a.png"}),
        ("tiled-diffusion-vae", {"tile": 384, "image": "a.png"}),
    ],
)
def test_the_real_server_makes_pictures(
    comfyui: Server, workflow: str, words: dict[str, Any]
) -> None:
    info = ObjectInfo.ask(comfyui)
    if chapter(workflow).pack and not info.has("VAEDecodeTiled_TiledDiffusion"):
        pytest.skip("STRIXBOX_TILED_SRC does not name ComfyUI-TiledDiffusion")
    comfyui.upload("a.png", png())
    words = {"width": 64, "height": 128, "steps": 2, "checkpoint": RANDOM, **words}
    asked = job(workflow, **words)
    made = graph(asked, info)
    steps: set[int] = set()

    def seen(event: Event) -> None:
        if event.kind == "progress" and "KSampler" in made[event.node or "1"]["class_type"]:
            steps.add(event.maximum)

    (index, done), *more = render.Line(comfyui.url, seen=lambda _, event: seen(event)).run([made])
    assert (index, more) == (0, [])
    assert steps
    assert len(done.images()) == asked.batch
    for image in done.images():
        found = pictures.look(comfyui.view(image))
        assert found is not None
        assert (found.width, found.height) == (64, 128)
