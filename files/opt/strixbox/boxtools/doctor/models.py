"""Facts about the models: what lies in their directories, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boxtools.copyfile import PART
from boxtools.doctor.world import World, walked
from boxtools.safetensors import header_trouble
from boxtools.settings import Settings

MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")
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
    for top in filter(None, (settings.active, settings.archive)):
        for path in walked(top):
            if path.is_symlink() and not path.exists():
                dangling.append(str(path))
            elif path.suffix == PART and _abandoned(path, world.now()):
                parts.append(str(path))
            elif path.suffix.lower() in MODELS and path.is_file():
                checkpoints += path.relative_to(top).parts[0] == "checkpoints"
                wrong = "" if path.is_symlink() else header_trouble(path)
                if wrong:
                    broken.append((str(path), wrong))
    return Models(checkpoints, tuple(dangling), tuple(parts), tuple(broken))


def _abandoned(path: Path, now: float) -> bool:
    """Whether nobody continues a part: its model is there, or it is days old."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        old = now - path.stat().st_mtime > STALE
    except OSError:
        return False
    return old or path.with_suffix("").is_file()
