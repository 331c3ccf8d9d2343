"""Writer: requirements of the user's own nodes, into a release that is being built.

A node whose requirements cannot be had does not stop the release: it is told, and recorded. The
files are read as the user, who may have linked anything there, and their text is handed to uv; uv
itself is started without any rights by the words that come with the order.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from typing import Any

from strixbox.box._account import acting_as
from strixbox.box._atomic import put

LIMIT = 1 << 20


def requirements(path: str, digest: str) -> bytes:
    """Text of a requirements file.

    Raises:
        ValueError: saying why it is not to be used.
    """
    try:
        # Not blocking: a pipe that stands there would never be answered.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("requirements.txt is no file")
            text = stream.read(LIMIT + 1)
    except OSError as error:
        raise ValueError(f"requirements.txt cannot be read: {error.strerror}") from None
    if len(text) > LIMIT:
        raise ValueError("requirements.txt is longer than 1 MiB")
    if hashlib.sha256(text).hexdigest() != digest:
        raise ValueError("requirements.txt changed during the deploy; the next one takes it up")
    return text


def install(uv: list[str], text: bytes) -> str | None:
    """Install what one file asks for; None, or the reason why it could not be done."""
    answer = subprocess.run(
        [*uv, "--requirements", "-"],
        input=text,
        capture_output=True,
        check=False,
    )
    if answer.returncode == 0:
        return None
    return " ".join(answer.stderr.decode(errors="replace").split())[-400:] or "uv failed"


def installed(order: dict[str, Any], node: str, digest: str) -> str | None:
    """Have what one node asks for; None, or the reason why it could not be done."""
    path = os.path.join(order["directory"], node, "requirements.txt")
    try:
        with acting_as(order["user"]):
            text = requirements(path, digest)
    except ValueError as error:
        return str(error)
    return install(order["uv"], text)


def recorded(path: str) -> dict[str, dict[str, str | None]]:
    """What earlier runs installed into this release."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def main(order: dict[str, Any]) -> None:
    """``{"uv": [words], "user", "directory", "nodes", "held", "record", "seal"}``.

    ``nodes`` is the sha256 of requirements.txt by name; ``held`` the ``path`` that the words name
    for the ``text`` of what stays at its version, which is there for as long as this runs.
    """
    results = recorded(order["record"])
    held = order["held"]
    with open(held["path"], "w", encoding="utf-8") as stream:
        stream.write(held["text"])
    for node, digest in order["nodes"].items():
        print(f"requirements of the user's node {node}", flush=True)
        before = results.get(node)
        reason = installed(order, node, digest)
        results[node] = {"sha256": digest, "failed": reason}
        if reason:
            print(f"{node}: not installed, it may not load: {reason}", flush=True)
        elif before and os.path.exists(order["seal"]):
            # The proof says that it does not load; the release is proved again.
            os.unlink(order["seal"])
            print(f"{node}: installed now; sudo systemctl restart comfyui loads it", flush=True)
    os.unlink(held["path"])
    put(order["record"], json.dumps(results, indent=1).encode(), 0o644)


if __name__ == "__main__":
    main(json.load(sys.stdin))
