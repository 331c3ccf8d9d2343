"""Part of programs: working in the file system as the account that owns a directory.

Whatever runs under that account may plant a link there, and root would follow it anywhere.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager


def become(name: str) -> None:
    """Be that account from here on, with its groups and no others.

    The user comes last: without root's rights the groups could not be changed any more.

    Raises:
        KeyError: where there is no such account.
    """
    account = pwd.getpwnam(name)
    if account.pw_uid == os.geteuid():
        return
    os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)


@contextmanager
def acting_as(name: str | None) -> Iterator[None]:
    """Be that account for every look and step in the file system; None stays who it is."""
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    if name is not None:
        become(name)
    try:
        yield
    finally:
        if os.geteuid() != user:
            os.seteuid(user)
            os.setegid(group)
            os.setgroups(groups)
