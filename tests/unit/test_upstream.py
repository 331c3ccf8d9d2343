"""What stands in pyinfra's place does what pyinfra's own does."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pyinfra
import pytest
from pyinfra.api import arguments, util
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


def test_pyinfra_uses_them() -> None:
    before = [*arguments.all_global_arguments()]
    upstream.improve()
    names = _wrap_operation.__globals__
    assert names["get_operation_order_from_stack"] is upstream.operation_order
    assert arguments.all_global_arguments() == before
    assert arguments.all_global_arguments() is arguments.all_global_arguments()
