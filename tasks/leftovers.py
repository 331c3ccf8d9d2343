"""Nothing that a dead run left is on the box, but for what this run goes on with."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.leftovers import leftovers_cleared
from strixbox.release import Release


@deploy("Leftovers")
def leftovers(cfg: Config, release: Release) -> None:
    leftovers_cleared(name="Clear what dead runs left", cfg=cfg, release=release)
