"""Writer: requirements of the user's own nodes, into a release that is being built.

A node whose requirements cannot be had does not stop the release: it is told, and recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def install(uv: list[str], requirements: str, environment: dict[str, str]) -> str | None:
    """Install one file; None, or the reason why it could not be done."""
    answer = subprocess.run(
        [*uv, "--requirements", requirements],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode == 0:
        return None
    return " ".join(answer.stderr.split())[-400:]


def main(order: dict[str, Any]) -> None:
    """``{"uv": [words], "environment", "directory", "nodes": {name: sha256}, "record"}``."""
    results: dict[str, dict[str, str | None]] = {}
    environment = {**os.environ, **order["environment"]}
    for node, digest in order["nodes"].items():
        print(f"requirements of the user's node {node}", flush=True)
        path = os.path.join(order["directory"], node, "requirements.txt")
        reason = install(order["uv"], path, environment)
        if reason:
            print(f"{node}: not installed, it may not load: {reason}", flush=True)
        results[node] = {"sha256": digest, "failed": reason}
    aside = order["record"] + ".new"
    with open(aside, "w", encoding="utf-8") as stream:
        json.dump(results, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, order["record"])


if __name__ == "__main__":
    main(json.load(sys.stdin))
