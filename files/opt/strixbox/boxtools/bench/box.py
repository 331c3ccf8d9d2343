"""The box that is measured, as a result tells it."""

from __future__ import annotations

import os
from typing import Any

from boxtools import host
from boxtools.bench.results import Box
from boxtools.server import Server
from boxtools.settings import Settings
from boxtools.watch import read_gpu


def box_of(settings: Settings, server: Server) -> Box:
    """The box as it is at the moment: versions of everything that a time depends on."""
    stats = server.system_stats()
    system, devices = stats.get("system"), stats.get("devices")
    system = system if isinstance(system, dict) else {}
    argv = system.get("argv")
    profile = settings.profiles.get(settings.profile)
    names = profile.variables if profile else ()
    gpu = read_gpu()
    return Box(
        comfyui=_text(system.get("comfyui_version")),
        torch=_text(system.get("pytorch_version")),
        hip=settings.hip,
        python=(_text(system.get("python_version")) or "").split(" ")[0] or None,
        kernel=os.uname().release,
        stack=settings.stack,
        release=settings.current.resolve().name if settings.current.exists() else None,
        profile=settings.profile,
        flags=tuple(str(word) for word in argv[1:]) if isinstance(argv, list) else (),
        variables={n: settings.variables[n].value for n in names if n in settings.variables},
        devices=tuple(
            str(device["name"])
            for device in (devices if isinstance(devices, list) else [])
            if isinstance(device, dict) and "name" in device
        ),
        gpu=gpu.device if gpu else None,
        vram=gpu.vram_total if gpu else None,
        gtt=gpu.gtt_total if gpu else None,
        ram=host.memory().total,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
