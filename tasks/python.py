"""The release's Python: the stack's torch, ComfyUI's locked requirements, the user's nodes'."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.layout import LOCKS
from strixbox.operations.files import place_files
from strixbox.operations.python import (
    python_environment,
    user_node_requirements,
    uv_tool,
    wheel_files,
)
from strixbox.release import Release, constraints
from strixbox.tree import BoxFile, shipped


@deploy("Python")
def python(cfg: Config, release: Release) -> None:
    uv_tool(name=f"Install uv {cfg.python.uv_version}", python=cfg.python)
    place_files(
        name=f"Write the lock and the constraints of release {release.id}",
        files=(
            shipped(f"{LOCKS}/{cfg.python.requirements}.txt"),
            BoxFile(f"{release.path}/constraints.txt", constraints(cfg.python).encode()),
        ),
    )
    wheel_files(name=f"Download the wheels of {cfg.stack}", release=release)
    python_environment(name=f"Install torch and requirements in {release.venv}", release=release)
    user_node_requirements(name="Install what the user's own nodes ask for", release=release)
