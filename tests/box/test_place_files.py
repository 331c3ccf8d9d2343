"""Whole files: one rename each, foreign content kept, nothing left over."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import activate
from strixbox.operations.base import BoxTrouble
from strixbox.operations.files import difference, directory_is_right, refuse_lost
from strixbox.tree import BoxDirectory
from tests.box.conftest import ME, MY_GROUP, asked, started

OWNER = {"owner": ME, "group": MY_GROUP}


def order(folder: Path, path: Path, content: bytes, mode: str = "640") -> dict[str, Any]:
    """An order for one file."""
    text = base64.b64encode(content).decode()
    file = {"path": str(path), "content": text, "mode": mode, **OWNER}
    return {"directories": [], "files": [file], "backups": str(folder / "backups")}


def kept(folder: Path) -> list[dict[str, Any]]:
    """Entries of the backups' index."""
    index = folder / "backups" / "index.jsonl"
    return [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []


def test_a_file_is_written_with_its_mode_and_read_back_as_right(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.conf"
    for _ in range(2):
        assert started("place_files", order(tmp_path, path, b"x\n")).returncode == 0
    state = asked("file_states", {"paths": [str(path), str(tmp_path / "none")]})
    assert state[str(tmp_path / "none")] == {"kind": "absent"}
    assert state[str(path)]["mode"] == "640"
    assert state[str(path)]["kind"] == "file"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.conf"]


def test_a_large_file_is_not_read_where_its_content_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("x")
    path.chmod(0o755)
    query = {"paths": [str(path)], "content": False}
    told = asked("file_states", query)[str(path)]
    assert (told["kind"], told["mode"]) == ("file", "755")
    assert "sha256" not in told


def test_what_somebody_else_wrote_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_bytes(b"theirs\n")
    started("place_files", order(tmp_path, path, b"# Managed by strixbox\n1\n"))
    started("place_files", order(tmp_path, path, b"# Managed by strixbox\n2\n"))
    (entry,) = kept(tmp_path)
    assert entry["path"] == str(path)
    assert Path(entry["copy"]).read_bytes() == b"theirs\n"
    assert path.read_bytes() == b"# Managed by strixbox\n2\n"


def test_a_link_is_replaced_and_noted_its_target_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    path = tmp_path / "a.conf"
    path.symlink_to(target)
    assert started("place_files", order(tmp_path, path, b"ours")).returncode == 0
    assert not path.is_symlink()
    assert target.read_text() == "theirs"
    assert Path(kept(tmp_path)[0]["copy"]).read_text() == f"link to {target}\n"


def test_a_directory_in_the_way_is_kept_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.mkdir()
    (path / "mine").write_text("mine")
    answer = started("place_files", order(tmp_path, path, b"x"))
    assert path.read_bytes() == b"x"
    (entry,) = kept(tmp_path)
    assert (entry["path"], entry["sha256"]) == (str(path), None)
    assert Path(entry["copy"], "mine").read_text() == "mine"
    assert f"what stood at {path} is kept as {entry['copy']}" in answer.stdout


def test_files_of_one_name_and_content_are_each_kept(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.conf").write_bytes(b"theirs\n")
        started("place_files", order(tmp_path, tmp_path / folder / "a.conf", b"ours\n"))
    assert [entry["path"] for entry in kept(tmp_path)] == [
        f"{tmp_path}/one/a.conf",
        f"{tmp_path}/two/a.conf",
    ]
    assert all(Path(entry["copy"]).read_bytes() == b"theirs\n" for entry in kept(tmp_path))


def test_half_a_copy_of_a_run_that_was_cut_is_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_bytes(b"theirs\n")
    path.chmod(0o640)
    started("place_files", order(tmp_path, path, b"ours\n"))
    copy = Path(kept(tmp_path)[0]["copy"])
    assert copy.stat().st_mode & 0o777 == 0o640
    copy.rename(f"{copy}.strixbox-new")
    Path(f"{copy}.strixbox-new").write_bytes(b"th")
    path.write_bytes(b"theirs\n")
    started("place_files", order(tmp_path, path, b"ours\n"))
    assert copy.read_bytes() == b"theirs\n"
    assert not Path(f"{copy}.strixbox-new").exists()


def test_going_back_to_a_generation_keeps_what_others_wrote_too(tmp_path: Path) -> None:
    path = tmp_path / "comfyui.service"
    generation = {"path": str(tmp_path / "kept"), "files": [{"path": str(path), "mode": "644"}]}
    place = tmp_path / "kept" / f"files{path}"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"# Managed by strixbox\n1\n")
    path.write_bytes(b"theirs\n")
    activate.install(generation, str(tmp_path / "backups"))
    assert path.read_bytes() == place.read_bytes()
    path.write_bytes(b"# Managed by strixbox\n2\n")
    activate.install(generation, str(tmp_path / "backups"))
    (entry,) = kept(tmp_path)
    assert entry["path"] == str(path)
    assert Path(entry["copy"]).read_bytes() == b"theirs\n"


def test_a_pipe_in_the_way_is_moved_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    os.mkfifo(path)
    assert started("place_files", order(tmp_path, path, b"x")).returncode == 0
    assert path.read_bytes() == b"x"
    assert Path(kept(tmp_path)[0]["copy"]).is_fifo()


def test_a_link_to_a_larger_disk_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir(mode=0o700)
    path = tmp_path / "strixbox"
    path.symlink_to("large")
    wanted = BoxDirectory(str(path), owner=ME, group=None)
    item = {"path": str(path), "mode": "755", "owner": ME, "group": None}

    def state() -> dict[str, Any]:
        return dict(asked("file_states", {"paths": [str(path)]})[str(path)])

    assert not directory_is_right(wanted, state())
    assert "700" in difference(wanted, state())
    order = {"directories": [item], "files": [], "backups": str(tmp_path / "b")}
    assert started("place_files", order).returncode == 0
    assert path.is_symlink()
    assert directory_is_right(wanted, state())
    (tmp_path / "large").rmdir()
    assert not directory_is_right(wanted, state())
    assert "leads to no directory" in started("place_files", order).stderr


def test_the_owners_own_group_is_whatever_the_box_calls_it(tmp_path: Path) -> None:
    state = asked("file_states", {"paths": [str(tmp_path)]})[str(tmp_path)]
    mode = state["mode"]
    assert directory_is_right(BoxDirectory(str(tmp_path), mode, ME, None), state)
    assert not directory_is_right(
        BoxDirectory(str(tmp_path), mode, ME, None), state | {"primary": False}
    )
    assert not directory_is_right(BoxDirectory(str(tmp_path), mode, ME, "nogroup"), state)


def test_a_file_in_a_directorys_place_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.write_text("theirs")
    wanted = {"path": str(path), "mode": "755", **OWNER}
    backups = str(tmp_path / "backups")
    started("place_files", {"directories": [wanted], "files": [], "backups": backups})
    assert path.is_dir()
    assert Path(kept(tmp_path)[0]["copy"]).read_text() == "theirs"


def test_a_link_that_leads_to_no_directory_is_left(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.symlink_to("/mnt/gone")
    wanted = BoxDirectory(str(path), "755", ME, MY_GROUP)
    states = asked("file_states", {"paths": [str(path)]})
    with pytest.raises(BoxTrouble, match=r"folder \(to /mnt/gone\) leads to no directory"):
        refuse_lost((wanted,), states)
    order = {"path": str(path), "mode": "755", **OWNER}
    told = started("place_files", {"directories": [order], "files": [], "backups": "/none"})
    assert "leads to no directory" in told.stderr
    assert path.is_symlink()


def test_an_account_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    wanted = order(tmp_path, tmp_path / "a", b"x")
    wanted["files"][0]["owner"] = "nobody-here"
    answer = started("place_files", wanted)
    assert "create the account and run again" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("left", ["a.conf.strixbox-new"])
def test_leftovers_of_a_dead_run_are_replaced(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("half")
    started("place_files", order(tmp_path, tmp_path / "a.conf", b"whole"))
    assert (tmp_path / "a.conf").read_bytes() == b"whole"
    assert not (tmp_path / left).exists()
