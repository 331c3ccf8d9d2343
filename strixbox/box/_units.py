"""Part of programs: what systemd tells of units."""

from __future__ import annotations

from collections.abc import Sequence

from strixbox.box._output import ran


def shown(names: Sequence[str], *properties: str) -> dict[str, dict[str, str]]:
    """Properties by the name that a unit was asked by; all of them are asked for together.

    A unit that systemd does not know has them too, and where none answers they are empty; a path
    stands for its mount unit.
    """
    if not names:  # systemctl would tell of systemd itself
        return {}
    command = ["systemctl", "show", "--property", ",".join(properties), *names]
    blocks = ran(command).stdout.rstrip("\n").split("\n\n")  # in the order of the names
    found = {name: dict.fromkeys(properties, "") for name in names}
    for name, block in zip(names, blocks, strict=False) if len(blocks) == len(names) else ():
        found[name] |= dict(line.partition("=")[::2] for line in block.splitlines())
    return found


def unit_of(name: str, *properties: str) -> dict[str, str]:
    """Properties of one unit."""
    return shown((name,), *properties)[name]
