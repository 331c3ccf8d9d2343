"""The RAM disk for temporary files."""

from pyinfra.api.deploy import deploy

from strixbox.config import Box, Tmpfs
from strixbox.ground import cleaning
from strixbox.operations.files import place_files
from strixbox.operations.mount import tmpfs_mount


@deploy("RAM disk")
def tmpfs(cfg: Tmpfs, box: Box) -> None:
    place_files(
        name="Keep the RAM disk out of the cleaning of /tmp",
        files=(cleaning(cfg.path),),
    )
    tmpfs_mount(name="Mount the RAM disk", tmpfs=cfg, user=box.user)
