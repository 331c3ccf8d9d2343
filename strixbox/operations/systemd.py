"""Units that run by themselves at boot."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra.context import host

from strixbox.facts import FileStates, Units
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.operations.files import file_is_right, placing, show_diff
from strixbox.programs import Run
from strixbox.tree import BoxFile


@box_operation
def enabled_unit(unit: BoxFile) -> Steps:
    """Have a unit that systemd knows as written and starts at boot; it is not started now.

    + unit: the unit file
    """
    service = PurePosixPath(unit.path).name
    written = file_is_right(unit, ask(FileStates, paths=(unit.path,))[unit.path])
    known = ask(Units, units=(service,))[service]
    if written and known["enabled"] and not known["stale"]:
        host.noop(f"{service} is enabled")
        return
    say(f"{service}: {'enable' if written else 'write and enable'}")
    if not written:
        show_diff(unit)
        yield placing((unit,))
    yield Run("systemctl", "daemon-reload", mend="systemd could not read its units again.")
    yield Run("systemctl", "enable", "--quiet", service, mend=f"See systemctl status {service}.")
