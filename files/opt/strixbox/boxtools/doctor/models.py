"""Facts about the models: what lies in their directories, and what is wrong with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from boxtools.doctor.world import World, parse_object, walked
from boxtools.settings import Settings

MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
LONGEST_HEADER = 100_000_000  # bytes; loaders refuse more
LARGE_HEADER = 16 << 20  # bytes; a real one has less than one MiB, and parsing takes memory
STALE = 7 * 86400  # seconds after which a download is no longer on its way


@dataclass(frozen=True)
class Models:
    """What lies in the model directories."""

    checkpoints: int
    dangling: tuple[str, ...]  # links that lead nowhere
    parts: tuple[str, ...]  # downloads of ours that nobody continues
    broken: tuple[tuple[str, str], ...]  # path and what is wrong with its header


def read_models(world: World, settings: Settings) -> Models:
    """Look through the active tier and the archive."""
    checkpoints = 0
    dangling, parts, broken = [], [], []
    managed = {model.name for model in settings.models}
    for top in filter(None, (settings.active, settings.archive)):
        for path in walked(top):
            if path.is_symlink() and not path.exists():
                dangling.append(str(path))
            elif path.suffix == ".part" and _abandoned(path, managed, world.now()):
                parts.append(str(path))
            elif path.suffix.lower() in MODELS and path.is_file():
                checkpoints += path.relative_to(top).parts[0] == "checkpoints"
                wrong = "" if path.is_symlink() else header_trouble(path)
                if wrong:
                    broken.append((str(path), wrong))
    return Models(checkpoints, tuple(dangling), tuple(parts), tuple(broken))


def _abandoned(path: Path, managed: set[str], now: float) -> bool:
    """Whether a .part is ours and nobody continues it: its model is there, or it is days old."""
    if path.is_symlink() or not path.is_file():
        return False
    model = path.with_suffix("")
    try:
        old = now - path.stat().st_mtime > STALE
    except OSError:
        return False
    return model.is_file() or (old and model.name in managed)


def header_trouble(path: Path) -> str:
    """What is wrong with a model file by its first bytes and length; empty where nothing is.

    The format: 8 bytes little-endian length, that many bytes of JSON, then the tensors, whose
    ``data_offsets`` count from there (safetensors' README).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if size == 0:
                return "it is empty"
            if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
                return "it is a web page, not a model"
            if path.suffix.lower() not in (".safetensors", ".sft"):
                return ""
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, LONGEST_HEADER):
                return "its header is longer than the file"
            if length > LARGE_HEADER:
                return ""
            header = parse_object(stream.read(length).decode("utf-8", errors="replace"))
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
