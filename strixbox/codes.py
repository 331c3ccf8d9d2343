"""Codes of preflight's findings; they are never renamed, boxes.yaml files name them."""

from __future__ import annotations

CODES = frozenset(
    {
        *("OS.DISTRIBUTION", "OS.SYSTEMD", "OS.READ_ONLY", "OS.CLOCK", "APT.INTERRUPTED"),
        *("CPU.MODEL", "RAM.SIZE", "RAM.TMPFS", "GPU.PCI", "GPU.KFD", "GPU.RENDER"),
        *("GPU.CARVE_OUT", "GPU.GTT"),
        *("KERNEL.ROCM", "DRIVER.DKMS", "FIRMWARE.BROKEN", "ENV.OVERRIDE", "DISK.ROOM"),
        *("USER.HOME", "USER.DIRECTORIES", "TMPFS.PLACE", "PORT.TAKEN", "BOOT.SECURE"),
        *("MODELS.ARCHIVE", "MODELS.PLACE", "MODELS.ROOM"),
    }
)
