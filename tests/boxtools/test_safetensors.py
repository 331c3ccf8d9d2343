"""Headers of .safetensors files: what they say, and that no header breaks the reader."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from boxtools import safetensors
from boxtools.safetensors import kind, parse_header, read_header
from hypothesis import given
from hypothesis import strategies as st

ATTENTION = "transformer_blocks.0.attn2.to_k.weight"
UNET = "model.diffusion_model."


def header(shapes: dict[str, list[int]], dtype: str = "F16") -> dict[str, Any]:
    """A header whose tensors lie one after the other."""
    told: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, shape in shapes.items():
        size = 2
        for number in shape:
            size *= number
        told[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
        begin += size
    return told


def parsed(told: Any) -> safetensors.Header | None:
    text = json.dumps(told).encode()
    return parse_header(text, len(text))


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({f"{UNET}input_blocks.4.1.{ATTENTION}": [640, 2048], "conditioner.x": [1]}, "SDXL base"),
        (
            {f"{UNET}input_blocks.4.1.{ATTENTION}": [768, 1280], "conditioner.x": [1]},
            "SDXL refiner",
        ),
        ({f"{UNET}input_blocks.1.1.{ATTENTION}": [320, 768], "cond_stage_model.x": [1]}, "SD1.5"),
        (
            {
                f"{UNET}input_blocks.1.1.{ATTENTION}": [320, 768],
                f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3],
                "cond_stage_model.x": [1],
            },
            "SD1.5 inpaint",
        ),
        ({f"down_blocks.1.attentions.0.{ATTENTION}": [640, 2048]}, "SDXL base UNet"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": [1, 1]}, "Flux UNet"),
        (
            {
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": [1, 8],
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": [
                    8,
                    2048,
                ],
            },
            "SDXL LoRA",
        ),
        ({"unet.x.attn2.to_k.lora_A.weight": [8, 768]}, "SD1.5 LoRA"),
        ({"lora_unet_x.hada_w1_a": [8, 8]}, "LoRA"),
        ({"controlnet_cond_embedding.conv_in.weight": [1], f"down.{ATTENTION}": [1, 2048]},
         "SDXL ControlNet"),
        ({"control_model.input_hint_block.0.weight": [1]}, "ControlNet"),
        ({"decoder.conv_in.weight": [1], "encoder.conv_in.weight": [1]}, "VAE"),
        ({"decoder.layers.0.weight": [1]}, "TAESD"),
        ({"text_model.encoder.layers.0.x": [1]}, "CLIP text encoder"),
        ({"clip_g": [2, 1280], "clip_l": [2, 768]}, "embedding"),
        ({"something.else": [1]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_kind_is_told_by_the_tensors(shapes: dict[str, list[int]], expected: str | None) -> None:
    found = parsed(header(shapes))
    assert found is not None
    assert kind(found.tensors) == expected


def test_header_counts_weights_and_their_type() -> None:
    told = header({"a": [4, 3], "b": []})
    told["c"] = {"dtype": "F32", "shape": [1], "data_offsets": [26, 30]}
    found = parsed(told)
    assert found is not None
    assert (found.parameters, found.dtype) == (14, "F16")
    assert found.length == 8 + len(json.dumps(told)) + 30


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"a": 1},
        {"a": {"dtype": 1, "shape": [], "data_offsets": [0, 1]}},
        {"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 1]}},
        {"a": {"dtype": "F16", "shape": [True], "data_offsets": [0, 1]}},
        {"a": {"dtype": "F16", "shape": [1.5], "data_offsets": [0, 1]}},
        {"a": {"dtype": "F16", "shape": [1], "data_offsets": [2, 1]}},
        {"a": {"dtype": "F16", "shape": [1], "data_offsets": [0]}},
        {"a": {"dtype": "F16", "shape": [1] * 17, "data_offsets": [0, 1]}},
        {"a": {"dtype": "F16", "shape": [1 << 70], "data_offsets": [0, 1]}},
    ],
)
def test_what_is_no_header_is_none(told: Any) -> None:
    assert parsed(told) is None


def test_deep_nesting_is_none() -> None:
    text = b"[" * 100_000
    assert parse_header(text, len(text)) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.text() | JSON,
        "shape": st.lists(st.integers(-1, 1 << 64)) | JSON,
        "data_offsets": st.lists(st.integers(-1, 1 << 64), max_size=3) | JSON,
    },
)


@given(JSON | st.dictionaries(st.text(), ENTRY))
def test_any_json_is_taken(told: Any) -> None:
    found = parsed(told)
    if found is not None:
        assert found.parameters >= 0
        kind(found.tensors)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(text: bytes) -> None:
    parse_header(text, len(text))
    parse_header(text, len(text) + 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", safetensors.LONGEST) + b"{}",
        struct.pack("<Q", 0),
        struct.pack("<Q", 2) + b"{",
        b"PK\x03\x04 a pickle in a zip",
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert read_header(path) is None
    assert read_header(tmp_path / "absent") is None
    assert read_header(tmp_path) is None


def test_a_file_is_read_up_to_its_header(tmp_path: Path) -> None:
    text = json.dumps(header({"decoder.conv_in.weight": [4]})).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    found = read_header(path)
    assert found is not None
    assert found.length == path.stat().st_size
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    found = read_header(path)
    assert found is not None
    assert found.length == path.stat().st_size + 8  # cut short
