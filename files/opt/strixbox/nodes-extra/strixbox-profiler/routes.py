"""The profiler's routes.

``GET /strixbox/profile``
    ``{"state": "idle" | "armed" | "recording" | "writing" | "done" | "failed"}``, with ``error``
    where it failed.
``POST /strixbox/profile/start`` ``{"client_id", "memory", "shapes", "stack", "seconds"}``
    Arms the profiler for the next prompt, or for the next one of a client: its ``client_id`` is
    that of ``POST /prompt``. ``seconds`` (300) ends the recording early, at the end of the node
    that runs then. 409 while another profile is armed, recorded or written.
``POST /strixbox/profile/stop``
    Disarms. The state as above, and once it is ``done`` the result, which is handed out once:
    ``operators``, ``kernels`` and ``nodes`` as in ``tables.py``, ``seconds`` of the prompt,
    ``events``, ``cut``, ``note``, ``device``, ``torch``, and ``trace`` with the ``filename``,
    ``subfolder`` and ``type`` under which ``GET /view`` gives the Chrome trace. While it is
    ``recording`` or ``writing``, ask again.

The trace lies in ComfyUI's temporary directory, under a name that the server chooses.
"""

from __future__ import annotations

from typing import Any

from .recorder import Recorder
from .web import add

RECORDER = Recorder()
FIELDS = {"client_id": str, "memory": bool, "shapes": bool, "stack": bool, "seconds": int}


def state(words: dict[str, Any]) -> dict[str, Any]:
    """Answer of GET."""
    return RECORDER.state()


add("GET", "/strixbox/profile", state)
add("POST", "/strixbox/profile/start", RECORDER.start, FIELDS)
add("POST", "/strixbox/profile/stop", RECORDER.stop, {})
