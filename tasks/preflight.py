"""The box can become what it shall be; changes nothing."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.preflight import examined_box
from strixbox.release import Release


@deploy("Preflight")
def preflight(cfg: Config, release: Release) -> None:
    examined_box(name="Look at hardware, kernel, disk and settings", cfg=cfg, release=release)
