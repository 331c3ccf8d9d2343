"""ROCm of the wanted release from AMD's repository, held."""

from pyinfra.api.deploy import deploy

from strixbox.config import Rocm
from strixbox.operations.apt import apt_packages, rocm_repository


@deploy("ROCm")
def rocm(cfg: Rocm) -> None:
    if cfg.version is None:
        return
    rocm_repository(name=f"Add AMD's repository of ROCm {cfg.version}", rocm=cfg)
    apt_packages(
        name=f"Install and hold {', '.join(cfg.packages)} {cfg.version}",
        packages=cfg.packages,
        release=cfg.version,
    )
