"""``/strixbox/tunableop``: whether TunableOp tunes in this server, and its switch.

GET answers ``{"supported", "reason", "enabled", "tuning", "filename", "results", "validators"}``;
POST takes ``tuning`` (on or off) and ``write`` (write the results now) and answers the same.

Torch's environment variables win over these calls (aten/src/ATen/cuda/tunable/Tunable.cpp): where
``PYTORCH_TUNABLEOP_TUNING=0`` is set, ``tuning`` stays false, and the answer says so.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from .web import Refused, add

PATH = "/strixbox/tunableop"
NODES: dict[str, type] = {}

NEEDED = ("is_enabled", "tuning_is_enabled", "tuning_enable")


def unsupported() -> str | None:
    """Why TunableOp is of no use in this process; None where it is."""
    try:
        if not torch.cuda.is_available():
            return "torch sees no GPU"
        if getattr(torch.version, "hip", None) is None:
            return "this torch is no ROCm build; TunableOp tunes for ROCm only"
        from torch.cuda import tunable
    except Exception as error:
        return f"torch {torch.__version__} has no torch.cuda.tunable ({error})"
    missing = [name for name in NEEDED if not hasattr(tunable, name)]
    if missing:
        return f"torch {torch.__version__} has no torch.cuda.tunable.{missing[0]}"
    return None


def read(words: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state as JSON."""
    reason = unsupported()
    told: dict[str, Any] = {
        "supported": reason is None,
        "reason": reason,
        "enabled": False,
        "tuning": False,
        "filename": None,
        "results": 0,
        "validators": {},
    }
    if reason is None:
        told["enabled"] = bool(_ask("is_enabled", False))
        told["tuning"] = told["enabled"] and bool(_ask("tuning_is_enabled", False))
        told["filename"] = str(_ask("get_filename", "")) or None
        # Without TunableOp there is nothing to read, and asking would open its file.
        if told["enabled"]:
            told["results"] = _count(_ask("get_results", ()))
            told["validators"] = _pairs(_ask("get_validators", ()))
    return told


def write(words: dict[str, Any]) -> dict[str, Any]:
    """Carry out ``tuning`` and ``write``; the state afterwards.

    Raises:
        Refused: with 409, where TunableOp is of no use or the file was not written.
    """
    reason = unsupported()
    if reason is not None:
        if words:
            logging.info("strixbox: TunableOp is left as it is: %s", reason)
        return read()
    from torch.cuda import tunable

    if "tuning" in words:
        tunable.tuning_enable(words["tuning"])
    # torch 2.6 to 2.9 write at the end of the process unless told to; later ones have no
    # write_file, since they append every result when it is found.
    if words.get("write") and tunable.is_enabled():
        store = getattr(tunable, "write_file", None)
        if store is not None and store() is False:
            name = _ask("get_filename", "its file")
            raise Refused(409, f"torch could not write {name}; see the directory's owner and space")
    return read()


def _ask(name: str, otherwise: Any) -> Any:
    """One of torch.cuda.tunable's answers; ``otherwise`` where this torch does not give it."""
    from torch.cuda import tunable

    try:
        return getattr(tunable, name)()
    except Exception as error:
        logging.debug("strixbox: torch.cuda.tunable.%s: %s", name, error)
        return otherwise


def _count(results: Any) -> int:
    try:
        return len(results)
    except TypeError:
        return 0


def _pairs(validators: Any) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in validators}
    except (TypeError, ValueError):
        return {}


add("GET", PATH, read)
add("POST", PATH, write, {"tuning": bool, "write": bool})
