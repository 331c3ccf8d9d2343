"""The user's own nodes: whose requirements are still to be installed, and what is to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any


def unmet(record: str, nodes: Mapping[str, str]) -> dict[str, str]:
    """Nodes whose requirements are not in the release: never installed, changed, or failed.

    + record: what user_requirements.py wrote, empty where it has not run
    + nodes: digest of requirements.txt by name

    What failed is tried again: the index was not reached, or has the package by now.
    """
    done = _read(record)
    return {
        name: digest
        for name, digest in nodes.items()
        if done.get(name, {}).get("sha256") != digest or done[name].get("failed")
    }


def troubles(record: str, seal: Mapping[str, Any]) -> list[str]:
    """In words, which nodes lack what they ask for, or did not load when the release was proved."""
    lacking = [
        f"{name}: {' '.join(str(result['failed']).split())[-160:]}"
        for name, result in sorted(_read(record).items())
        if result.get("failed")
    ]
    proof = seal.get("proof") or {}
    # ComfyUI names a node by its path.
    silent = sorted({PurePosixPath(path).name for path in proof.get("user_nodes_failed", ())})
    return [*lacking, *(f"{name}: did not load" for name in silent)]


def _read(record: str) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(record)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: result for name, result in found.items() if isinstance(result, dict)}
