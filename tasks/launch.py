"""Variables, launch scripts and the block in ~/.bashrc."""

from pyinfra.api.deploy import deploy

from strixbox import launch as profiles
from strixbox.config import Config
from strixbox.layout import BIN, ETC, NODES
from strixbox.operations.files import place_files
from strixbox.operations.shell import bashrc_block
from strixbox.tree import rendered
from tasks.models import FOLDERS


@deploy("Launch")
def launch(cfg: Config) -> None:
    meanings = {name: variable.does for name, variable in cfg.launch.variables.items()}
    chosen = cfg.launch.profiles[cfg.comfyui.profile]
    names = sorted(cfg.launch.profiles)
    models = f"{cfg.comfyui.base_directory}/models"
    place_files(
        name="Write variables, launch profiles and model paths",
        files=(
            *(profiles.profile_file(cfg, name) for name in names),
            *(
                rendered(
                    profiles.script_path(name),
                    image=f"{BIN}/launch_comfyui.sh",
                    mode="755",
                    profile=name,
                )
                for name in names
            ),
            rendered(
                f"{ETC}/comfyui.env",
                values=profiles.variables(cfg, chosen.variables),
                meanings=meanings,
            ),
            rendered(
                f"{ETC}/shell.sh",
                values=profiles.variables(cfg, cfg.launch.shell),
                meanings=meanings,
            ),
            rendered(
                f"{ETC}/extra_model_paths.yaml",
                active=models,
                archive=cfg.models.archive,
                nodes=NODES,
                folders=FOLDERS,
            ),
            rendered(f"{ETC}/preload.txt", paths=profiles.preloaded(cfg)),
        ),
    )
    bashrc_block(
        name="Have the variables in ~/.bashrc",
        box=cfg.box,
        lines=(f"[ -r {ETC}/shell.sh ] && . {ETC}/shell.sh",),
    )
