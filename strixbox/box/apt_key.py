"""Reads an apt key's fingerprint, or fetches a key and puts it in place if it is the right one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

LIMIT = 256 * 1024  # bytes; AMD's key has 3 KiB


def dearmour(content: bytes) -> bytes:
    """The binary packets of a key, armoured or not.

    Raises:
        ValueError: where it is no OpenPGP key.
    """
    if content[:1] and content[0] & 0x80:
        return content
    lines = content.decode("ascii", errors="strict").splitlines()
    begin = lines.index("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    end = lines.index("-----END PGP PUBLIC KEY BLOCK-----")
    body = lines[begin + 1 : end]
    if "" in body:
        body = body[body.index("") + 1 :]
    return base64.b64decode("".join(line for line in body if not line.startswith("=")))


def fingerprint(content: bytes) -> str:
    """Fingerprint of the first key: SHA-1 over its packet (RFC 4880, 12.2).

    Raises:
        ValueError: where it is no version 4 public key.
    """
    packets = dearmour(content)
    tag = packets[0]
    if tag & 0x40:
        kind, first = tag & 0x3F, packets[1]
        if first < 192:
            length, start = first, 2
        elif first < 224:
            length, start = ((first - 192) << 8) + packets[2] + 192, 3
        else:
            length, start = int.from_bytes(packets[2:6], "big"), 6
    else:
        kind, size = (tag >> 2) & 0x0F, 1 << (tag & 3)
        length, start = int.from_bytes(packets[1 : 1 + size], "big"), 1 + size
    body = packets[start : start + length]
    if kind != 6 or len(body) != length or body[:1] != b"\x04":
        raise ValueError("not a version 4 public key")
    return hashlib.sha1(b"\x99" + length.to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324


def read(path: str) -> str | None:
    """Fingerprint of the key at ``path``; None where there is none that can be read."""
    try:
        with open(path, "rb") as stream:
            return fingerprint(stream.read(LIMIT))
    except (OSError, ValueError, IndexError):
        return None


def fetch(order: dict[str, Any]) -> None:
    """Download the key, compare its fingerprint, and rename it into place."""
    url, path = order["url"], order["path"]
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - http(s) by schema
            content = answer.read(LIMIT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SystemExit(
            f"the key {url} could not be fetched ({reason}); see that the box reaches it, or set"
            " rocm_key_url, then run again"
        ) from None
    try:
        found = fingerprint(content)
    except (ValueError, IndexError):
        raise SystemExit(
            f"{url} holds no OpenPGP key (a login page or an error page?); open it in a browser"
            " from the box's network, then run again"
        ) from None
    if found != order["fingerprint"]:
        raise SystemExit(
            f"the key at {url} has the fingerprint {found}, not {order['fingerprint']}; nothing was"
            " changed. If AMD announced a new key, set rocm_key_fingerprint; else do not go on"
        )
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".new", "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        json.dump(read(json.loads(sys.argv[1])["path"]) or "", sys.stdout)
    else:
        fetch(json.load(sys.stdin))
