"""Root as another account: all of its rights, none of root's, and root again afterwards."""

from __future__ import annotations

import os
import pwd

import pytest

from strixbox.box._account import acting_as, become
from tests.box.conftest import ME, OTHER, needs_root


def rights() -> tuple[int, int, set[int]]:
    """User, group and groups that count for the file system."""
    return os.geteuid(), os.getegid(), set(os.getgroups())


@needs_root
def test_user_group_and_groups_change_and_return() -> None:
    account = pwd.getpwnam(OTHER)
    before = rights()
    groups = set(os.getgrouplist(OTHER, account.pw_gid))
    with pytest.raises(ZeroDivisionError), acting_as(OTHER):
        assert rights() == (account.pw_uid, account.pw_gid, groups)
        raise ZeroDivisionError
    assert rights() == before


def test_who_it_is_already_and_nobody_change_nothing() -> None:
    before = rights()
    become(ME)
    for name in (ME, None):
        with acting_as(name):
            assert rights() == before
    assert rights() == before


def test_an_account_that_is_not_there_changes_nothing() -> None:
    before = rights()
    with pytest.raises(KeyError), acting_as("no-such-account"):
        pass
    assert rights() == before
