"""What a finding is, and the codes that findings have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["ok", "unknown", "warn", "wrong"]
SUDO = "run it with sudo: sudo strixbox doctor"


class Finding(BaseModel):
    """One thing that was looked at.

    ``mend`` is a command line or a sentence; ``safe_fix`` names what ``--fix`` can do about it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    verdict: Verdict
    evidence: str
    meaning: str = ""
    mend: str = ""
    safe_fix: str | None = None


def unknown(code: str, what: str) -> Finding:
    """A fact that may not be read by who asks."""
    return Finding(code=code, verdict="unknown", evidence=f"{what} cannot be read", mend=SUDO)


# Codes are never renamed and never change their meaning: scripts and help threads name them.
CODES = frozenset(
    {
        *("USER.ACCOUNT", "USER.GROUPS", "STATE.OWNER", "OS.CLOCK", "OS.PORT_TAKEN"),
        *("GPU.PRESENT", "GPU.KFD", "GPU.NODES", "GPU.ACCESS", "GPU.CARVE_OUT", "GPU.GTT"),
        *("GPU.TEMPERATURE", "GPU.POWER", "KERNEL.ROCM", "DRIVER.DKMS", "FIRMWARE.BROKEN"),
        *("RELEASE.CURRENT", "TORCH.BUILD", "TORCH.PINS", "TORCH.ARCH", "XFORMERS.INSTALLED"),
        *("ENV.OVERRIDE", "ENV.LEFTOVER", "ENV.HIDDEN", "ENV.DEBUG", "ENV.LIBRARIES"),
        *("ENV.IGNORED", "TUNABLEOP.TUNING", "TUNABLEOP.RESULTS", "TUNABLEOP.STALE"),
        *("TUNABLEOP.PLACE", "FLAGS.REFUSED", "FLAGS.SLOW"),
        *("SERVICE.STATE", "SERVICE.GROUPS", "SERVICE.RESTARTS", "SERVICE.ANSWER"),
        *("SERVICE.DEVICE", "SERVICE.DRIFT", "SERVICE.EXPOSED", "SERVICE.LOG"),
        *("DISK.ROOM", "DISK.TEMP", "MEMORY.SWAP", "MODELS.NONE", "MODELS.LINKS"),
        *("MODELS.PARTS", "MODELS.BROKEN"),
        *("LOG.PAGE_FAULT", "LOG.GPU_HANG", "LOG.MES", "LOG.OOM", "LOG.THERMAL", "LOG.DISK"),
    }
)
