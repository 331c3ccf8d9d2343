"""The box as it was before strixbox, with everything that is the user's."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.operations.uninstall import stopped_units, uninstalled


@deploy("Uninstall")
def uninstall(cfg: Config, purge_rocm: bool) -> None:
    stopped_units(name="Stop what runs", cfg=cfg, purge_rocm=purge_rocm)
    uninstalled(name="Take strixbox off the box", cfg=cfg, purge_rocm=purge_rocm)
