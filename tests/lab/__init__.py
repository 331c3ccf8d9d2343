"""Real test boxes on this machine: ``python -m tests.lab up``."""

from tests.lab.box import Box, difference, settled_difference
from tests.lab.lab import Lab
from tests.lab.podman import LabError

__all__ = ["Box", "Lab", "LabError", "difference", "settled_difference"]
