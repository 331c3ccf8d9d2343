"""What everything else on a box builds on: Ubuntu's packages and directories of ours."""

from __future__ import annotations

from strixbox.config import MODEL_FOLDERS, Box, Config
from strixbox.layout import (
    BIN,
    BOXTOOLS,
    ETC,
    FOLDERS,
    LIB,
    LOCKS,
    NODES,
    OPT,
    RELEASES,
    STATE,
    TOOLS_STATE,
    WHEELS,
)
from strixbox.tree import BoxDirectory, BoxFile, rendered

PACKAGES = (
    *("ca-certificates", "git", "python3-venv"),
    *("htop", "tmux"),  # what `strixbox dashboard` shows, and where
)
GROUPS = ("render", "video")  # who may use the GPU
ROOTS = (OPT, BIN, BOXTOOLS, LIB, LOCKS, NODES, RELEASES, ETC, STATE, WHEELS)


def directories(box: Box) -> tuple[BoxDirectory, ...]:
    """Directories of ours, and those that the box's account writes to."""
    own = (f"{STATE}/tunableop", TOOLS_STATE)
    return (
        *(BoxDirectory(path) for path in ROOTS),
        *(BoxDirectory(path, owner=box.user, group=None) for path in own),
    )


def cleaning(path: str) -> BoxFile:
    """What keeps the RAM disk at ``path`` out of the cleaning of /tmp."""
    return rendered("/etc/tmpfiles.d/strixbox.conf", path=path)


def user_folders(cfg: Config) -> tuple[str, ...]:
    """The user's directory and its folders, parents first."""
    base = cfg.comfyui.base_directory
    return (base, *(f"{base}/{folder}" for folder in FOLDERS))


def tier_folders(tier: str) -> tuple[str, ...]:
    """Folders of a tier of models."""
    return tuple(f"{tier}/{folder}" for folder in MODEL_FOLDERS)
