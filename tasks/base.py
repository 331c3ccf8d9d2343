"""What the other tasks build on: packages of the distribution, programs and directories of ours."""

from pyinfra.api.deploy import deploy

from strixbox.config import Box
from strixbox.layout import (
    BIN,
    BOXTOOLS,
    ETC,
    LIB,
    LOCKS,
    NODES,
    OPT,
    RELEASES,
    STATE,
    TOOLS_STATE,
    WHEELS,
)
from strixbox.operations.apt import apt_packages, group_membership
from strixbox.operations.files import place_files
from strixbox.tree import BoxDirectory, shipped

PACKAGES = (
    *("ca-certificates", "git", "python3-venv"),
    *("htop", "tmux"),  # what `strixbox dashboard` shows, and where
)
ROOTS = (OPT, BIN, BOXTOOLS, LIB, LOCKS, NODES, RELEASES, ETC, STATE, WHEELS)


@deploy("Base")
def base(box: Box) -> None:
    apt_packages(name=f"Install {', '.join(PACKAGES)}", packages=PACKAGES)
    group_membership(
        name="Put the user into the groups render and video",
        user=box.user,
        groups=("render", "video"),
    )
    place_files(
        name=f"Put programs and directories of ours below {OPT}",
        directories=(
            *(BoxDirectory(path) for path in ROOTS),
            *(
                BoxDirectory(path, owner=box.user, group=None)
                for path in (f"{STATE}/tunableop", TOOLS_STATE)
            ),
        ),
        files=(shipped(f"{LIB}/launch", mode="755"),),
    )
