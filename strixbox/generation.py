"""A generation: a release together with the files that it is run with.

Flags, variables, launch scripts and the unit belong to a release as much as its code does: going
back means going back with them. Each generation is kept as it was, below ``GENERATIONS``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

from strixbox import launch
from strixbox.config import Config
from strixbox.digests import digest_of
from strixbox.layout import BIN, ETC, GENERATIONS
from strixbox.release import Release
from strixbox.tools import settings_file
from strixbox.tree import BoxFile, rendered


@dataclass(frozen=True)
class Generation:
    """One release and its files."""

    release: Release
    files: tuple[BoxFile, ...]
    url: str  # where the box itself asks the service
    stack: str
    rocm: str | None  # release from apt that it was built for; None where it uses none of apt's

    @classmethod
    def of(cls, cfg: Config, release: Release) -> Generation:
        """The generation that the settings call for."""
        return cls(release, companions(cfg), launch.url(cfg), cfg.stack, cfg.rocm.version)

    @cached_property
    def id(self) -> str:
        """The release, and a digest of the files."""
        digest = digest_of([[file.path, file.mode, file.sha256] for file in self.files])
        return f"{self.release.id}-{digest[:8]}"

    @property
    def path(self) -> str:
        """Directory of the generation on the box."""
        return f"{GENERATIONS}/{self.id}"

    def kept(self) -> tuple[BoxFile, ...]:
        """Copies of the files, and what strixbox/box/activate.py has to know to return to them."""
        order = {
            "managed": "Managed by strixbox",
            "release": self.release.path,
            "stack": self.stack,
            "rocm": self.rocm,
            "url": self.url,
            "files": [{"path": file.path, "mode": file.mode} for file in self.files],
        }
        text = json.dumps(order, indent=1) + "\n"
        copies = (replace(file, path=f"{self.path}/files{file.path}") for file in self.files)
        return (*copies, BoxFile(f"{self.path}/generation.json", text.encode()))


def companions(cfg: Config) -> tuple[BoxFile, ...]:
    """Every file that says how a release is run."""
    meanings = {name: variable.does for name, variable in cfg.launch.variables.items()}
    chosen = cfg.launch.profiles[cfg.comfyui.profile]
    names = sorted(cfg.launch.profiles)
    return (
        # It reads the profiles: an older one may not know what a newer profile says.
        launch.launcher(),
        *(launch.profile_file(cfg, name) for name in names),
        *(
            rendered(
                launch.script_path(name),
                image=f"{BIN}/launch_comfyui.sh",
                mode="755",
                profile=name,
            )
            for name in names
        ),
        rendered(
            f"{ETC}/comfyui.env",
            values=launch.variables(cfg, chosen.variables),
            meanings=meanings,
        ),
        rendered(
            f"{ETC}/shell.sh",
            values=launch.variables(cfg, cfg.launch.shell),
            meanings=meanings,
        ),
        launch.model_paths(cfg),
        rendered(f"{ETC}/preload.txt", paths=launch.preloaded(cfg)),
        settings_file(cfg),
        launch.service_unit(cfg),
    )
