"""Everything that the checks judge, gathered once."""

from __future__ import annotations

from dataclasses import dataclass

from boxtools.doctor.machine import Machine, read_machine
from boxtools.doctor.service import Service, read_service
from boxtools.doctor.software import Software, read_software
from boxtools.doctor.world import World
from boxtools.settings import Settings


@dataclass(frozen=True)
class Facts:
    """A box at one moment."""

    settings: Settings
    machine: Machine
    software: Software
    service: Service
    is_root: bool

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the running service; where they may not be read, its profile's."""
        process = self.service.process
        if process is not None and process.environment is not None:
            return process.environment
        profile = self.settings.profiles.get(self.settings.profile)
        known = self.settings.variables
        return {n: known[n].value for n in profile.variables if n in known} if profile else {}

    @property
    def flags(self) -> list[str]:
        """ComfyUI's flags: of the running service, else of its profile."""
        process = self.service.process
        if process is not None:
            return flags_of(process.argv)
        profile = self.settings.profiles.get(self.settings.profile)
        return list(profile.flags) if profile else []


def flags_of(argv: list[str]) -> list[str]:
    """The words after main.py of a command line."""
    for number, word in enumerate(argv):
        if word.endswith("main.py"):
            return argv[number + 1 :]
    return []


def gather(world: World, settings: Settings) -> Facts:
    """Look at the box; what may not be read is unknown, and nothing is changed."""
    machine = read_machine(world, settings)
    service = read_service(world, settings)
    running = flags_of(service.process.argv) if service.process else None
    software = read_software(world, settings, machine.account, running)
    return Facts(settings, machine, software, service, world.is_root)
