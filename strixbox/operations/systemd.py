"""Units that run by themselves at boot."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra.context import host

from strixbox.facts import FileStates, Units
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right, placing, show_diff
from strixbox.programs import Run
from strixbox.tree import BoxFile

UNWRITTEN = "it is not written as it shall be"


@box_operation
def enabled_unit(unit: BoxFile) -> Steps:
    """Have a unit that systemd knows as written and starts at boot; it is not started now.

    + unit: the unit file
    """
    service = PurePosixPath(unit.path).name
    troubles = unit_troubles(unit)
    if not troubles:
        host.noop(f"{service} is enabled")
        return
    say(f"{service}: {', '.join(troubles)}")
    if UNWRITTEN in troubles:
        show_diff(unit)
        yield placing((unit,))
    yield Run("systemctl", "daemon-reload", mend="systemd could not read its units again.")
    yield Run("systemctl", "enable", "--quiet", service, mend=f"See systemctl status {service}.")


def unit_troubles(unit: BoxFile) -> tuple[str, ...]:
    """In words, what differs between a unit as it is and as it shall be.

    + unit: the unit file
    """
    service = PurePosixPath(unit.path).name
    known = ask(Units, units=(service,))[service]
    checks = (
        (file_is_right(unit, ask(FileStates, paths=(unit.path,))[unit.path]), UNWRITTEN),
        (known["enabled"], "it is not enabled"),
        (not known["stale"], "systemd has not read its unit file"),
    )
    return tuple(trouble for holds, trouble in checks if not holds)
