"""Reads an apt key's fingerprint, in place or offered, and puts the right one in place.

A key is written in one form, whatever form it came in: then its file can be compared byte by byte
without a note of what was downloaded, and holds nothing besides the key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import sys
from typing import Any

from strixbox.box._atomic import put
from strixbox.box._openpgp import BEGIN, END, dearmour, fingerprints

PLAIN = stat.S_IFREG | 0o644
LIMIT = 256 * 1024  # bytes; AMD's key has 3 KiB


def armour(content: bytes) -> bytes:
    """The armoured form of binary packets (RFC 4880, 6.2), with its checksum."""
    text = base64.b64encode(content).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    checksum = base64.b64encode(crc24(content).to_bytes(3, "big")).decode()
    return "\n".join([BEGIN, "", *lines, f"={checksum}", END, ""]).encode()


def crc24(content: bytes) -> int:
    """Checksum of an armoured block (RFC 4880, 6.1)."""
    crc = 0xB704CE
    for octet in content:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def fingerprint(content: bytes) -> str:
    """Fingerprint of the one key in ``content``.

    apt trusts every key of a Signed-By file, so a second one behind the right one is refused.

    Raises:
        ValueError: where it is not one version 4 public key, its subkeys aside.
    """
    keys = fingerprints(content)
    if len(keys) != 1:
        raise ValueError("not one version 4 public key")
    return keys[0]


def read(path: str) -> str | None:
    """Fingerprint of the key at ``path``; None where there is none as ``place`` writes it."""
    try:
        info = os.lstat(path)
        with open(path, "rb") as stream:
            content = stream.read(LIMIT)
        ours = content == armour(dearmour(content)) and info.st_uid == os.geteuid()
        return fingerprint(content) if ours and info.st_mode == PLAIN else None
    except (OSError, ValueError, IndexError):
        return None


def download(url: str, wanted: str) -> bytes:
    """The key at ``url``, if it is the one with the fingerprint ``wanted``.

    Raises:
        SystemExit: with what is wrong and the mend, where it is another or none.
    """
    # Here, as it takes longer than all else and most runs need none.
    import urllib.request
    from http.client import HTTPException

    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - http(s) by schema
            content: bytes = answer.read(LIMIT)
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SystemExit(
            f"the key {url} could not be fetched ({reason}); see that the box reaches it, or set"
            " rocm_key_url, then run again"
        ) from None
    try:
        found = fingerprint(content)
    except (ValueError, IndexError):
        raise SystemExit(
            f"{url} does not hold one OpenPGP key (a login page or an error page?); open it in a"
            " browser from the box's network, then run again"
        ) from None
    if found != wanted:
        raise SystemExit(
            f"the key at {url} has the fingerprint {found}, not {wanted}; nothing was"
            " changed. If AMD announced a new key, set rocm_key_fingerprint; else do not go on"
        )
    return content


def offered(url: str, wanted: str) -> dict[str, str]:
    """``sha256`` of the key at ``url`` where it is the right one, else ``trouble``."""
    try:
        return {"sha256": hashlib.sha256(download(url, wanted)).hexdigest()}
    except SystemExit as trouble:
        return {"trouble": str(trouble)}


def place(order: dict[str, Any]) -> None:
    """Download the key, compare its fingerprint, and rename it into place."""
    path = order["path"]
    if os.path.isdir(path):
        raise SystemExit(f"{path} is a directory; move it away and run again")
    content = armour(dearmour(download(order["url"], order["fingerprint"])))
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    put(path, content, 0o644)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        query = json.loads(sys.argv[1])
        if "path" in query:
            print(json.dumps(read(query["path"]) or ""))
        else:
            print(json.dumps(offered(query["url"], query["fingerprint"])))
    else:
        place(json.load(sys.stdin))
