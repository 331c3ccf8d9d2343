"""Pixels, metadata and files of images; knows nothing of ComfyUI or torch."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WebP": "webp"}
# Pixels a side that the format can hold: libwebp's WEBP_MAX_DIMENSION, JPEG's 16 bits as libjpeg
# limits them; PNG's 31 bits are beyond any memory.
LARGEST = {"JPEG": 65500, "WebP": 16383}

# ComfyUI's frontend reads "key:json" from the text tags of a picture's EXIF. Core puts the prompt
# into Model and the workflow into Make, counting down from there (comfy_extras/nodes_images.py).
# After ImageDescription and DocumentName that would meet tags that hold no text, so further keys
# take Software, Artist, HostComputer and Copyright.
PROMPT_TAG = 0x0110
EXTRA_TAGS = (0x010F, 0x010E, 0x010D, 0x0131, 0x013B, 0x013C, 0x8298)
# A JPEG segment has 65,535 bytes, two of them its length; Pillow refuses more.
JPEG_EXIF = 65533


def to_pixels(image: Any) -> Any:
    """8-bit pixels of an image: clipped to 0..1 and rounded; NaN becomes 0 and is logged.

    Args:
        image: float array [height, width, channels]; 1, 3 or 4 channels.

    Returns:
        uint8 array [height, width] for one channel, else [height, width, channels].

    Raises:
        ValueError: for another shape.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise ValueError(
            f"an image has height, width and 1, 3 or 4 channels, not the shape {image.shape}"
        )
    values = np.array(image, dtype=np.float32)  # a copy, changed in place below
    missing = np.isnan(values)
    if missing.any():
        logging.warning(
            "strixbox: %d of %d values are not a number and become 0; where the image is black,"
            " the VAE overflowed: try --bf16-vae or --fp32-vae",
            missing.sum(),
            missing.size,
        )
        values[missing] = 0
    np.clip(values, 0, 1, out=values)
    values *= 255
    np.rint(values, out=values)
    pixels = values.astype(np.uint8)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def on_white(image: Image.Image) -> Image.Image:
    """A picture without alpha: what is transparent shows white, as in most viewers."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def metadata(prompt: Any, extra: Any) -> dict[str, str]:
    """Name -> JSON text, the workflow first where there is one, then the prompt."""
    others = dict(extra) if isinstance(extra, dict) else {}
    first = {"workflow": others.pop("workflow")} if "workflow" in others else {}
    if prompt is not None:
        first["prompt"] = prompt
        others.pop("prompt", None)
    return {str(name): json.dumps(value) for name, value in (first | others).items()}


def exif(texts: dict[str, str], limit: int | None) -> tuple[bytes, dict[str, str]]:
    """EXIF with the texts, and the texts that found no place in ``limit`` bytes."""
    found = Image.Exif()
    left = {}
    free = list(EXTRA_TAGS)
    for name, text in texts.items():
        tag = PROMPT_TAG if name == "prompt" else free.pop(0) if free else None
        if tag is not None:
            found[tag] = f"{name}:{text}"
            if limit is None or len(found.tobytes()) <= limit:
                continue
            del found[tag]
            if tag != PROMPT_TAG:
                free.insert(0, tag)
        left[name] = text
    return (found.tobytes() if len(found) else b""), left


def encode(
    pixels: Any,
    kind: str,
    texts: dict[str, str],
    *,
    quality: int = 90,
    lossless: bool = False,
    compress_level: int = 4,
) -> tuple[bytes, dict[str, str]]:
    """Bytes of a picture file, and the metadata that the format could not hold.

    Raises:
        ValueError: where the format cannot hold that many pixels.
    """
    image = Image.fromarray(pixels)
    limit = LARGEST.get(kind)
    if limit is not None and max(image.size) > limit:
        raise ValueError(
            f"{kind} holds {limit} pixels a side, this image is {image.width}x{image.height};"
            " save it as PNG"
        )
    stream = BytesIO()
    if kind == "PNG":
        info = PngInfo()
        for name, text in texts.items():
            info.add_text(name, text)
        image.save(stream, "PNG", pnginfo=info, compress_level=compress_level)
        return stream.getvalue(), {}
    tags, left = exif(texts, JPEG_EXIF if kind == "JPEG" else None)
    words: dict[str, Any] = {"exif": tags} if tags else {}
    if kind == "JPEG":
        on_white(image).save(stream, "JPEG", quality=quality, optimize=True, **words)
    else:
        if image.mode == "L":
            image = image.convert("RGB")  # WebP has no grey
        # Exact: keep the colour of what is transparent, or lossless would lose it.
        words |= {"lossless": lossless, "exact": lossless, "method": 4}
        # Without loss, quality is the effort: 100 takes ten times as long for a few percent.
        image.save(stream, "WEBP", quality=75 if lossless else quality, **words)
        return exif_first(stream.getvalue()), left
    return stream.getvalue(), left


def exif_first(webp: bytes) -> bytes:
    """The same WebP with its EXIF chunk before the picture.

    ComfyUI's frontend (1.27.10, getWebpMetadata) walks the chunks without the byte that pads an
    odd length, so it finds no EXIF after a picture of odd length, which every other lossless one
    is. The container allows metadata at any place after VP8X (RFC 9649, section 2.7).
    """
    chunks = []
    offset = 12
    while offset + 8 <= len(webp):
        end = offset + 8 + int.from_bytes(webp[offset + 4 : offset + 8], "little")
        end += end % 2
        chunks.append(webp[offset:end])
        offset = end
    tags = [chunk for chunk in chunks if chunk.startswith(b"EXIF")]
    if not tags or not chunks[0].startswith(b"VP8X"):
        return webp
    others = [chunk for chunk in chunks[1:] if not chunk.startswith(b"EXIF")]
    return b"".join([webp[:12], chunks[0], *tags, *others])


def place(folder: Path, names: Iterator[str], content: bytes) -> str:
    """Write a whole file under the first of ``names`` that is free; returns that name.

    The content is complete before it has its name, and no file is ever replaced, also where two
    servers write to one directory.
    """
    handle, temporary = tempfile.mkstemp(prefix=".strixbox-", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp gives 0600
        for name in names:
            try:
                _name(Path(temporary), folder / name)
            except FileExistsError:
                continue
            return name
        raise OSError(f"no free name is left in {folder}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def _name(temporary: Path, target: Path) -> None:
    """Give a complete file its name.

    Raises:
        FileExistsError: where the name is taken.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (exFAT, some network mounts): take the name first, then fill it.
        target.open("xb").close()
        temporary.replace(target)


def _umask() -> int:
    """The process's umask, read without setting it: other threads create files meanwhile."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("Umask"))[6:], 8)
    except (OSError, ValueError, StopIteration):
        return 0o022
