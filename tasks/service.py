"""The service: this release, this profile, at every boot; the models into the page cache."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.release import old_releases_removed, running_service
from strixbox.operations.systemd import enabled_unit
from strixbox.release import Release
from strixbox.tree import shipped


@deploy("Service")
def service(cfg: Config, release: Release) -> None:
    running_service(
        name="Run the release as comfyui.service",
        cfg=cfg,
        release=release,
    )
    enabled_unit(
        name="Preload models after boot",
        unit=shipped("/etc/systemd/system/strixbox-preload.service"),
    )
    old_releases_removed(name="Remove old releases", cfg=cfg, release=release)
