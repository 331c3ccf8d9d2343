"""What stands in pyinfra's place does what pyinfra's own does."""

from __future__ import annotations

import sys
from collections import ChainMap
from types import SimpleNamespace
from typing import Any

import pyinfra
import pytest
from pyinfra.api import arguments, util
from pyinfra.api.host import HostData
from pyinfra.api.operation import _wrap_operation

from strixbox import upstream

CALLER = sys.modules[pytest.Function.__module__].__file__  # is in the stack of every test


def orders(state: Any) -> list[list[int]]:
    """The order as pyinfra has it, and ours, asked for on one line."""
    return [of(state) for of in (util.get_operation_order_from_stack, upstream.operation_order)]


@pytest.mark.parametrize("cli", [True, False])
@pytest.mark.parametrize("deploy", [None, __file__, CALLER, "another.py"])
def test_operations_have_the_order_that_pyinfra_gives_them(
    monkeypatch: pytest.MonkeyPatch, cli: bool, deploy: str | None
) -> None:
    monkeypatch.setattr(pyinfra, "is_cli", cli)
    state = SimpleNamespace(current_deploy_filename=deploy, current_op_file_number=3)
    theirs, ours = orders(state)
    assert ours == theirs
    assert len(ours) > 1 or deploy == "another.py"


def test_a_hosts_values_are_found_as_pyinfra_finds_them() -> None:
    places = (ChainMap({"_sudo": True}), lambda: {"list": [1]}, {"_sudo": False, "none": None})
    data = HostData("halo1", *places)  # type: ignore[arg-type]
    theirs = HostData.__dict__["__getattr__"]
    for key in ("_sudo", "list", "none"):
        assert upstream.host_value(data, key) == theirs(data, key)
    assert upstream.host_value(data, "list") is not upstream.host_value(data, "list")
    told = []
    for of in (theirs, upstream.host_value):
        with pytest.raises(AttributeError) as error:
            of(data, "absent")
        told.append(str(error.value))
    assert told[0] == told[1]


def test_pyinfra_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostData, "__getattr__", HostData.__dict__["__getattr__"])
    before = [*arguments.all_global_arguments()]
    upstream.improve()
    names = _wrap_operation.__globals__
    assert names["get_operation_order_from_stack"] is upstream.operation_order
    assert arguments.all_global_arguments() == before
    assert arguments.all_global_arguments() is arguments.all_global_arguments()
