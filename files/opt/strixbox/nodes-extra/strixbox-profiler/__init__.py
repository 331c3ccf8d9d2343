"""torch's profiler inside ComfyUI, armed over HTTP for one prompt: see ``routes``.

Importing this adds routes and nothing else; ComfyUI runs unchanged until a profile is armed, and
again after the prompt that it was armed for.
"""

from __future__ import annotations

import logging

NODE_CLASS_MAPPINGS: dict[str, type] = {}

try:
    from . import routes  # noqa: F401 - importing it adds the routes
except Exception as _error:
    logging.warning("strixbox-profiler is left out: %s: %s", type(_error).__name__, _error)

__all__ = ["NODE_CLASS_MAPPINGS"]
