"""Part of programs: OpenPGP keys, told from their packets; a bare box need not have gpg."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6  # the kind of packet; subkeys have another
BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
END = "-----END PGP PUBLIC KEY BLOCK-----"


def dearmour(content: bytes) -> bytes:
    """The binary packets of a key, armoured or not.

    Raises:
        ValueError: where it is no OpenPGP key.
    """
    if content[:1] and content[0] & 0x80:
        return content
    lines = content.decode("ascii", errors="strict").splitlines()
    body = lines[lines.index(BEGIN) + 1 : lines.index(END)]
    if "" in body:
        body = body[body.index("") + 1 :]
    return base64.b64decode("".join(line for line in body if not line.startswith("=")))


def packets(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of every packet (RFC 4880, 4.2).

    Raises:
        ValueError: where the content ends within a packet.
    """
    at = 0
    while at < len(content):
        tag = content[at]
        if not tag & 0x80:
            raise ValueError("not an OpenPGP packet")
        if tag & 0x40:
            kind, first = tag & 0x3F, content[at + 1]
            if first < 192:
                length, start = first, at + 2
            elif first < 224:
                length, start = ((first - 192) << 8) + content[at + 2] + 192, at + 3
            else:
                length, start = int.from_bytes(content[at + 2 : at + 6], "big"), at + 6
        else:
            kind, size = (tag >> 2) & 0x0F, 1 << (tag & 3)
            length, start = int.from_bytes(content[at + 1 : at + 1 + size], "big"), at + 1 + size
        at = start + length
        if at > len(content):
            raise ValueError("a packet is cut short")
        yield kind, content[start:at]


def fingerprints(content: bytes) -> list[str]:
    """Fingerprint of each key in ``content``: SHA-1 over its packet (RFC 4880, 12.2).

    Raises:
        ValueError: where it is no OpenPGP key, or one of another version than 4.
    """
    found = []
    for kind, body in packets(dearmour(content)):
        if kind != PUBLIC_KEY:
            continue
        if body[:1] != b"\x04":
            raise ValueError("not a version 4 public key")
        length = len(body).to_bytes(2, "big")
        found.append(hashlib.sha1(b"\x99" + length + body).hexdigest().upper())  # noqa: S324
    return found
