"""Part of programs: what is taken out of the way goes into the backup directory."""

from __future__ import annotations

from strixbox.box._backups import new_copy, note
from strixbox.box._moving import move


def put_by(path: str, backups: str, why: str, digest: str | None = None) -> str:
    """Move what stands at ``path`` into the backup directory, with its line in the index; where."""
    copy = new_copy(backups, path)
    note(backups, path, copy, digest, why=why)
    move(path, copy)
    return copy
