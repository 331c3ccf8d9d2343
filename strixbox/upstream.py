"""Parts of pyinfra 3.10 that cost much of a run's time on this side, in a form that costs little.

Each does what pyinfra's own does (the tests compare them) and is written to be proposed there; it
goes when pyinfra has it. On a run that changes nothing they were a third of what is done for a box.
"""

from __future__ import annotations

import sys
from copy import copy
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Any

import pyinfra
from pyinfra.api.host import HostData
from pyinfra.api.state import State
from pyinfra.api.util import PYINFRA_INSTALL_DIR


def operation_order(state: State) -> list[int]:
    """Line numbers of the calls that lead from the deploy file to an operation.

    As ``pyinfra.api.util.get_operation_order_from_stack``, from the frames alone: ``inspect.stack``
    looks for the source of every one of them, twice.
    """
    frames = []
    caller: FrameType | None = sys._getframe(1)
    while caller:
        frames.append((caller.f_code.co_filename, caller.f_lineno))
        caller = caller.f_back
    frames.reverse()
    if state.current_deploy_filename:
        begins = (n for n, frame in enumerate(frames) if frame[0] == state.current_deploy_filename)
        frames = frames[next(begins, len(frames)) :]
    lines = [number for place, number in frames if not place.startswith(PYINFRA_INSTALL_DIR)]
    return [state.current_op_file_number, *lines] if pyinfra.is_cli else lines


def host_value(data: HostData, key: str) -> Any:
    """A value of a host, as ``HostData.__getattr__``.

    Without an exception for each place that has it not: every operation asks for each of some 25
    arguments that hardly anybody sets.

    Raises:
        AttributeError: where no place has it.
    """
    for place in data.datas:
        values = place() if callable(place) else place
        if key in values:
            return copy(values[key])
    raise AttributeError(f"Host `{data.host}` has no data `{key}`")


@cache
def improve() -> None:
    """Put them in the place of pyinfra's own."""
    # By their names in full: pyinfra.api.operation is the decorator, not the module.
    arguments, connectors, inventory, operation = (_module(name) for name in _PATCHED)
    operation.get_operation_order_from_stack = operation_order
    HostData.__getattr__ = host_value  # type: ignore[method-assign]  # is what is meant
    # Evaluated from their annotations for every operation and every fact.
    arguments.all_global_arguments = cache(arguments.all_global_arguments)
    # Read from the metadata of every distribution that is installed, six times a run.
    connectors.get_all_connectors = cache(connectors.get_all_connectors)
    inventory.get_all_connectors = connectors.get_all_connectors


_PATCHED = ("arguments", "connectors", "inventory", "operation")


def _module(name: str) -> Any:
    return import_module(f"pyinfra.api.{name}")
