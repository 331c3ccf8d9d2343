"""The model tiers: directories, and every model of the manifest where it belongs."""

from pyinfra.api.deploy import deploy

from strixbox.config import Box, Comfyui, Models
from strixbox.ground import tier_folders
from strixbox.operations.files import user_directories
from strixbox.operations.models import archive_tier, model_files


@deploy("Models")
def models(cfg: Models, comfyui: Comfyui, box: Box) -> None:
    active = comfyui.models_directory
    user_directories(
        name="Create the folders of the active tier",
        user=box.user,
        paths=tier_folders(active),
    )
    if cfg.archive is not None:
        archive_tier(
            name="Have the archive tier",
            path=cfg.archive,
            user=box.user,
        )
    model_files(
        name="Have every model where it belongs",
        models=cfg,
        active=active,
        user=box.user,
    )
