"""What the other tasks build on: packages of the distribution, and directories of ours."""

from pyinfra.api.deploy import deploy

from strixbox import ground
from strixbox.config import Box
from strixbox.layout import OPT
from strixbox.operations.apt import apt_packages, group_membership
from strixbox.operations.files import place_files


@deploy("Base")
def base(box: Box) -> None:
    apt_packages(name=f"Install {', '.join(ground.PACKAGES)}", packages=ground.PACKAGES)
    group_membership(
        name="Put the user into the groups render and video",
        user=box.user,
        groups=ground.GROUPS,
    )
    place_files(
        name=f"Have directories of ours below {OPT}",
        directories=ground.directories(box),
    )
