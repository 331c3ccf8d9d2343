"""No ROCm but the wanted one."""

from pyinfra.api.deploy import deploy

from strixbox.config import Rocm
from strixbox.operations.apt import purge_rocm


@deploy("Purge")
def purge(cfg: Rocm) -> None:
    purge_rocm(name="Purge every ROCm but the wanted one", wanted=cfg)
