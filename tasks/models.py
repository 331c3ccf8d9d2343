"""The model tiers: directories, and every model of the manifest where it belongs."""

from pyinfra.api.deploy import deploy

from strixbox.config import MODEL_FOLDERS, Box, Comfyui, Models
from strixbox.operations.files import user_directories
from strixbox.operations.models import archive_tier, model_files


@deploy("Models")
def models(cfg: Models, comfyui: Comfyui, box: Box) -> None:
    active = f"{comfyui.base_directory}/models"
    user_directories(
        name="Create the folders of the active tier",
        user=box.user,
        paths=tuple(f"{active}/{folder}" for folder in MODEL_FOLDERS),
    )
    if cfg.archive is not None:
        archive_tier(
            name="Have the archive tier",
            path=cfg.archive,
            user=box.user,
            folders=MODEL_FOLDERS,
        )
    model_files(
        name="Have every model where it belongs",
        models=cfg,
        active=active,
        user=box.user,
    )
