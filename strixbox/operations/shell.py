"""The block in the user's .bashrc."""

from __future__ import annotations

from pyinfra.context import host

from strixbox.config import Box
from strixbox.facts import FileText
from strixbox.layout import BACKUPS
from strixbox.operations.base import Steps, ask, box_operation, say
from strixbox.programs import write

BEGIN = "# >>> strixbox >>>"
END = "# <<< strixbox <<<"


@box_operation
def bashrc_block(box: Box, lines: tuple[str, ...]) -> Steps:
    """Have one marked block in ~/.bashrc; the user's own lines are never touched.

    + box: whose .bashrc it is
    + lines: what stands between the markers

    pyinfra's files.block replaces a linked .bashrc by a regular file.
    """
    path = f"{box.home}/.bashrc"
    text = ask(FileText, path=path)
    wanted = "".join(f"{line}\n" for line in (BEGIN, *lines, END))
    if text.count(BEGIN) == 1 and wanted in text:
        host.noop(f"{path} has the block")
        return
    say(f"{path}: write the strixbox block")
    yield write(
        "bashrc_block",
        {
            "path": path,
            "user": box.user,
            "lines": list(lines),
            "backup": f"{BACKUPS}/bashrc-{box.user}",
        },
    )
