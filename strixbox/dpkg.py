"""dpkg's short states, as ``hi`` or ``rc``: what is wanted of a package, and what it is."""

from __future__ import annotations

# dpkg-query(1), db:Status-Abbrev: installed, unpacked, half-configured, half-installed, triggers
# awaited or pending. The others are not-installed and config-files.
_ON_DISK = frozenset("iUFHWt")


def is_on_disk(state: str) -> bool:
    """Whether files of the package are on the disk, whole or not, and whether it is held or not."""
    return state[1:2] in _ON_DISK
