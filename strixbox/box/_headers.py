"""Part of programs: whether a file that nobody knows a hash of is what its name says.

An error in the place of a file would be recorded as the file, for ever.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any

LONGEST = 100_000_000  # bytes of a .safetensors header; loaders refuse more


def header_trouble(path: str, name: str) -> str:
    """What is wrong with a file that is to be called ``name``; empty where nothing is."""
    if name.endswith(".whl"):
        return "" if zipfile.is_zipfile(path) else "it is no zip archive"
    with open(path, "rb") as stream:
        start = stream.read(8)
        size = stream.seek(0, 2)
        if name.lower().endswith((".safetensors", ".sft")):
            stream.seek(8)
            return _safetensors(start, stream, size)
    return "it is a text" if not start or start.lstrip()[:1] in (b"", b"{", b"[", b"<") else ""


def _safetensors(start: bytes, stream: Any, size: int) -> str:
    """8 bytes tell the length of the JSON that follows, and it how long the tensors are."""
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, LONGEST):
        return "its header is longer than the file"
    try:
        header = json.loads(stream.read(length))
        tensors = [entry for key, entry in header.items() if key != "__metadata__"]
        missing = 8 + length + max((t["data_offsets"][1] for t in tensors), default=0) - size
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError):
        return "its header is no JSON of tensors"
    return f"{missing} bytes are missing at its end" if missing > 0 else ""
