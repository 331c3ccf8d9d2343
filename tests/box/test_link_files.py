"""Links are made as the account that owns the directories, and only over links."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.box.conftest import ME, OTHER, asked, needs_root, started


def listens(path: Path) -> None:
    """Have a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def test_a_link_is_made_and_replaced_but_no_file_is(tmp_path: Path) -> None:
    path, mine = tmp_path / "a", tmp_path / "b"
    path.symlink_to("/old")
    mine.write_text("mine")
    links = [[str(path), "/new"], [str(mine), "/new"]]
    answer = started("link_files", {"links": links, "owner": ME})
    assert path.readlink() == Path("/new")
    assert f"{mine} is a file or directory, not a link; move it away" in answer.stderr
    assert mine.read_text() == "mine"


@needs_root
def test_a_folder_that_leads_to_roots_is_refused(theirs: Path, tmp_path: Path) -> None:
    (theirs / "loras").symlink_to(tmp_path)
    links = [[str(theirs / "m"), "/new"], [str(theirs / "loras" / "m"), "/new"]]
    answer = started("link_files", {"links": links, "owner": OTHER})
    assert (theirs / "m").lstat().st_uid == theirs.stat().st_uid
    assert f"could not be made a link by {OTHER}: Permission denied" in answer.stderr
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_what_the_user_alone_may_see_is_looked_at_as_the_user(theirs: Path, tmp_path: Path) -> None:
    # The other way round than on a share that trusts no root, but by the same means.
    (theirs / "m").write_text("x")
    (tmp_path / "hidden").write_text("x")
    query = {"paths": [str(theirs / "m")], "records": str(tmp_path / "none"), "user": OTHER}
    assert asked("verified_files", query)["files"][str(theirs / "m")]["kind"] == "file"
    query["paths"] = [str(tmp_path / "hidden")]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        asked("verified_files", query)
    assert f"{tmp_path / 'hidden'} cannot be looked at: Permission denied" in refused.value.stderr


@pytest.mark.parametrize(
    ("make", "what"), [(Path.mkdir, "a directory"), (os.mkfifo, "a pipe"), (listens, "a socket")]
)
def test_what_is_no_file_has_its_name(
    tmp_path: Path, make: Callable[[Path], object], what: str
) -> None:
    make(tmp_path / "m")
    query = {"paths": [str(tmp_path / "m"), "/dev/null"], "records": "/none", "user": ME}
    told = asked("verified_files", query)["files"]
    assert [state["what"] for state in told.values()] == [what, "a device"]


def test_a_link_to_where_a_model_was_managed_is_known(tmp_path: Path) -> None:
    ours, gone, own, active = (tmp_path / name for name in ("ours", "gone", "own", "active"))
    ours.write_text("x")
    own.write_text("x")
    active.mkdir()
    for target in (ours, gone, own):
        (active / target.name).symlink_to(target)
    (active / "gone.strixbox-part").write_text("half")
    records = tmp_path / "files.json"
    noted = {str(path): {"identity": [1, 2, 3], "sha256": "a"} for path in (ours, gone)}
    records.write_text(json.dumps({"files": noted}))
    paths = [str(active / name) for name in ("ours", "gone", "own")]
    told = asked("verified_files", {"paths": paths, "records": str(records), "user": ME})
    former = {path: state.get("former") for path, state in told["files"].items()}
    there = ours.stat()
    assert former == {
        paths[0]: {
            **{"kind": "file", "size": 1, "sha256": None, "recorded": "a"},
            "inode": [there.st_dev, there.st_ino],
        },
        paths[1]: {"kind": "absent", "sha256": None, "recorded": "a"},
        paths[2]: None,
    }
    assert told["files"][paths[1]]["part"] == 4
    assert told["rooms"].keys() == {str(active), str(tmp_path)}
    assert told["rooms"][str(active)]["device"] == there.st_dev
    assert told["rooms"][str(active)]["free"] > 0
