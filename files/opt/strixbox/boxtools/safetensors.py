"""Headers of .safetensors files: what a model is, without reading its weights.

The format (github.com/huggingface/safetensors, README): 8 bytes little-endian length N, N bytes of
JSON (tensor name -> dtype, shape, data_offsets), then the data. N is at most 100 MB there; a header
over 16 MiB is not read here, SDXL's has about 300 KB.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boxtools.pagecache import open_quietly

LONGEST = 16 << 20  # bytes of a header that is read
REFUSED = 100_000_000  # bytes of a header; loaders refuse more
# Input channels of the cross-attention's keys: the width of the text encoders' output.
FAMILIES = {768: "SD1.5", 1024: "SD2", 1280: "SDXL refiner", 2048: "SDXL base"}


@dataclass(frozen=True)
class Tensor:
    """One entry of a header."""

    dtype: str  # F32, F16, BF16, F8_E4M3, ...
    shape: tuple[int, ...]
    begin: int  # bytes, from the end of the header
    end: int


@dataclass(frozen=True)
class Header:
    """A header that could be understood."""

    tensors: Mapping[str, Tensor]
    length: int  # bytes that the whole file should have

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @cached_property
    def dtype(self) -> str | None:
        """The type that most bytes have."""
        count: Counter[str] = Counter()
        for tensor in self.tensors.values():
            count[tensor.dtype] += tensor.end - tensor.begin
        return count.most_common(1)[0][0] if count else None


def read_header(path: Path) -> Header | None:
    """The header of a file; None where it is no .safetensors file or cannot be read."""
    try:
        descriptor = open_quietly(path)
    except OSError:
        return None
    try:
        # Without it the kernel would read some megabytes of weights ahead.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        if not 2 <= length <= LONGEST:
            return None
        return parse_header(os.pread(descriptor, length, 8), length)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def header_trouble(path: Path, suffix: str = "") -> str:
    """What is wrong with a model file by its first bytes and length; empty where nothing is.

    ``suffix`` is that of its name where it has another one for now.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if size == 0:
                return "it is empty"
            if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
                return "it is a web page, not a model"
            if (suffix or path.suffix).lower() not in (".safetensors", ".sft"):
                return ""
            length = int.from_bytes(start, "little") if len(start) == 8 else size
            if length > min(size - 8, REFUSED):
                return "its header is longer than the file"
            if length > LONGEST:
                return ""
            header = _object(stream.read(length))
    except OSError:
        return ""
    if not header:
        return "its header is no JSON"
    ends = (_end(tensor) for name, tensor in header.items() if name != "__metadata__")
    missing = 8 + length + max(ends, default=0) - size
    return f"{missing} bytes are missing at its end" if missing > 0 else ""


def _end(tensor: object) -> int:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    end = offsets[-1] if isinstance(offsets, list) and offsets else 0
    return end if isinstance(end, int) else 0


def _object(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def parse_header(text: bytes, length: int) -> Header | None:
    """Tensors of a header of ``length`` bytes; None where it is not one."""
    if len(text) != length:
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    tensors = {}
    for name, entry in told.items():
        if name == "__metadata__":
            continue
        tensor = _tensor(entry)
        if tensor is None:
            return None
        tensors[name] = tensor
    end = max((tensor.end for tensor in tensors.values()), default=0)
    return Header(tensors, 8 + length + end)


def _tensor(entry: Any) -> Tensor | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return None
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        return None
    return Tensor(entry["dtype"][:16], shape, *offsets)


def _counts(value: Any) -> tuple[int, ...] | None:
    """Sizes that a file of this world can have, so that no product of them grows without end."""
    if not isinstance(value, list) or len(value) > 16:
        return None
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in value):
        return None
    return tuple(value)


def kind(tensors: Mapping[str, Tensor]) -> str | None:
    """What a model is, by the names of its tensors; None where they are not known.

    The names are those by which ComfyUI tells models apart (comfy/model_detection.py, lora.py,
    controlnet.py and sd.py of v0.3.64).
    """
    names = tuple(tensors)

    def starts(*words: str) -> bool:
        return any(name.startswith(words) for name in names)

    def has(*words: str) -> bool:
        return any(word in name for word in words for name in names)

    family = _family(tensors)
    if has(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1_a", ".lokr_w1", "_lora."):
        return f"{_short(family)} LoRA".lstrip()
    if starts("control_model.", "controlnet_cond_embedding.", "controlnet_", "input_hint_block."):
        return f"{_short(family)} ControlNet".lstrip()
    if starts("ip_adapter."):
        return "IP-Adapter"
    if starts("adapter."):
        return "T2I adapter"
    unet = starts("model.diffusion_model.", "down_blocks.", "input_blocks.", "double_blocks.")
    if unet or starts("transformer_blocks.", "joint_blocks."):
        whole = starts("conditioner.", "cond_stage_model.", "text_encoders.")
        inpaint = " inpaint" if _inpaints(tensors) else ""
        return f"{family or 'diffusion'}{inpaint}{'' if whole else ' UNet'}"
    if starts("first_stage_model.", "decoder.conv_in.", "encoder.conv_in."):
        return "VAE"
    if starts("decoder.layers.", "taesd_"):
        return "TAESD"
    if starts("vision_model."):
        return "CLIP vision"
    if starts("text_model.", "transformer.resblocks."):
        return "CLIP text encoder"
    if starts("encoder.block.", "shared."):
        return "T5 text encoder"
    if set(names) and set(names) <= {"emb_params", "clip_g", "clip_l"}:
        return "embedding"
    if starts("conv_first.", "model.0.", "model.1.sub."):
        return "upscaler"
    return None


def _family(tensors: Mapping[str, Tensor]) -> str | None:
    """SD1.5, SDXL base, ... by the width of the text that cross-attention takes in."""
    for name, tensor in tensors.items():
        # A LoRA's inner half takes in the same; its outer half takes in the rank.
        outer = re.search(r"lora_up|lora_B|hada|lokr|alpha", name)
        if re.search(r"attn2[._]to_k[._]", name) and not outer and len(tensor.shape) >= 2:
            return FAMILIES.get(tensor.shape[1])
        if "double_blocks" in name:
            return "Flux"
        if "joint_blocks" in name:
            return "SD3"
    return None


def _short(family: str | None) -> str:
    return "SDXL" if family == "SDXL base" else family or ""


def _inpaints(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the first convolution takes in a mask and a masked image beside the latent."""
    for name in ("model.diffusion_model.input_blocks.0.0.weight", "conv_in.weight"):
        shape = tensors[name].shape if name in tensors else ()
        if len(shape) == 4:
            return shape[1] == 9
    return False
