"""Both packs in the real ComfyUI, on the CPU."""

from __future__ import annotations

import gzip
import io
import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from boxtools import profile, trace
from boxtools.errors import Trouble
from boxtools.server import Done, Event, Graph
from PIL import Image

from tests.nodes.conftest import Comfy

pytestmark = pytest.mark.comfyui


def picture(comfy: Comfy, seed: int, size: tuple[int, int] = (64, 64), **changed: int) -> str:
    """A PNG of noise in the input directory, one pixel of it changed on request."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    if changed:
        pixels[changed["row"], 0, 0] ^= 1
    name = f"{secrets.token_hex(8)}.png"  # a new name: ComfyUI's own cache goes by it
    Image.fromarray(pixels).save(comfy.base / "input" / name)
    return name


def encode(comfy: Comfy, name: str, vae: str = "first", **inputs: Any) -> tuple[str, Any]:
    """Encode with the cache; what the node says, and the latent by way of core's SaveLatent."""
    graph: Graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": name}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": f"{vae}.safetensors"}},
        "encode": {
            "class_type": "StrixboxVAEEncodeCached",
            "inputs": {"pixels": ["image", 0], "vae": ["vae", 0], **inputs},
        },
        "save": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["encode", 0], "filename_prefix": "latent"},
        },
    }
    done = comfy.server.run(graph)
    told = done.outputs["save"]["latents"][0]
    raw = (comfy.base / "output" / told["filename"]).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])["latent_tensor"]
    begin, end = header["data_offsets"]
    latent = np.frombuffer(raw[8 + size + begin : 8 + size + end], dtype=np.float32)
    return done.outputs["encode"]["text"][0], latent.reshape(header["shape"])


def test_both_packs_are_loaded(comfy: Comfy) -> None:
    log = comfy.log.read_text()
    assert "left out" not in log and "IMPORT FAILED" not in log
    assert "StrixboxSaveImage" in comfy.server.object_info("StrixboxSaveImage")
    assert "StrixboxVAEEncodeCached" in comfy.server.object_info("StrixboxVAEEncodeCached")


def test_the_same_content_is_encoded_once(comfy: Comfy) -> None:
    first, latent = encode(comfy, picture(comfy, 1), clear=True)
    assert first.startswith("miss") and latent.shape == (1, 4, 8, 8)
    again, held = encode(comfy, picture(comfy, 1))
    assert again.startswith("hit")
    assert held.tobytes() == latent.tobytes()


def test_the_latent_is_what_core_gives(comfy: Comfy) -> None:
    name = picture(comfy, 2)
    _, latent = encode(comfy, name)
    graph: Graph = {
        "image": {"class_type": "LoadImage", "inputs": {"image": name}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "first.safetensors"}},
        "encode": {
            "class_type": "VAEEncode",
            "inputs": {"pixels": ["image", 0], "vae": ["vae", 0]},
        },
        "save": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["encode", 0], "filename_prefix": "core"},
        },
    }
    told = comfy.server.run(graph).outputs["save"]["latents"][0]
    raw = (comfy.base / "output" / told["filename"]).read_bytes()
    assert latent.tobytes() in raw


def test_one_pixel_or_one_weight_is_another_latent(comfy: Comfy) -> None:
    said, latent = encode(comfy, picture(comfy, 3), clear=True)
    said, other = encode(comfy, picture(comfy, 3, row=40))
    assert said.startswith("miss") and other.tobytes() != latent.tobytes()
    said, other = encode(comfy, picture(comfy, 3), vae="second")
    assert said.startswith("miss") and other.tobytes() != latent.tobytes()
    said, same = encode(comfy, picture(comfy, 3))
    assert said.startswith("hit") and same.tobytes() == latent.tobytes()


def test_a_reloaded_vae_is_known_again(comfy: Comfy) -> None:
    _, latent = encode(comfy, picture(comfy, 4))
    comfy.server.free()  # drops the VAE object; its weights come from the file again
    said, again = encode(comfy, picture(comfy, 4))
    assert said.startswith("hit") and again.tobytes() == latent.tobytes()


def test_tiled_is_another_latent(comfy: Comfy) -> None:
    _, plain = encode(comfy, picture(comfy, 5), clear=True)
    said, tiled = encode(comfy, picture(comfy, 5), tile_size=64, overlap=512)
    assert said.startswith("miss") and tiled.shape == plain.shape
    said, again = encode(comfy, picture(comfy, 5), tile_size=64, overlap=512)
    assert said.startswith("hit") and again.tobytes() == tiled.tobytes()


def test_nothing_is_remembered_without_room(comfy: Comfy) -> None:
    encode(comfy, picture(comfy, 6), clear=True, max_mib=0)
    said, _ = encode(comfy, picture(comfy, 6), max_mib=0)
    assert said.startswith("miss") and "0 latents" in said


def save(
    comfy: Comfy, images: list[str], extra: dict[str, Any] | None = None, **inputs: Any
) -> Done:
    """Load images, batch them, and save them with our node."""
    graph: Graph = {
        str(index): {"class_type": "LoadImage", "inputs": {"image": name}}
        for index, name in enumerate(images)
    }
    last: list[Any] = ["0", 0]
    for index in range(1, len(images)):
        graph[f"batch{index}"] = {
            "class_type": "ImageBatch",
            "inputs": {"image1": last, "image2": [str(index), 0]},
        }
        last = [f"batch{index}", 0]
    graph["save"] = {
        "class_type": "StrixboxSaveImage",
        "inputs": {"images": last, "filename_prefix": "ours/%batch_num%-x", **inputs},
    }
    if extra is None:
        return comfy.server.run(graph)
    # /prompt takes the workflow that goes into the image beside the graph.
    plain = comfy.server.json

    def with_workflow(method: str, path: str, **words: Any) -> Any:
        if path == "/prompt":
            words["json"]["extra_data"] = {"extra_pnginfo": extra}
        return plain(method, path, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.server, "json", with_workflow)
        return comfy.server.run(graph)


@pytest.mark.parametrize(
    ("inputs", "suffix", "loss"),
    [
        ({"format": "PNG", "compress_level": 1}, "png", 0.0),
        ({"format": "WebP", "lossless": True}, "webp", 0.0),
        ({"format": "WebP", "quality": 95}, "webp", 6.0),
        ({"format": "JPEG", "quality": 95}, "jpg", 6.0),
    ],
)
def test_images_load_back(comfy: Comfy, inputs: dict[str, Any], suffix: str, loss: float) -> None:
    # A smooth picture: noise is what lossy formats leave out.
    y, x = np.mgrid[0:96, 0:128]
    pixels = np.stack([2 * x % 256, 2 * y, x + y], axis=-1).astype(np.uint8)
    names = []
    for turn in range(2):
        names.append(f"{secrets.token_hex(8)}.png")
        Image.fromarray(np.roll(pixels, 10 * turn, axis=1)).save(comfy.base / "input" / names[-1])
    workflow = {"workflow": {"nodes": [{"title": "Größe 日本"}]}}
    done = save(comfy, names, workflow, **inputs)
    images = done.images()
    assert [image["filename"].split("-")[0] for image in images] == ["0", "1"]
    for index, told in enumerate(images):
        assert told["subfolder"] == "ours" and told["filename"].endswith(f".{suffix}")
        raw = comfy.server.view(told)
        with Image.open(io.BytesIO(raw)) as image:
            loaded = np.asarray(image.convert("RGB"), dtype=float)
            texts = metadata_of(image)
        difference = np.abs(loaded - np.roll(pixels, 10 * index, axis=1)).mean()
        assert difference <= loss
        assert json.loads(texts["workflow"]) == workflow["workflow"]
        assert json.loads(texts["prompt"])["save"]["class_type"] == "StrixboxSaveImage"


def metadata_of(image: Image.Image) -> dict[str, str]:
    """The texts in a PNG, or in EXIF as ComfyUI's frontend splits them."""
    if image.format == "PNG":
        return {str(name): str(text) for name, text in image.info.items()}
    texts = [text for text in image.getexif().values() if isinstance(text, str)]
    return dict(text.split(":", 1) for text in texts)


def test_what_jpeg_cannot_hold_lies_beside_it(comfy: Comfy) -> None:
    workflow = {"workflow": {"notes": "x" * 100_000}}
    (told,) = save(comfy, [picture(comfy, 7)], workflow, format="JPEG").images()
    path = comfy.base / "output/ours" / told["filename"]
    beside = path.with_name(f"{path.name}.workflow.json")
    assert json.loads(beside.read_text()) == workflow["workflow"]
    with Image.open(path) as image:
        assert "prompt" in metadata_of(image)


def test_names_are_counted_on(comfy: Comfy) -> None:
    name = picture(comfy, 8)
    first = save(comfy, [name], format="PNG", filename_prefix="count").images()[0]
    # Another level is another node to ComfyUI's cache.
    second = save(comfy, [name], format="PNG", filename_prefix="count", compress_level=2).images()[
        0
    ]
    assert (first["filename"], second["filename"]) == ("count_00001_.png", "count_00002_.png")
    assert not list((comfy.base / "output").glob(".strixbox*"))


def test_a_prefix_outside_of_the_output_directory_is_refused(comfy: Comfy) -> None:
    with pytest.raises(Trouble, match="outside the output folder"):
        save(comfy, [picture(comfy, 9)], filename_prefix="../outside", format="PNG")


def test_tunableop_needs_a_gpu(comfy: Comfy) -> None:
    url = f"{comfy.url}/strixbox/tunableop"
    told = requests.get(url, timeout=10).json()
    assert told == {
        "supported": False,
        "reason": "torch sees no GPU",
        "enabled": False,
        "tuning": False,
        "filename": None,
        "results": 0,
        "validators": {},
    }
    assert requests.post(url, json={"tuning": True}, timeout=10).json() == told


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"tuning": 1}', b'{"more": true}'])
def test_odd_bodies_are_refused(comfy: Comfy, body: bytes) -> None:
    answer = requests.post(f"{comfy.url}/strixbox/tunableop", data=body, timeout=10)
    assert answer.status_code == 400 and answer.json()["error"]


def test_other_sites_are_refused(comfy: Comfy) -> None:
    for path in ("tunableop", "profile/start", "profile/stop"):
        answer = requests.post(
            f"{comfy.url}/strixbox/{path}", headers={"Origin": "http://evil.example"}, timeout=10
        )
        assert answer.status_code == 403


def vae_prompt(comfy: Comfy, name: str) -> Graph:
    """Encode and decode: convolutions and attention without a checkpoint."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "first.safetensors"}},
        "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0], "vae": ["2", 0]}},
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["2", 0]}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }


def test_a_prompt_is_profiled(comfy: Comfy, tmp_path: Path) -> None:
    phases: set[str] = set()

    def seen(phase: str, event: Event) -> None:
        phases.add(phase)

    report = profile.record(
        comfy.server,
        vae_prompt(comfy, picture(comfy, 10)),
        vae_prompt(comfy, picture(comfy, 11)),
        tmp_path,
        "vae",
        options={"memory": True, "shapes": True},
        seen=seen,
    )
    assert phases == {"warm-up", "profile"}
    assert report.device == "cpu" and not report.cut and report.seconds > 0
    operators = {row.name: row for row in report.operators}
    assert any("conv" in name for name in operators)
    assert any("attention" in name for name in operators)
    nodes = {node.kind: node for node in report.nodes}
    assert {"VAEEncode", "VAEDecode", "PreviewImage"} <= set(nodes)
    # The nodes are all of the time that the prompt took, but for ComfyUI's own.
    assert 0.5e6 * report.seconds < sum(node.cpu for node in report.nodes) < 1e6 * report.seconds
    assert any("conv" in row.name for row in nodes["VAEDecode"].operators)

    assert report.trace is not None
    raw = Path(report.trace).read_bytes()
    assert json.loads(gzip.decompress(raw))["traceEvents"]
    # Our own reading of the trace agrees with torch's tables.
    read = trace.summarize(Path(report.trace))
    again = {node.kind: node for node in read.nodes}
    for kind, node in nodes.items():
        assert again[kind].cpu == pytest.approx(node.cpu, rel=0.01, abs=100)
    for row in read.operators[:10]:
        assert operators[row.name].calls == row.calls
        assert operators[row.name].self_cpu == pytest.approx(row.self_cpu, rel=0.02, abs=200)


def test_a_prompt_of_somebody_else_is_not_recorded(comfy: Comfy) -> None:
    url = f"{comfy.url}/strixbox/profile"
    assert requests.post(f"{url}/start", json={"client_id": "other"}, timeout=10).ok
    assert requests.post(f"{url}/start", json={}, timeout=10).status_code == 409
    comfy.server.run(vae_prompt(comfy, picture(comfy, 12)))
    assert requests.get(url, timeout=10).json() == {"state": "armed"}
    assert requests.post(f"{url}/stop", timeout=10).json() == {"state": "idle"}


def test_a_failing_prompt_ends_the_profile(comfy: Comfy, tmp_path: Path) -> None:
    broken = {
        "1": {"class_type": "EmptyLatentImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "first.safetensors"}},
        "3": {"class_type": "VAEDecodeTiled",
              "inputs": {"samples": ["1", 0], "vae": ["2", 0], "tile_size": 64, "overlap": 0,
                         "temporal_size": 64, "temporal_overlap": 8}},
        "4": {"class_type": "StrixboxSaveImage",
              "inputs": {"images": ["3", 0], "filename_prefix": "../no", "format": "PNG"}},
    }  # fmt: skip
    with pytest.raises(Trouble, match="outside"):
        profile.record(comfy.server, broken, None, tmp_path, "broken")
    for _ in range(100):
        told = requests.post(f"{comfy.url}/strixbox/profile/stop", timeout=10).json()
        if told["state"] == "idle":
            break
    assert told["state"] == "idle"
    # The server is as before.
    comfy.server.run(vae_prompt(comfy, picture(comfy, 13)))
