"""ROCm of the wanted release from AMD's repository, held."""

from pyinfra.api.deploy import deploy

from strixbox.config import Rocm
from strixbox.operations.apt import apt_packages, rocm_repository


@deploy("ROCm")
def rocm(cfg: Rocm) -> None:
    if cfg.version is None:
        return
    rocm_repository(name="Add AMD's repository", rocm=cfg)
    apt_packages(
        name="Install and hold ROCm's packages",
        packages=cfg.packages,
        release=cfg.version,
        pinned=cfg.pinned,
    )
