"""The service: this release, this profile, at every boot; what reads and tunes beside it."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.generation import Generation
from strixbox.launch import preload_unit, warmup_unit
from strixbox.operations.release import (
    old_profiles_retired,
    old_releases_removed,
    running_service,
)
from strixbox.operations.systemd import enabled_unit
from strixbox.release import Release


@deploy("Service")
def service(cfg: Config, release: Release) -> None:
    generation = Generation.of(cfg, release)
    enabled_unit(
        name="Preload models after boot",
        unit=preload_unit(cfg),
    )
    # Before the service: its very first start is one that calls for tuning.
    enabled_unit(
        name="Tune what is new after a start",
        unit=warmup_unit(cfg),
    )
    running_service(
        name="Run the release as comfyui.service",
        cfg=cfg,
        generation=generation,
    )
    old_profiles_retired(
        name="Retire launch profiles that are none any more", generation=generation
    )
    old_releases_removed(name="Remove old releases", cfg=cfg, release=release)
