"""Short, stable digests of plain data."""

from __future__ import annotations

import hashlib
import json


def digest_of(value: object) -> str:
    """First 12 hex digits of the sha256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
