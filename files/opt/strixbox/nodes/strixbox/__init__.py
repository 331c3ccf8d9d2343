"""strixbox's nodes and routes for ComfyUI: an encode cache, an image writer, TunableOp's switch.

Importing this changes nothing in ComfyUI beside the nodes and routes that it adds. Every part
stands alone: where one cannot be imported, the log says so and the others are there.
"""

from __future__ import annotations

import logging
from importlib import import_module

PARTS = ("vae_cache", "save_image", "tunableop")

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}

for _part in PARTS:
    try:
        _module = import_module(f".{_part}", __name__)
        _nodes = dict(_module.NODES)
    except Exception as _error:
        logging.warning("strixbox: %s is left out: %s: %s", _part, type(_error).__name__, _error)
        continue
    for _title, _node in _nodes.items():
        NODE_CLASS_MAPPINGS[_node.__name__] = _node
        NODE_DISPLAY_NAME_MAPPINGS[_node.__name__] = _title

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
