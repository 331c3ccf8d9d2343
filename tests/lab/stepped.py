"""pyinfra, stopping before every operation: prints its name and goes on when it is told a line.

What is to happen to a run between two operations, or at some moment inside one, is done by the
test that started it: kill it, cut its connection, turn the box off.
"""

from __future__ import annotations

import sys

from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra_cli.main import cli  # first: it patches the sockets that the other imports use

from strixbox.run import Clock

_start = Clock.operation_host_start


def stop(state: State, host: Host, op_hash: str) -> None:
    """Wait for the test's word, then start the operation's clock."""
    (name, *_) = state.op_meta[op_hash].names
    print(name, flush=True)
    sys.stdin.readline()
    _start(state, host, op_hash)


if __name__ == "__main__":
    Clock.operation_host_start = staticmethod(stop)  # type: ignore[method-assign]
    sys.argv[0] = "pyinfra"
    cli()
