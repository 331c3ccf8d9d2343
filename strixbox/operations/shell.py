"""The block in the user's .bashrc."""

from __future__ import annotations

from pyinfra.context import host

from strixbox.box._bashrc import BEGIN, END
from strixbox.box.bashrc_block import with_block
from strixbox.config import Box
from strixbox.facts import FileText
from strixbox.layout import BACKUPS
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.operations.files import show_changes
from strixbox.programs import write


def bashrc(box: Box) -> str:
    """The file that holds the block."""
    return f"{box.home}/.bashrc"


def block(lines: tuple[str, ...]) -> str:
    """The lines between their markers."""
    return "".join(f"{line}\n" for line in (BEGIN.decode(), *lines, END.decode()))


def has_block(text: str, lines: tuple[str, ...]) -> bool:
    """Whether the text has this one block, and no marker besides."""
    marks = [text.count(mark.decode()) for mark in (BEGIN, END)]
    return marks == [1, 1] and block(lines) in text


@box_operation
def bashrc_block(box: Box, lines: tuple[str, ...]) -> Steps:
    """Have one marked block in ~/.bashrc; the user's own lines are never touched.

    + box: whose .bashrc it is
    + lines: what stands between the markers

    pyinfra's files.block replaces a linked .bashrc by a regular file.
    """
    path = bashrc(box)
    text = ask(FileText, path=path, user=box.user)
    wanted = block(lines)
    if has_block(text, lines):
        host.noop(f"{path} has the block")
        return
    say(f"{path}: write the strixbox block")
    show_changes(path, text, with_block(text.encode(), wanted.encode()).decode())
    yield write(
        "bashrc_block",
        {
            "path": path,
            "user": box.user,
            "lines": list(lines),
            "backups": BACKUPS,
        },
    )
