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
        name=f"Create what is missing in {active}",
        user=box.user,
        paths=tuple(f"{active}/{folder}" for folder in FOLDERS),
    )
    if cfg.archive is not None:
        archive_tier(
            name=f"Have the archive tier at {cfg.archive}",
            path=cfg.archive,
            user=box.user,
            folders=FOLDERS,
        )
    model_files(
        name=f"Have {len(cfg.manifest)} models where they belong",
        models=cfg,
        active=active,
        user=box.user,
    )
