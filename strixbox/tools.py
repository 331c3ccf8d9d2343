"""The strixbox command, its settings and our nodes, as files of the box."""

from __future__ import annotations

import json

from strixbox.config import Config
from strixbox.digests import digest_of
from strixbox.layout import (
    BOXTOOLS,
    COMMAND,
    CURRENT,
    ETC,
    LIB,
    LOCKS,
    NODES,
    SERVICE,
    TOOLS_STATE,
)
from strixbox.locks import TOOLS
from strixbox.tree import BoxFile, shipped, shipped_tree

PROFILER = f"{NODES}/strixbox-profiler"


def command_files() -> tuple[BoxFile, ...]:
    """The command, its package and the lock of its environment."""
    return (
        shipped(COMMAND, mode="755"),
        shipped(f"{LOCKS}/{TOOLS}.txt"),
        *shipped_tree(BOXTOOLS),
    )


def node_files(cfg: Config) -> tuple[BoxFile, ...]:
    """Our node packs; the profiler only where it was asked for."""
    packs = shipped_tree(f"{NODES}/strixbox")
    if cfg.tools.profiler:
        packs += shipped_tree(PROFILER, image="/opt/strixbox/nodes-extra/strixbox-profiler")
    return packs


def nodes_digest(cfg: Config) -> str:
    """Tells a server that was started with other nodes of ours."""
    return digest_of([[file.path, file.sha256] for file in node_files(cfg)])


def settings_file(cfg: Config) -> BoxFile:
    """What ``boxtools.settings`` reads."""
    torch = next(wheel for wheel in cfg.python.wheels if wheel.project == "torch")
    tunableop = cfg.launch.variables.get("PYTORCH_TUNABLEOP_FILENAME")
    content = {
        "managed": "Managed by strixbox",
        "url": f"http://127.0.0.1:{cfg.comfyui.port}",
        "user": cfg.box.user,
        "service": SERVICE,
        "base_directory": cfg.comfyui.base_directory,
        "temp_directory": cfg.tmpfs.path,
        "archive": cfg.models.archive,
        "current": CURRENT,
        "launch": f"{LIB}/launch",
        "state": TOOLS_STATE,
        "stack": cfg.stack,
        "torch": torch.version,
        "hip": cfg.python.hip,
        "tunableop": tunableop.value if tunableop else None,
        "profile": cfg.comfyui.profile,
        "profiles": {name: p.model_dump() for name, p in cfg.launch.profiles.items()},
        "variables": {name: v.model_dump() for name, v in cfg.launch.variables.items()},
        "models": [model.model_dump() for model in cfg.models.manifest],
        "ram_gib": cfg.box.ram_gib,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return BoxFile(f"{ETC}/tools.json", text.encode())
