"""What a login shell knows; the launch profiles themselves come with the service."""

from pyinfra.api.deploy import deploy

from strixbox.config import Box
from strixbox.launch import SHELL_LINES
from strixbox.operations.shell import bashrc_block


@deploy("Launch")
def launch(box: Box) -> None:
    bashrc_block(
        name="Have the variables in ~/.bashrc",
        box=box,
        lines=SHELL_LINES,
    )
