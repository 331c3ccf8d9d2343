"""Part of programs: lines of fstab, and fields of theirs and of mountinfo."""

from __future__ import annotations

import re


def mount_point(line: bytes) -> str | None:
    """Second field of an fstab line, its escapes undone; None for a comment."""
    fields = line.split()
    if len(fields) < 2 or fields[0].startswith(b"#"):
        return None
    return unescape(fields[1].decode(errors="surrogateescape"))


def unescape(field: str) -> str:
    """A field of fstab or mountinfo, where blanks are written as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def ours(line: bytes) -> bool:
    """Whether an fstab line is the deploy's RAM disk, and not one that its owner wrote."""
    fields = line.split()
    options = fields[3] if len(fields) > 3 and fields[2] == b"tmpfs" else b""
    return b"mode=0700,uid=" in options and b"nosuid,nodev,nofail" in options
