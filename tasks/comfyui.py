"""ComfyUI and its pinned nodes as a release: built aside, proved, not yet in use."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.ground import user_folders
from strixbox.operations.files import place_files, user_directories
from strixbox.operations.git import git_checkouts
from strixbox.operations.release import proved_release
from strixbox.release import Release, node_paths


@deploy("ComfyUI")
def comfyui(cfg: Config, release: Release) -> None:
    git_checkouts(
        name="Check out ComfyUI and its nodes",
        checkouts=release.checkouts(),
    )
    place_files(
        name="Tell the release where its nodes are",
        files=(node_paths(release),),
    )
    user_directories(
        name="Create what is missing in the user's directory",
        user=cfg.box.user,
        paths=user_folders(cfg),
    )
    proved_release(name="Prove the release", cfg=cfg, release=release)
