"""A box with two tiers, without a server: what the models' commands work on."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from boxtools.settings import ManagedModel, Settings


def two_tiers(root: Path, archive: Path | None = None, **own: Any) -> Settings:
    """Settings of a box below ``root``, with the directories that the deploy makes."""
    archive = archive or root / "sata/models"
    for tier in (root / "base/models", archive):
        for folder in ("checkpoints", "loras", "vae"):
            (tier / folder).mkdir(parents=True, exist_ok=True)
    (root / "state").mkdir(exist_ok=True)
    words: dict[str, Any] = {
        "url": "http://127.0.0.1:1",
        "user": "root",
        "service": "comfyui.service",
        "base_directory": root / "base",
        "temp_directory": root / "temp",
        "archive": archive,
        "current": root / "current",
        "launch": root / "launch",
        "state": root / "state",
        "stack": "rocm-6.4.2",
        "torch": "2.6.0",
        "hip": None,
        "tunableop": None,
        "profile": "production",
        "profiles": {},
        "variables": {},
        "models": (),
        "ram_gib": 128,
    }
    return Settings(**(words | own))


def managed(key: str, tier: str, **own: Any) -> ManagedModel:
    """An entry of the manifest."""
    folder, name = key.split("/")
    return ManagedModel.model_validate({"folder": folder, "name": name, "tier": tier, **own})


def model(path: Path, content: bytes) -> Path:
    """A valid .safetensors file, a VAE by its only tensor's name."""
    entry = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    header = json.dumps({"decoder.conv_in.weight": entry}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    return path


def leftovers(root: Path) -> list[str]:
    """What a move that was cut may leave and no finished one does."""
    ends = (".strixbox-part", ".etag", ".strixbox-new", ".new", "move.json")
    return sorted(str(path) for path in root.rglob("*") if path.name.endswith(ends))
