"""The box is as it shall be; changes nothing."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.verify import verified_box
from strixbox.release import Release


@deploy("Verify")
def verify(cfg: Config, release: Release) -> None:
    verified_box(name="Tell what is right and wrong", cfg=cfg, release=release)
