"""No ROCm but the wanted one."""

from pyinfra.api.deploy import deploy

from strixbox.config import Rocm
from strixbox.operations.apt import finish_dpkg, purge_rocm


@deploy("Purge")
def purge(cfg: Rocm) -> None:
    finish_dpkg(name="Have dpkg finish what it was stopped in")
    purge_rocm(name="Purge every ROCm but the wanted one", wanted=cfg)
