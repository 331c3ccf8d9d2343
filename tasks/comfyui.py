"""ComfyUI and its pinned nodes as a release: built aside, proved, not yet in use."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.layout import FOLDERS
from strixbox.operations.files import place_files, user_directories
from strixbox.operations.git import git_checkouts
from strixbox.operations.release import proved_release
from strixbox.release import Release
from strixbox.tree import rendered


@deploy("ComfyUI")
def comfyui(cfg: Config, release: Release) -> None:
    user, base = cfg.box.user, cfg.comfyui.base_directory
    git_checkouts(
        name="Check out ComfyUI and its nodes",
        checkouts=release.checkouts(),
    )
    place_files(
        name="Tell the release where its nodes are",
        files=(
            rendered(
                f"{release.path}/extra_model_paths.yaml",
                image="/opt/strixbox/release/extra_model_paths.yaml",
                nodes=f"{release.path}/nodes",
            ),
        ),
    )
    user_directories(
        name="Create what is missing in the user's directory",
        user=user,
        paths=(base, *(f"{base}/{folder}" for folder in FOLDERS)),
    )
    proved_release(name="Prove the release", cfg=cfg, release=release)
