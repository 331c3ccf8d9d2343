"""What a release is made of, and the name that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from packaging.utils import canonicalize_name

from strixbox.config import Comfyui, Python, Wheel
from strixbox.digests import digest_of
from strixbox.layout import LOCKS, RELEASES
from strixbox.locks import lock_digest, lock_text, pins
from strixbox.tree import BoxFile, rendered, shipped

# Grows when a release is built in another way from the same pins, so that boxes get a new one.
RECIPE = 1


@dataclass(frozen=True)
class Checkout:
    """A repository at a commit, at a path of its own."""

    path: str
    url: str
    commit: str


@dataclass(frozen=True)
class Release:
    """One release: its pins and, from the box, the requirements of the user's own nodes."""

    python: Python
    comfyui: Comfyui
    user_nodes: Mapping[str, str]

    @cached_property
    def id(self) -> str:
        """Digest of every pin that goes into the release."""
        return digest_of(self.pins())

    @property
    def path(self) -> str:
        """Directory of the release on the box."""
        return f"{RELEASES}/{self.id}"

    @property
    def seal(self) -> str:
        """File that says that the release was proved."""
        return f"{self.path}/release.json"

    @property
    def venv(self) -> str:
        """The release's Python environment."""
        return f"{self.path}/venv"

    @property
    def code(self) -> str:
        """ComfyUI's checkout."""
        return f"{self.path}/ComfyUI"

    def pins(self) -> dict[str, Any]:
        """Everything that decides what the release holds, as plain data."""
        return {
            "recipe": RECIPE,
            "python": self.python.version,
            "wheels": [wheel.model_dump() for wheel in self.python.wheels],
            "lock": lock_digest(self.python.requirements),
            "comfyui": {"url": self.comfyui.url, "commit": self.comfyui.commit},
            "nodes": [node.model_dump() for node in self.comfyui.nodes],
            "user_nodes": dict(sorted(self.user_nodes.items())),
        }

    def checkouts(self) -> tuple[Checkout, ...]:
        """ComfyUI and the pinned nodes, each at its commit."""
        nodes = (
            Checkout(f"{self.path}/nodes/{node.name}", node.url, node.commit)
            for node in self.comfyui.nodes
        )
        return (Checkout(self.code, self.comfyui.url, self.comfyui.commit), *nodes)

    def packages(self) -> dict[str, str]:
        """Version by canonical name of everything that the environment must hold."""
        locked = pins(lock_text(self.python.requirements), self.python.version)
        return {**locked} | {canonicalize_name(w.project): w.version for w in self.python.wheels}


def constraints(python: Python) -> str:
    """Requirement lines that keep the stack's torch and numpy where they are.

    Exported as PIP_CONSTRAINT and UV_CONSTRAINT, so that no later install can replace ROCm's torch
    by the CUDA build of the public index.
    """
    lines = [f"{wheel.project}=={wheel.version}" for wheel in python.wheels]
    return "\n".join([*lines, f"numpy=={python.numpy}", ""])


def held_files(release: Release) -> tuple[BoxFile, ...]:
    """The lock of ComfyUI's requirements, and the constraints of the release."""
    return (
        shipped(f"{LOCKS}/{release.python.requirements}.txt"),
        BoxFile(f"{release.path}/constraints.txt", constraints(release.python).encode()),
    )


def node_paths(release: Release) -> BoxFile:
    """What tells ComfyUI where the nodes of the release are."""
    return rendered(
        f"{release.path}/extra_model_paths.yaml",
        image="/opt/strixbox/release/extra_model_paths.yaml",
        nodes=f"{release.path}/nodes",
    )


def overrides(release: Release) -> str:
    """Exact versions for uv's ``--override`` when the user's nodes are installed.

    An override replaces what a node asks for: ``torch==2.1`` of a node means the stack's torch.
    """
    return "\n".join([*(f"{n}=={v}" for n, v in sorted(release.packages().items())), ""])


def file_name(wheel: Wheel) -> str:
    """Name of the wheel's file."""
    return wheel.url.rsplit("/", 1)[1].replace("%2B", "+")
