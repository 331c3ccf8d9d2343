"""pyinfra, and at its end how many ssh channels it opened: one for each remote command.

``python -m benchmarks.counted -y inventory.py deploy.py``
"""

from __future__ import annotations

import atexit
import sys
from typing import Any

# First of all: it patches the standard library, which paramiko must not have imported before.
from pyinfra_cli.main import cli  # isort: skip
from paramiko.transport import Transport  # isort: skip

from benchmarks.report import CHANNELS


def main() -> None:
    """Run pyinfra's command line."""
    opened = 0
    original = Transport.open_channel

    def counting(self: Transport, *args: Any, **kwargs: Any) -> Any:
        nonlocal opened
        opened += 1
        return original(self, *args, **kwargs)

    Transport.open_channel = counting  # type: ignore[method-assign]
    atexit.register(lambda: print(CHANNELS, opened, file=sys.stderr))
    cli()


if __name__ == "__main__":
    main()
