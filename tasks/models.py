"""The model tiers: directories, and every model of the manifest where it belongs."""

from typing import get_args

from pyinfra.api.deploy import deploy

from strixbox.config import Box, Comfyui, ModelFolder, Models
from strixbox.operations.files import user_directories
from strixbox.operations.models import archive_tier, model_files

FOLDERS: tuple[str, ...] = get_args(ModelFolder)


@deploy("Models")
def models(cfg: Models, comfyui: Comfyui, box: Box) -> None:
    active = f"{comfyui.base_directory}/models"
    user_directories(
        name="Create the folders of the active tier",
        user=box.user,
        paths=tuple(f"{active}/{folder}" for folder in FOLDERS),
    )
    if cfg.archive is not None:
        archive_tier(
            name="Have the archive tier",
            path=cfg.archive,
            user=box.user,
            folders=FOLDERS,
        )
    model_files(
        name="Have every model where it belongs",
        models=cfg,
        active=active,
        user=box.user,
    )
