"""Whole files and directories of ours."""

from __future__ import annotations

import base64
import difflib
from pathlib import PurePosixPath
from typing import Any

from pyinfra.context import host

from strixbox.facts import FileStates, FileText, TreeEntries
from strixbox.layout import BACKUPS
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.programs import Run, write
from strixbox.tree import BoxDirectory, BoxFile


@box_operation
def place_files(
    files: tuple[BoxFile, ...] = (), directories: tuple[BoxDirectory, ...] = ()
) -> Steps:
    """Put whole files in place, in one question and one command however many there are.

    + files: content, mode and owner of each file
    + directories: mode and owner of each directory; parents are made as root's, 755

    A file that somebody else wrote is copied to /var/backups/strixbox before it is replaced.
    """
    items: list[BoxFile | BoxDirectory] = [*directories, *files]
    paths = tuple(item.path for item in items)
    states = ask(FileStates, paths=paths)
    directories = tuple(d for d in directories if not directory_is_right(d, states[d.path]))
    files = tuple(f for f in files if not file_is_right(f, states[f.path]))
    if not files and not directories:
        host.noop(f"{len(paths)} files and directories are as they shall be")
        return
    refuse_lost(directories, states)
    items = [*directories, *files]
    for item in items:
        say(f"{item.path}: {difference(item, states[item.path])}")
    for file in files:
        show_diff(file)
    yield placing(files, directories)


def refuse_lost(directories: tuple[BoxDirectory, ...], states: dict[str, dict[str, Any]]) -> None:
    """Stop where a directory's place has a link to where there is none: its disk may be missing.

    Raises:
        BoxTrouble: naming every such link.
    """
    lost = [
        f"{directory.path} (to {state['target']})"
        for directory in directories
        if (state := states[directory.path])["kind"] == "link" and "directory" not in state
    ]
    if lost:
        raise BoxTrouble(
            f"{', '.join(lost)} leads to no directory; mount its disk, or remove the link, and run"
            " again."
        )


@box_operation
def mirrored_trees(
    roots: tuple[str, ...], files: tuple[BoxFile, ...], python_version: str
) -> Steps:
    """Have directories of ours hold these files and no others, and byte code of the Python ones.

    + roots: directories that the toolkit alone fills
    + files: everything that shall stand below them, and files of ours elsewhere
    + python_version: of the Python that loads them, as an account that cannot write there

    What stands there besides, such as a module of an older toolkit that Python would still import,
    goes to /var/backups/strixbox.
    """
    stray = ask_strays(roots, files)
    made = byte_code(files, python_version)
    states = ask(FileStates, paths=(*(file.path for file in files), *made))
    wrong = tuple(file for file in files if not file_is_right(file, states[file.path]))
    # One tells of all: what is missing beside it costs time at each start, and nothing else.
    bare = any(states[path]["kind"] == "absent" for path in made)
    if not wrong and not stray and not bare:
        host.noop(f"{len(files)} files are as they shall be")
        return
    for file in wrong:
        say(f"{file.path}: {difference(file, states[file.path])}")
        show_diff(file)
    for path in stray:
        say(f"{path}: to {BACKUPS}")
    if stray:
        yield write(
            "retire", {"paths": stray, "backups": BACKUPS, "why": "no file of this toolkit"}
        )
    if wrong:
        yield placing(wrong)
    if wrong or bare:
        say(f"compile what stands in {', '.join(roots)}")
        yield compiled(python_version, *roots)


def byte_code(files: tuple[BoxFile, ...], python_version: str) -> tuple[str, ...]:
    """Where Python looks for the byte code of the first of the Python files, if there is one."""
    found = next((PurePosixPath(f.path) for f in files if f.path.endswith(".py")), None)
    if found is None:
        return ()
    tag = "cpython-" + python_version.replace(".", "")
    return (str(found.parent / "__pycache__" / f"{found.stem}.{tag}.pyc"),)


def compiled(python_version: str, *paths: str, without: str | None = None) -> Run:
    """The command that makes byte code of what stands in root's directories.

    + python_version: of the interpreter that runs it, as 3.12
    + without: regular expression of paths that nobody loads
    """
    order = {"paths": paths, "without": without}
    return write("bytecode", order, python=f"python{python_version}")


def ask_strays(roots: tuple[str, ...], files: tuple[BoxFile, ...]) -> list[str]:
    """What stands below directories of ours besides the files that shall.

    + roots: directories that the toolkit alone fills
    + files: everything that shall stand below them
    """
    return strays(ask(TreeEntries, roots=roots), {file.path for file in files})


def strays(standing: dict[str, list[str]], wanted: set[str]) -> list[str]:
    """Paths that shall not stand: directories that hold nothing wanted, then single files.

    + standing: ``directories`` and ``files`` that are there, parents first
    + wanted: paths of the files that shall be there
    """
    needed = {str(parent) for path in wanted for parent in PurePosixPath(path).parents}
    found: list[str] = []
    for path in (*standing["directories"], *standing["files"]):
        inside = any(path.startswith(f"{taken}/") for taken in found)
        if path not in needed and path not in wanted and not inside:
            found.append(path)
    return found


@box_operation
def user_directories(user: str, paths: tuple[str, ...]) -> Steps:
    """Create what is missing as the user; what exists, links included, stays as it is.

    + user: the account that owns the directories
    + paths: directories, parents first
    """
    missing = missing_paths(paths, user)
    if not missing:
        host.noop(f"{len(paths)} directories exist")
        return
    say(f"create {', '.join(missing)}")
    yield Run(
        *("runuser", "--user", user, "--", "mkdir", "--parents", "--", *missing),
        mend=f"{user} may not create these directories; see who owns their parents.",
    )


def missing_paths(paths: tuple[str, ...], user: str) -> list[str]:
    """Those that are not on the box.

    + paths: directories or files
    + user: the account that owns them, and is asked: root may see less (FUSE, NFS)
    """
    states = ask(FileStates, paths=paths, user=user)
    return [path for path in paths if states[path]["kind"] == "absent"]


def removing(*paths: str) -> Run:
    """The command that removes trees of ours; what is mounted below one of them stays."""
    return Run(
        *("rm", "-rf", "--one-file-system", "--", *paths),
        mend="rm's words are above: unmount what is mounted there (findmnt -R), or take off the"
        " attribute that keeps it (lsattr), then run again.",
    )


def placing(files: tuple[BoxFile, ...], directories: tuple[BoxDirectory, ...] = ()) -> Run:
    """The command that puts these files and directories in place."""
    return write(
        "place_files",
        {
            "directories": [_owned(directory) for directory in directories],
            "files": [
                _owned(file) | {"content": base64.b64encode(file.content).decode()}
                for file in files
            ],
            "backups": BACKUPS,
        },
    )


def file_is_right(wanted: BoxFile, state: dict[str, Any]) -> bool:
    """Whether the box has this very file: content, mode, owner and group."""
    return state == {
        "kind": "file",
        "sha256": wanted.sha256,
        "mode": wanted.mode,
        "owner": wanted.owner,
        "group": wanted.group,
    }


def directory_is_right(wanted: BoxDirectory, state: dict[str, Any]) -> bool:
    """Whether the box has this directory, or a link to one, with its mode, owner and group."""
    there = state.get("directory", state)
    grouped = there.get("primary") if wanted.group is None else there.get("group") == wanted.group
    return bool(
        there["kind"] == "directory"
        and (there["mode"], there["owner"]) == (wanted.mode, wanted.owner)
        and grouped
    )


def item_is_right(wanted: BoxFile | BoxDirectory, state: dict[str, Any]) -> bool:
    """Whether the box has this file or directory as it shall be."""
    if isinstance(wanted, BoxFile):
        return file_is_right(wanted, state)
    return directory_is_right(wanted, state)


def difference(wanted: BoxFile | BoxDirectory, state: dict[str, Any]) -> str:
    """What is to be done about one path, in a few words."""
    if state["kind"] == "absent":
        return "create"
    if isinstance(wanted, BoxFile) and state.get("sha256") != wanted.sha256:
        return "replace"
    there = state.get("directory", state)
    group = "its own group" if wanted.group is None else wanted.group
    return (
        f"{there['mode']} {there['owner']}:{there['group']} -> {wanted.mode} {wanted.owner}:{group}"
    )


def show_diff(file: BoxFile) -> None:
    """Print what changes in a text file, where --diff was given."""
    if host.state.config.DIFF:
        show_changes(
            file.path, ask(FileText, path=file.path), file.content.decode(errors="replace")
        )


def show_changes(path: str, before: str, after: str) -> None:
    """Print the lines that differ between two texts of a file, where --diff was given."""
    if not host.state.config.DIFF:
        return
    for line in difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        f"{path} (box)",
        f"{path} (wanted)",
        lineterm="",
    ):
        host.log(line)  # content, which the box's own log does not hold


def _owned(item: BoxFile | BoxDirectory) -> dict[str, str | None]:
    return {"path": item.path, "mode": item.mode, "owner": item.owner, "group": item.group}
