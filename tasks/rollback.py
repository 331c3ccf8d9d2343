"""The release before is in use again, as it was run then."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.release import rolled_back


@deploy("Rollback")
def rollback(cfg: Config, wanted: str | None) -> None:
    rolled_back(
        name="Go back to a release that answered before",
        cfg=cfg,
        wanted=wanted,
    )
