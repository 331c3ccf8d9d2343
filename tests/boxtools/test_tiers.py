"""Moves between the tiers: whatever happens, whenever, the content is somewhere and reachable."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from boxtools import copyfile, pagecache, statefile, tiers
from boxtools.catalogue import ModelFile, find_models
from boxtools.errors import Trouble, WrongUse
from boxtools.settings import Settings
from boxtools.tierplan import propose
from boxtools.tiers import Move, carry_out, lock, move_file, planned_move, recover

from strixbox.box import verified_files
from strixbox.config import Model
from strixbox.models import Places, steps
from tests.boxtools import box

CONTENT = random.Random(7).randbytes(20_000)  # noqa: S311 - the same bytes every time
KEY = "checkpoints/x.safetensors"
STEPS = {module.__file__ for module in (tiers, copyfile, statefile)}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: hundreds of moves flush thousands of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    directory = memory / f"strixbox-{os.getpid()}-{tmp_path.name}"
    directory.mkdir()
    yield directory
    _remove(directory)


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    directory.rmdir()


@pytest.fixture(autouse=True)
def no_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No deploy works on this machine."""
    monkeypatch.setattr(tiers, "DEPLOY_LOCK", tmp_path / "no-deploy")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves as between two disks, in many chunks."""
    monkeypatch.setattr(tiers, "second_name", lambda *_: False)
    monkeypatch.setattr(tiers, "clone", lambda *_: False)
    monkeypatch.setattr(pagecache, "CHUNK", pagecache.PAGE)
    monkeypatch.setattr(pagecache, "WINDOW", 2 * pagecache.PAGE)


def active(settings: Settings) -> Path:
    return settings.active / KEY


def archived(settings: Settings) -> Path:
    assert settings.archive is not None
    return settings.archive / KEY


def prepare(root: Path, to: str) -> tuple[Settings, Move]:
    """A box with one model where it is to be moved from."""
    settings = box.two_tiers(root)
    if to == "archive":
        active(settings).write_bytes(CONTENT)
        return settings, Move(source=active(settings), target=archived(settings), link=True)
    archived(settings).write_bytes(CONTENT)
    active(settings).symlink_to(archived(settings))
    return settings, Move(source=archived(settings), target=active(settings), link=False)


def moved(settings: Settings, move: Move) -> bool:
    """Whether everything is as after an undisturbed move."""
    if move.link:
        left = move.source.is_symlink() and move.source.readlink() == move.target
    else:
        left = not os.path.lexists(move.source)
    there = move.target.is_file() and not move.target.is_symlink()
    return (
        left
        and there
        and move.target.read_bytes() == CONTENT
        and active(settings).read_bytes() == CONTENT
    )


@pytest.mark.parametrize("to", ["archive", "active"])
@pytest.mark.parametrize("way", ["name", "copy"])
def test_a_move(root: Path, to: str, way: str, request: pytest.FixtureRequest) -> None:
    if way == "copy":
        request.getfixturevalue("copies")
    settings, move = prepare(root, to)
    os.utime(move.source, (1e9, 1.2e9))
    move.source.chmod(0o640)
    seen: list[int] = []
    digest = carry_out(move, settings, seen.append)
    info = move.target.stat()
    assert moved(settings, move)
    assert box.leftovers(root) == []
    assert (info.st_atime, info.st_mtime, info.st_mode & 0o777) == (1e9, 1.2e9, 0o640)
    if way == "copy":
        assert digest is not None
        assert seen[-1] == 2 * len(CONTENT)  # all was copied, and read back


def test_a_folder_is_made_with_its_owner(root: Path, copies: None) -> None:
    settings, _ = prepare(root, "archive")
    source = settings.active / "checkpoints/styles/old/y.safetensors"
    box.model(source, b"y")
    chosen = next(m for m in find_models(settings) if m.name == "styles/old/y.safetensors")
    move = planned_move(chosen, "archive", settings)
    carry_out(move, settings)
    assert move.target.parent.stat().st_uid == source.parent.stat().st_uid
    assert source.read_bytes() == move.target.read_bytes()


# SIGKILL after every line of a move: the strongest reading of "at any moment".


def killed(work: Callable[[], object], after: int) -> bool:
    """Run ``work`` in a process that is killed at its ``after``-th line; False if it came to its
    end before.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count
            if frame.f_code.co_filename not in STEPS:
                return None
            count += event == "line"
            if count == after:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def intact(settings: Settings, move: Move) -> None:
    """What must hold at every moment."""
    assert active(settings).read_bytes() == CONTENT
    places = [p for p in (move.source, move.target) if p.is_file() and not p.is_symlink()]
    assert any(place.read_bytes() == CONTENT for place in places)


def again(settings: Settings, move: Move) -> None:
    """What the next command does."""
    with lock(settings):
        recover(settings)
        assert box.leftovers(settings.state.parent) == []
        intact(settings, move)
        if not moved(settings, move):
            carry_out(move, settings)


@pytest.mark.parametrize("to", ["archive", "active"])
@pytest.mark.parametrize("way", ["name", "copy"])
def test_killed_after_every_line(
    root: Path, to: str, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "copy":
        request.getfixturevalue("copies")
    points = 0
    while True:
        points += 1
        home = root / str(points)
        settings, move = prepare(home, to)
        ended = not killed(lambda s=settings, m=move: carry_out(m, s), points)  # type: ignore[misc]
        intact(settings, move)
        again(settings, move)
        assert moved(settings, move), f"killed after line {points}"
        assert box.leftovers(home) == []
        _remove(home)
        if ended:
            break
    assert points > 40


def test_killed_while_it_recovers(root: Path, copies: None) -> None:
    settings, move = prepare(root, "active")
    # As a kill between the last two steps leaves it.
    carry_out(move, settings)
    archived(settings).write_bytes(CONTENT)
    journal = settings.state / tiers.JOURNAL
    points = 1
    journal.write_text(json.dumps(move.plain()))
    while killed(lambda: recover(settings), points):
        intact(settings, move)
        points += 3
        if not os.path.lexists(archived(settings)):
            archived(settings).write_bytes(CONTENT)
        journal.write_text(json.dumps(move.plain()))
    again(settings, move)
    assert moved(settings, move)


@pytest.mark.parametrize("to", ["archive", "active"])
def test_killed_at_random_times_between_two_disks(tmp_path: Path, root: Path, to: str) -> None:
    if tmp_path.stat().st_dev == root.stat().st_dev:
        pytest.skip("needs a second file system in /dev/shm")
    chance = random.Random(to)  # noqa: S311 - the same times every run
    settings = box.two_tiers(tmp_path, archive=root / "sata")
    content = CONTENT * 500
    place = active(settings) if to == "archive" else archived(settings)
    other = archived(settings) if to == "archive" else active(settings)
    move = Move(source=place, target=other, link=to == "archive")
    for _ in range(6):
        for path in (place, other):
            path.unlink(missing_ok=True)
        place.write_bytes(content)
        if to == "active":
            active(settings).symlink_to(place)
        child = os.fork()
        if child == 0:
            try:
                carry_out(move, settings)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert active(settings).read_bytes() == content
        with lock(settings):
            recover(settings)
            if place.is_file() and not place.is_symlink():
                carry_out(move, settings)
        assert other.read_bytes() == active(settings).read_bytes() == content
        assert box.leftovers(tmp_path) == box.leftovers(root) == []


def test_ctrl_c_leaves_all_as_it_was(root: Path, copies: None) -> None:
    settings, move = prepare(root, "archive")

    def seen(done: int) -> None:
        if done > len(CONTENT) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(move, settings, seen)
    assert move.source.read_bytes() == CONTENT
    assert not move.target.exists()
    assert box.leftovers(root) == []


def test_a_model_that_comfyui_has_mapped_is_moved(root: Path, copies: None) -> None:
    settings, move = prepare(root, "archive")
    with move.source.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    carry_out(move, settings)
    assert moved(settings, move)
    assert mapped[:] == CONTENT
    mapped.close()


# What is in the way


def writes(path: Path, content: bytes) -> Callable[[int], None]:
    """Somebody who writes a file while the move goes on."""

    def seen(_: int) -> None:
        path.write_bytes(content)

    return seen


def test_two_files_that_differ_are_left_alone(root: Path) -> None:
    settings, move = prepare(root, "archive")
    move.target.write_bytes(b"another")
    with pytest.raises(Trouble, match="both exist and differ"):
        carry_out(move, settings)
    assert move.source.read_bytes() == CONTENT
    assert move.target.read_bytes() == b"another"


def test_an_equal_copy_is_taken_for_the_move(root: Path) -> None:
    settings, move = prepare(root, "archive")
    move.target.write_bytes(CONTENT)
    carry_out(move, settings)
    assert moved(settings, move)


def test_a_link_of_the_users_is_never_replaced(root: Path) -> None:
    settings, move = prepare(root, "active")
    own = root / "own.safetensors"
    own.write_bytes(b"own")
    active(settings).unlink()
    active(settings).symlink_to(own)
    with pytest.raises(Trouble, match="in the way"):
        carry_out(move, settings)
    assert active(settings).read_bytes() == b"own"
    assert archived(settings).read_bytes() == CONTENT


def test_tiers_that_are_one_directory_are_left_alone(root: Path) -> None:
    settings, move = prepare(root, "archive")
    archived(settings).parent.rmdir()
    archived(settings).parent.symlink_to(active(settings).parent)
    with pytest.raises(Trouble, match="one place"):
        carry_out(move, settings)
    assert active(settings).read_bytes() == CONTENT
    assert not active(settings).is_symlink()


def test_what_appears_meanwhile_is_not_overwritten(root: Path, copies: None) -> None:
    settings, move = prepare(root, "archive")
    with pytest.raises(Trouble, match="appeared"):
        carry_out(move, settings, writes(move.target, b"somebody's"))
    assert move.target.read_bytes() == b"somebody's"
    assert move.source.read_bytes() == CONTENT


def test_a_model_that_is_written_meanwhile_stays(root: Path, copies: None) -> None:
    settings, move = prepare(root, "archive")
    with pytest.raises(Trouble, match="was written while"):
        carry_out(move, settings, writes(move.source, b"n" * len(CONTENT)))
    assert move.source.read_bytes() == b"n" * len(CONTENT)
    assert box.leftovers(root) == []


def test_a_disk_that_gives_back_something_else(
    root: Path, copies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, move = prepare(root, "archive")
    monkeypatch.setattr(copyfile, "sha256", lambda *_: "0" * 64)
    with pytest.raises(Trouble, match="another content than was written"):
        carry_out(move, settings)
    assert move.source.read_bytes() == CONTENT
    assert not move.target.exists()
    assert box.leftovers(root) == []


def is_held(part: Path) -> bool:
    """Whether somebody has a lock on it."""
    with part.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_part_is_locked_from_its_first_byte_to_its_place(
    root: Path, copies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deploy that begins in between would write into it, and the half of its file be placed.
    settings, move = prepare(root, "archive")
    held: list[bool] = []

    def placed(part: Path, target: Path) -> None:
        held.append(is_held(part))
        copyfile.place(part, target)

    monkeypatch.setattr(tiers, "place", placed)
    carry_out(move, settings, lambda _: held.append(is_held(move.part)))
    assert set(held) == {True}
    assert moved(settings, move)


def test_a_part_that_a_deploy_writes_is_not_touched(root: Path, copies: None) -> None:
    settings, move = prepare(root, "archive")
    with move.part.open("wb") as stream:
        stream.write(b"theirs")
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(Trouble, match="is being written already"):
            carry_out(move, settings)
    assert move.part.read_bytes() == b"theirs"
    assert move.source.read_bytes() == CONTENT
    carry_out(move, settings)
    assert moved(settings, move)


def test_no_room(root: Path, copies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, move = prepare(root, "archive")
    monkeypatch.setattr(copyfile, "RESERVE", 1 << 60)
    with pytest.raises(Trouble, match="GiB free"):
        carry_out(move, settings)
    assert move.source.read_bytes() == CONTENT


def test_a_step_that_the_system_refuses(
    root: Path, copies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, move = prepare(root, "archive")

    def refuses(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tiers, "place", refuses)
    with pytest.raises(Trouble, match="Input/output error; nothing is lost"):
        carry_out(move, settings)
    assert move.source.read_bytes() == CONTENT
    assert box.leftovers(root) == []


def test_clone_where_the_disk_cannot(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(CONTENT)
    with (tmp_path / "b").open("wb") as new:
        cloned = copyfile.clone(source, new.fileno())
    assert (tmp_path / "b").read_bytes() == (CONTENT if cloned else b"")


def test_a_clone_is_moved_into_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, move = prepare(root, "active")

    def ioctl(new: int, request: int, old: int) -> int:
        assert request == copyfile.FICLONE
        return os.write(new, os.pread(old, 1 << 20, 0))

    monkeypatch.setattr(tiers, "second_name", lambda *_: False)
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(tiers, "copy", lambda *_: pytest.fail("was copied"))
    assert carry_out(move, settings) is None
    assert moved(settings, move)


def test_one_move_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = prepare(root, "archive")
    with (
        lock(settings),
        pytest.raises(Trouble, match="by another command"),
        lock(settings),
    ):
        pass
    deploy = root / "deploy"
    deploy.touch()
    monkeypatch.setattr(tiers, "DEPLOY_LOCK", deploy)
    with deploy.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Trouble, match="a deploy works"), lock(settings):
            pass
    with lock(settings):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{", '{"source": 1}', "null", '{"a": "b"}'])
def test_a_damaged_journal_is_as_none(root: Path, text: str) -> None:
    settings, _ = prepare(root, "archive")
    (settings.state / tiers.JOURNAL).write_text(text)
    assert tiers.cut_move(settings) is None
    assert recover(settings) is None


def test_differing_files_of_a_cut_move_are_told_once(root: Path) -> None:
    settings, move = prepare(root, "archive")
    move.target.write_bytes(b"another")
    (settings.state / tiers.JOURNAL).write_text(json.dumps(move.plain()))
    with pytest.raises(Trouble, match="both exist"):
        recover(settings)
    assert recover(settings) is None


def test_one_tier_and_foreign_links(root: Path) -> None:
    settings, _ = prepare(root, "archive")
    chosen = find_models(settings)[0]
    alone = settings.model_copy(update={"archive": None})
    with pytest.raises(WrongUse, match="one tier"):
        planned_move(chosen, "archive", alone)
    own = root / "own.safetensors"
    own.write_bytes(b"own")
    link = settings.active / "vae/own.safetensors"
    link.symlink_to(own)
    foreign = next(m for m in find_models(settings) if m.folder == "vae")
    with pytest.raises(WrongUse, match="a link of yours"):
        planned_move(foreign, "archive", settings)


# The deploy and the tools


def deploy_steps(settings: Settings, tier: str, records: dict[str, Any]) -> list[str]:
    """What the deploy would do about the model."""
    entry = Model.model_validate(
        {"name": "x.safetensors", "folder": "checkpoints", "tier": tier, "url": None}
    )
    places = Places.of(entry, str(settings.active), str(settings.archive))
    files = {path: verified_files.state(path, records) for path in places.all()}
    return [step.action for step in steps(entry, places, files, {})]


@pytest.mark.parametrize("to", ["archive", "active"])
@pytest.mark.parametrize("way", ["name", "copy"])
def test_the_deploy_takes_a_move_for_its_own(
    root: Path, to: str, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "copy":
        request.getfixturevalue("copies")
    settings, move = prepare(root, to)
    carry_out(move, settings)
    # In the same tier it only hashes it once more; in another it moves it back.
    assert deploy_steps(settings, to, {}) == ["adopt"]
    other = "active" if to == "archive" else "archive"
    assert deploy_steps(settings, other, {}) == ["move"] if other == "active" else ["move", "link"]


def test_the_deploy_never_writes_into_a_model_through_a_part(root: Path) -> None:
    # Its part is opened for writing: a second name of the source there would be emptied.
    settings, move = prepare(root, "archive")
    assert move.staged.name != move.part.name
    points = 1
    while killed(lambda s=settings, m=move: carry_out(m, s), points):  # type: ignore[misc]
        assert not os.path.lexists(move.part)
        points += 4
        again(settings, move)
        settings, move = prepare(_emptied(root), "archive")


def _emptied(root: Path) -> Path:
    _remove(root)
    root.mkdir()
    return root


# Plans

DAY = 86400.0
NOW = 1e9


def file(name: str, tier: str, days: float | None, size: int = 1 << 30, **own: Any) -> ModelFile:
    used = None if days is None else NOW - days * DAY
    return ModelFile("checkpoints", name, tier, Path(name), size, used, **own)  # type: ignore[arg-type]


def names(models: tuple[ModelFile, ...]) -> list[str]:
    return [model.name for model in models]


def test_plan_archives_what_is_idle_longest_first() -> None:
    models = [file("new", "active", 1), file("old", "active", 90), file("older", "active", 200)]
    plan = propose(models, frozenset(), NOW, 30, None, 0, 1 << 40)
    assert names(plan.archive) == ["older", "old"]
    assert plan.after == 2 << 30


def test_plan_stops_at_the_wanted_room() -> None:
    models = [file("old", "active", 90), file("older", "active", 200)]
    plan = propose(models, frozenset(), NOW, 30, 3 << 30, 2 << 30, 1 << 40)
    assert names(plan.archive) == ["older"]
    assert plan.missing == 0
    plan = propose(models, frozenset(), NOW, 30, 9 << 30, 2 << 30, 1 << 40)
    assert names(plan.archive) == ["older", "old"]
    assert plan.missing == 5 << 30


def test_plan_brings_back_what_is_used_and_fits() -> None:
    models = [file("a", "archive", 3), file("b", "archive", 1), file("c", "archive", 90)]
    plan = propose(models, frozenset(), NOW, 30, 5 << 30, 6 << 30, 1 << 40)
    assert names(plan.activate) == ["b"]
    assert plan.after == 5 << 30


def test_plan_leaves_alone_what_is_not_its_own() -> None:
    models = [
        file("managed", "active", 90),
        file("link", "active", 90, leads_to=Path("/x")),
        file("unknown", "active", None),
        file("both", "active", 90),
        file("both", "archive", 1),
    ]
    plan = propose(models, frozenset({"checkpoints/managed"}), NOW, 30, None, 9 << 30, 1 << 40)
    assert (plan.archive, plan.activate, plan.unknown) == ((), (), 1)
    assert names(plan.kept) == ["managed"]


def test_plan_minds_the_room_of_the_archive() -> None:
    models = [file("large", "active", 90, 9 << 30), file("small", "active", 60, 1 << 30)]
    plan = propose(models, frozenset(), NOW, 30, None, 0, 3 << 30)
    assert names(plan.archive) == ["small"]
    assert plan.full


def test_move_file_needs_a_file(root: Path) -> None:
    _, move = prepare(root, "archive")
    move.source.unlink()
    with pytest.raises(Trouble, match="is no file"):
        move_file(move)


def test_the_journal_is_what_recover_reads(root: Path) -> None:
    settings, move = prepare(root, "archive")
    (settings.state / tiers.JOURNAL).write_text(json.dumps(move.plain()))
    assert tiers.cut_move(settings) == move
