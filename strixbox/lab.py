"""What the lab of test boxes tells the inventory: the file ``.lab/lab.json``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Labs beside one another have numbers: STRIXBOX_LAB=2 is another one, with a folder of its own.
NUMBER = int(os.environ.get("STRIXBOX_LAB", "1"))
FOLDER = ".lab" if NUMBER == 1 else f".lab{NUMBER}"
LAB_FILE = Path(__file__).parent.parent / FOLDER / "lab.json"

# Codes of strixbox/preflight.py that no container can satisfy, and why.
_NO_GPU = "a container has neither an AMD GPU nor its driver"
_NOT_ITS_OWN = "a container has the {} of the machine that it runs on"
ACCEPTED = {
    "CPU.MODEL": _NOT_ITS_OWN.format("CPU"),
    "GPU.PCI": _NO_GPU,
    "GPU.KFD": _NO_GPU,
    "GPU.RENDER": _NO_GPU,
    "KERNEL.ROCM": _NOT_ITS_OWN.format("kernel"),
}


@dataclass(frozen=True)
class LabData:
    """Mirrors, keys and commits of a running lab, in the shape that group_data needs."""

    raw: dict[str, Any]

    @property
    def mirror(self) -> str:
        """Base URL of the lab's mirror."""
        return str(self.raw["mirror"])

    @property
    def amd(self) -> str:
        """Base URL of what stands in for AMD's repositories."""
        return str(self.raw["amd"])

    @property
    def index_url(self) -> str:
        """The lab's Python package index."""
        return str(self.raw["index_url"])

    @property
    def rocm_key_fingerprint(self) -> str:
        """Fingerprint of the key that signs the lab's ROCm repositories."""
        return str(self.raw["rocm_key_fingerprint"])

    @property
    def python(self) -> str:
        """Python minor version that the boxes have."""
        return str(self.raw["python"])

    @property
    def distribution(self) -> str:
        """Distribution of the boxes, e.g. ``debian-12``."""
        return str(self.raw["distribution"])

    @property
    def ram_gib(self) -> int:
        """Memory of this machine, which the boxes share, GiB."""
        return int(self.raw["ram_gib"])

    @property
    def comfyui_url(self) -> str:
        """Git remote of the server that stands in for ComfyUI."""
        return str(self.raw["git"]["comfyui"]["url"])

    @property
    def comfyui_commit(self) -> str:
        """Commit that the boxes run."""
        return str(self.raw["git"]["comfyui"]["commit"])

    @property
    def real_comfyui(self) -> dict[str, str] | None:
        """Git remote and commit of the real ComfyUI, where the lab was given a checkout of it."""
        real: dict[str, str] | None = self.raw["git"].get("real_comfyui")
        return real

    def wheels(self, rocm: str) -> list[dict[str, Any]]:
        """The stand-in wheels of a ROCm release, as ``python_wheels``."""
        return [
            {
                "project": wheel["name"].replace("_", "-"),
                "version": wheel["version"],
                "url": wheel["url"],
                "sha256": wheel["sha256"],
            }
            for wheel in self.raw["wheels"][rocm]
        ]

    def nodes(self, *, real: bool = False) -> list[dict[str, str]]:
        """The stand-in node packs, as ``comfyui_nodes``; the real ones where the lab has them."""
        remotes = self.raw["git"]
        tiled = remotes.get("real_tiled", remotes["tiled"]) if real else remotes["tiled"]
        return [{"name": "ComfyUI-TiledDiffusion", "url": tiled["url"], "commit": tiled["commit"]}]

    def models(self) -> list[dict[str, Any]]:
        """The stand-in models, as ``models_manifest``."""
        return [
            {
                "name": model["name"],
                "folder": model["folder"],
                "tier": "active",
                "url": model["url"],
                "sha256": model["sha256"],
                "bytes": model["bytes"],
            }
            for model in self.raw["models"]
        ]

    def boxes(self) -> list[dict[str, Any]]:
        """The running boxes, as entries of boxes.yaml."""
        return [
            {
                "name": box["name"],
                "address": box["address"],
                "user": self.raw["user"],
                "key": self.raw["key"],
                "groups": ["lab", "lab_comfyui"] if self.real_comfyui else ["lab"],
                # A box that is started anew has the address of the one before and other keys.
                "settings": {
                    "ssh_strict_host_key_checking": "no",
                    "ssh_known_hosts_file": str(LAB_FILE.with_name("known_hosts")),
                },
            }
            for box in self.raw["boxes"]
        ]


def load(path: Path = LAB_FILE) -> LabData | None:
    """The lab's data, or None where no lab is up."""
    try:
        return LabData(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
