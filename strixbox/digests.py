"""Short, stable digests of plain data."""

from __future__ import annotations

import hashlib
import json


def digest_of(value: object) -> str:
    """First 12 hex digits of the sha256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A directory of the user's may have a name that is no UTF-8.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
