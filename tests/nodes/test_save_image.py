"""Pixels, metadata and files of the save node, without ComfyUI."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.nodes.conftest import PACK, Comfyless, FakeTensor, fake


@pytest.fixture
def images(comfyless: Comfyless) -> ModuleType:
    """images.py."""
    return comfyless.part(PACK, "images")


def test_pixels_are_clipped_and_rounded(images: ModuleType) -> None:
    values = np.array([[[-0.5, 0.0, 0.4999 / 255], [0.6 / 255, 1.5, 300.0]]], dtype=np.float32)
    assert images.to_pixels(values).tolist() == [[[0, 0, 0], [1, 255, 255]]]
    every = np.arange(256, dtype=np.float32).reshape(16, 16, 1) / 255
    assert images.to_pixels(every).ravel().tolist() == list(range(256))


def test_what_is_no_number_becomes_black_and_is_told(
    images: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.array([[[np.nan, np.inf, -np.inf]]], dtype=np.float32)
    assert images.to_pixels(values).tolist() == [[[0, 255, 0]]]
    assert "1 of 3 values are not a number" in caplog.text
    assert np.isnan(values[0, 0, 0])  # the caller's array is as it was


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 5), (0, 4, 3), (1, 4, 4, 3)])
def test_other_shapes_are_refused(images: ModuleType, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        images.to_pixels(np.zeros(shape, dtype=np.float32))


def picture(channels: int = 3, size: tuple[int, int] = (40, 60)) -> Any:
    """Smooth, so that lossy formats keep it."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [3 * x, 4 * y, x + y, 255 - 2 * x][:channels]
    pixels = np.stack(planes, axis=-1).astype(np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


TEXTS = {"workflow": json.dumps({"title": "Größe"}), "prompt": '{"1": {}}'}


def frontend(webp: bytes) -> dict[str, str]:
    """How ComfyUI's frontend finds texts in a WebP: it does not pad chunks of odd length."""
    offset = 12
    while offset < len(webp):
        length = int.from_bytes(webp[offset + 4 : offset + 8], "little")
        if webp[offset : offset + 4] == b"EXIF":
            exif = Image.Exif()
            exif.load(webp[offset + 8 : offset + 8 + length])
            return dict(str(text).split(":", 1) for text in exif.values())
        offset += 8 + length
    return {}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_everything(images: ModuleType, channels: int) -> None:
    content, left = images.encode(picture(channels), "PNG", TEXTS)
    assert left == {}
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image), picture(channels))
        assert image.text == TEXTS  # type: ignore[attr-defined]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("lossless", [True, False])
def test_webp_keeps_alpha_and_texts(images: ModuleType, channels: int, lossless: bool) -> None:
    content, left = images.encode(picture(channels), "WebP", TEXTS, quality=95, lossless=lossless)
    assert left == {}
    with Image.open(io.BytesIO(content)) as image:
        mode = "RGBA" if channels == 4 else "RGB"
        wanted = np.asarray(Image.fromarray(picture(channels)).convert(mode), dtype=float)
        difference = np.abs(np.asarray(image.convert(mode), dtype=float) - wanted)
        assert difference.max() == 0 if lossless else difference.mean() < 6
    assert frontend(content) == TEXTS


def test_the_frontend_finds_texts_after_pictures_of_any_length(images: ModuleType) -> None:
    odd = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        content, _ = images.encode(noise, "WebP", TEXTS, lossless=True)
        assert frontend(content) == TEXTS
        at = content.index(b"VP8L")
        odd += int.from_bytes(content[at + 4 : at + 8], "little") % 2
        with Image.open(io.BytesIO(content)) as image:
            assert np.array_equal(np.asarray(image), noise)
            assert image.getexif()[0x0110] == f"prompt:{TEXTS['prompt']}"
    assert odd  # the case that this is about did occur


def test_jpeg_shows_white_where_it_is_transparent(images: ModuleType) -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[:, 8:, 3] = 255
    content, _ = images.encode(pixels, "JPEG", {}, quality=95)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"
        shown = np.asarray(image, dtype=int)
    assert shown[8, 2].min() > 245 and shown[8, 13].max() < 10


def test_jpeg_keeps_texts_as_far_as_they_fit(images: ModuleType) -> None:
    texts = {"workflow": "w" * 70_000, "prompt": "p" * 60_000, "more": "m" * 10_000, "x": "1"}
    content, left = images.encode(picture(), "JPEG", texts)
    assert set(left) == {"workflow", "more"}
    with Image.open(io.BytesIO(content)) as image:
        kept = sorted(str(text)[:8] for text in image.getexif().values())
    assert kept == ["prompt:p", "x:1"]


def test_more_texts_than_tags_are_given_back(images: ModuleType) -> None:
    texts = {f"k{number}": "{}" for number in range(12)}
    _, left = images.encode(picture(), "WebP", texts)
    assert len(left) == 12 - len(images.EXTRA_TAGS)


def test_quality_is_heeded(images: ModuleType) -> None:
    for kind in ("JPEG", "WebP"):
        sizes = [
            len(images.encode(picture(size=(400, 400)), kind, {}, quality=quality)[0])
            for quality in (10, 90)
        ]
        assert sizes[0] < sizes[1]


def test_a_format_that_is_too_small_is_told(images: ModuleType) -> None:
    with pytest.raises(ValueError, match="16383 pixels a side, this image is 16384x1; save it as"):
        images.encode(np.zeros((1, 16384, 3), dtype=np.uint8), "WebP", {})


def test_sixteen_megapixels(images: ModuleType) -> None:
    pixels = np.broadcast_to(picture(size=(4096, 1)), (4096, 4096, 3))
    content, _ = images.encode(np.ascontiguousarray(pixels), "JPEG", TEXTS)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (4096, 4096)


def test_no_file_is_replaced(images: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a_1").write_bytes(b"theirs")
    names = iter(["a_1", "a_2"])
    assert images.place(tmp_path, names, b"ours") == "a_2"
    assert (tmp_path / "a_1").read_bytes() == b"theirs"
    assert (tmp_path / "a_2").read_bytes() == b"ours"
    assert stat.S_IMODE((tmp_path / "a_2").stat().st_mode) == 0o666 & ~images._umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_1", "a_2"]


@pytest.mark.parametrize("links", [True, False])
def test_writers_beside_each_other_lose_nothing(
    images: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def no_links(*words: Any) -> None:
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", no_links)

    def write(who: int) -> None:
        for number in range(20):
            names = (f"{n:05}" for n in range(200))
            images.place(tmp_path, names, f"{who}-{number}".encode())

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 80


def test_a_full_disk_leaves_nothing_behind(
    images: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        images.place(tmp_path, iter(["a"]), b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("disabled", [False, True])
def test_the_node(
    comfyless: Comfyless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    paths = fake(
        "folder_paths",
        get_output_directory=lambda: str(tmp_path),
        get_save_image_path=lambda prefix, *more: (str(tmp_path), prefix, 7, "sub", prefix),
    )
    args = fake("comfy.cli_args", args=SimpleNamespace(disable_metadata=disabled))
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    monkeypatch.setitem(sys.modules, "comfy", fake("comfy", cli_args=args))
    monkeypatch.setitem(sys.modules, "comfy.cli_args", args)
    node = comfyless.part(PACK, "save_image").StrixboxSaveImage()
    batch = FakeTensor(np.stack([picture() / 255.0] * 2))
    big = {"workflow": {"notes": "x" * 70_000}}
    told = node.save(
        [batch[0], batch[1]], "a%batch_num%", "JPEG", prompt={"1": {}}, extra_pnginfo=big
    )
    assert told["ui"]["images"] == [
        {"filename": "a0_00007_.jpg", "subfolder": "sub", "type": "output"},
        {"filename": "a1_00008_.jpg", "subfolder": "sub", "type": "output"},
    ]
    beside = tmp_path / "a0_00007_.jpg.workflow.json"
    assert beside.exists() != disabled
    if not disabled:
        assert json.loads(beside.read_text()) == big["workflow"]
    with Image.open(tmp_path / "a1_00008_.jpg") as image:
        assert dict(image.getexif()) == ({} if disabled else {0x0110: 'prompt:{"1": {}}'})
