"""The release's Python: the stack's torch, ComfyUI's locked requirements, the user's nodes'."""

from pyinfra.api.deploy import deploy

from strixbox.config import Config
from strixbox.layout import BUILDER
from strixbox.operations.files import place_files
from strixbox.operations.python import (
    build_account,
    python_environment,
    user_node_requirements,
    uv_tool,
    wheel_files,
)
from strixbox.release import Release, held_files


@deploy("Python")
def python(cfg: Config, release: Release) -> None:
    uv_tool(name="Install uv", python=cfg.python)
    build_account(name="Have an account that may do nothing but build", account=BUILDER)
    place_files(
        name="Write the lock and the constraints",
        files=held_files(release),
    )
    wheel_files(name="Download the stack's wheels", release=release)
    python_environment(name="Install torch and ComfyUI's requirements", release=release)
    user_node_requirements(
        name="Install what the user's own nodes ask for",
        release=release,
        user=cfg.box.user,
    )
