"""The strixbox command with an environment of its own, and our nodes for ComfyUI."""

from pyinfra.api.deploy import deploy

from strixbox import tools as images
from strixbox.config import Config
from strixbox.layout import BOXTOOLS, NODES, TOOLS
from strixbox.locks import TOOLS as LOCK
from strixbox.operations.files import mirrored_trees
from strixbox.operations.python import locked_environment


@deploy("Tools")
def tools(cfg: Config) -> None:
    mirrored_trees(
        name="Put the strixbox command and its nodes in place",
        roots=(BOXTOOLS, NODES),
        files=(
            *images.command_files(),
            *images.node_files(cfg),
        ),
        python_version=cfg.python.version,
    )
    locked_environment(
        name="Install what the command needs",
        python=cfg.python,
        path=TOOLS,
        lock=LOCK,
    )
