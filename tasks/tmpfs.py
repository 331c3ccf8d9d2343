"""The RAM disk for temporary files."""

from pyinfra.api.deploy import deploy

from strixbox.config import Box, Tmpfs
from strixbox.operations.files import place_files
from strixbox.operations.mount import tmpfs_mount
from strixbox.tree import rendered


@deploy("RAM disk")
def tmpfs(cfg: Tmpfs, box: Box) -> None:
    place_files(
        name="Keep the RAM disk out of the cleaning of /tmp",
        files=(rendered("/etc/tmpfiles.d/strixbox.conf", path=cfg.path),),
    )
    tmpfs_mount(name="Mount the RAM disk", tmpfs=cfg, user=box.user)
