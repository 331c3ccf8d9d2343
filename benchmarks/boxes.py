"""Boxes for benchmarks: bare lab boxes with what Ubuntu Server has and Ansible relies on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tests.lab import Box, Lab
from tests.lab.box import start_box
from tests.lab.podman import LIMITS, image_exists, podman, run

# Ubuntu Server comes with these, the lab's boxes do not. Its apt module asks for python3-apt, pip's
# for python3-packaging, synchronize for rsync.
UBUNTU = ("python3-apt", "python3-packaging", "rsync")
# An index of yesterday: Ansible takes a new directory for one that was fetched just now.
STALE = "touch -d '2 days ago' /var/lib/apt/lists"
INSTALL = f"dpkg --install /root/debs/*.deb && rm -r /root/debs && {STALE}"
IMAGE = "strixbox-bench"
DEVICE = "eth0"


def image(lab: Lab, folder: Path) -> str:
    """The image that boxes start from, made once."""
    system, bare = lab.system_image(), lab.bare_image()
    digest = hashlib.sha256(" ".join((bare, *UBUNTU, INSTALL)).encode()).hexdigest()[:12]
    name = f"{IMAGE}:{digest}"
    if image_exists(name):
        return name
    debs = folder / f"debs-{digest}"
    debs.mkdir(parents=True, exist_ok=True)
    fetch = (
        "apt-get update -q && apt-get install -qy --no-install-recommends --download-only"
        f" {' '.join(UBUNTU)} && cp /var/cache/apt/archives/*.deb /debs"
    )
    podman("run", *LIMITS, "--rm", "--volume", f"{debs}:/debs", system, "sh", "-c", fetch)
    box = start_box("bench", bare, lab.key)
    try:
        podman("cp", f"{debs}/.", f"{box.container}:/root/debs")
        box.run(INSTALL)
        podman("commit", "--quiet", box.container, name)
    finally:
        box.remove()
    return name


def start(lab: Lab, names: Iterable[str], name_of_image: str) -> list[Box]:
    """New boxes of these names, in place of those that there are."""
    boxes = [start_box(name, name_of_image, lab.key) for name in names]
    lab.save()
    return boxes


def image_of(box: Box) -> str:
    """An image of a box as it is."""
    name = f"{IMAGE}:converged"
    box.run("sync")
    podman("commit", "--quiet", box.container, name)
    return name


def traffic(boxes: Iterable[Box]) -> tuple[int, int]:
    """Bytes that all boxes have received and sent since they were started."""
    where = f"/sys/class/net/{DEVICE}/statistics"
    told = [box.run(["cat", f"{where}/rx_bytes", f"{where}/tx_bytes"]).stdout for box in boxes]
    counts = [[int(word) for word in text.split()] for text in told]
    return sum(received for received, _ in counts), sum(sent for _, sent in counts)


def delay(box: Box, milliseconds: int) -> bool:
    """Have every answer of the box come this much later; whether the kernel can (sch_netem)."""
    pid = podman("inspect", "--format", "{{.State.Pid}}", box.container).stdout.strip()
    tc = ("nsenter", f"--net=/proc/{pid}/ns/net", "tc", "qdisc")
    if milliseconds == 0:
        run(*tc, "del", "dev", DEVICE, "root", check=False)
        return True
    words = ("replace", "dev", DEVICE, "root", "netem", "delay", f"{milliseconds}ms")
    return run(*tc, *words, check=False).returncode == 0
