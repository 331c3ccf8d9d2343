"""Moves of model files between the tiers; a power cut or SIGKILL at any instant loses nothing.

The order, that of the deploy's own moves: the whole content beside its new place (its part), read
back and compared, flushed, renamed into place, the old place made a link to it (archive) or freed
(activate), each step flushed before the next. ComfyUI finds the whole file at every moment. The
move is written down before it begins, so that the next command finishes one that was cut after the
content was in place, and cleans up one that was cut before.

A model may be moved while ComfyUI has it open or mapped: what it reads is the inode, which lives
until the last descriptor and mapping of it are gone (unlink(2)), wherever its names go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boxtools.catalogue import ModelFile, Tier
from boxtools.copyfile import PART, Seen, clone, copy, discard, held, place, second_name, sync
from boxtools.errors import Trouble, WrongUse
from boxtools.hashes import sha256
from boxtools.settings import Settings
from boxtools.statefile import flush, read_json, write_json

JOURNAL = "move.json"
DEPLOY_LOCK = Path("/run/strixbox/run")  # strixbox/layout.py: held while a deploy works here


@dataclass(frozen=True)
class Move:
    """One file's move; ``link`` leaves a link at the source."""

    source: Path
    target: Path
    link: bool

    def plain(self) -> dict[str, str | bool]:
        """For the journal."""
        return {"source": str(self.source), "target": str(self.target), "link": self.link}

    @property
    def part(self) -> Path:
        """Where the content is until it is complete; a name that the deploy uses too."""
        return self.target.with_name(f"{self.target.name}{PART}")

    @property
    def staged(self) -> Path:
        """A second name of the source until it takes the target's place.

        Never its part, which is written into: that would be the source.
        """
        return _aside(self.target)


def planned_move(model: ModelFile, to: Tier, settings: Settings) -> Move:
    """The move of a model to the other tier.

    Raises:
        WrongUse: where there is no archive, or the model is a link of the user's.
        Trouble: where the archive's disk is not there.
    """
    if settings.archive is None:
        raise WrongUse("this box has one tier; set models_archive and run the deploy")
    if not settings.archive.is_dir():
        # A move would make it: on the system disk, and hidden once the archive's is mounted.
        raise Trouble(
            f"{settings.archive} is not there; mount the archive's disk, or run the deploy, which"
            " makes the directory"
        )
    if model.leads_to is not None:
        raise WrongUse(
            f"{model.path} is reached through a link of yours, to {model.leads_to}; it is left as"
            " it is"
        )
    root = settings.archive if to == "archive" else settings.active
    return Move(source=model.path, target=root / model.folder / model.name, link=to == "archive")


@contextlib.contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """Hold the tiers: one move at a time, and none while a deploy works on this box.

    Raises:
        Trouble: where somebody else holds them, or the state is not there.
    """
    path = settings.state / "tiers.lock"
    try:
        # Read-only suffices for flock, also where root made the file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Trouble(
            f"{path} cannot be opened: {error.strerror}; run the command as the models' owner,"
            " or run the deploy once more"
        ) from None
    try:
        _take(descriptor, "models are being moved by another command; wait until it is done")
        if is_locked(DEPLOY_LOCK):
            raise Trouble("a deploy works on this box; move models when it is done")
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path, locks: Path = Path("/proc/locks")) -> bool:
    """Whether somebody holds a lock on ``path``, which only root may open.

    /proc/locks names a file by its device and inode (proc_locks(5)), which stat may tell anybody.
    """
    try:
        info = path.stat()
        held = locks.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    name = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    return any(name in line.split() for line in held.splitlines())


def _take(descriptor: int, sentence: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Trouble(sentence) from None


def cut_move(settings: Settings) -> Move | None:
    """The move that was begun and not ended, if any; also one that is under way."""
    told = read_json(settings.state / JOURNAL)
    if not isinstance(told, dict):
        return None
    source, target, link = (told.get(name) for name in ("source", "target", "link"))
    if not (isinstance(source, str) and isinstance(target, str) and isinstance(link, bool)):
        return None
    return Move(Path(source), Path(target), link) if source and target else None


def recover(settings: Settings) -> str | None:
    """Finish or clean up a move that was cut; call it with the lock held. Says what it did.

    Raises:
        Trouble: where it cannot.
    """
    for left in settings.state.glob(f"{JOURNAL}.*.new"):
        left.unlink(missing_ok=True)
    cut = cut_move(settings)
    if cut is None:
        return None
    try:
        if _is_file(cut.source) and _is_file(cut.target):
            move_file(cut)
            said = f"{cut.target}: a move that was cut is finished"
        else:
            # Either the source is whole, or the target took its place and all was done.
            said = f"{cut.source}: what a move that was cut left behind is removed"
    except OSError as error:
        raise _trouble(cut, error) from None
    finally:  # told once; where both files are there and differ, that is now the user's to settle
        _clean(cut)
        (settings.state / JOURNAL).unlink(missing_ok=True)
    return said


def carry_out(move: Move, settings: Settings, seen: Seen = lambda _: None) -> str | None:
    """Move one file, written down beforehand; call it with the lock held.

    ``seen`` is told bytes, up to twice the size: those that were copied and those that were read
    back. Returns the content's hash where it was read.

    Raises:
        Trouble: where it cannot be moved; nothing is lost.
    """
    write_json(settings.state / JOURNAL, move.plain())
    try:
        digest = move_file(move, seen)
    except OSError as error:
        raise _trouble(move, error) from None
    finally:  # after Ctrl-C too
        _clean(move)
        (settings.state / JOURNAL).unlink(missing_ok=True)
    return digest


def _trouble(move: Move, error: OSError) -> Trouble:
    return Trouble(
        f"{move.source} could not be moved to {move.target}: {error.strerror or error};"
        " nothing is lost: mend that and move it again"
    )


def _clean(move: Move) -> None:
    discard(move.part)
    for path in (move.staged, _aside(move.source)):
        with contextlib.suppress(OSError):
            path.unlink()


def move_file(move: Move, seen: Seen = lambda _: None, copy_only: bool = False) -> str | None:
    """The move itself, from wherever an earlier one was cut.

    Raises:
        OSError: where the system refuses a step.
        Trouble: where something of the user's is in the way, or the disk has no room or fails.
    """
    source, target = move.source, move.target
    if not _is_file(source):
        raise Trouble(f"{source} is no file (any more); see: strixbox models list")
    _refuse_one_place(source, target)
    digest = None
    if _is_file(target):
        digest = _same_content(move)
    else:
        if os.path.lexists(target) and not _leads_to(target, source):
            raise Trouble(f"{target} is in the way and not this model; move it away first")
        _make_directory(target.parent, source.parent)
        digest = _bring(move, seen, copy_only)
    if move.link:
        link_to_archive(source, target)
    else:
        source.unlink()
    flush(source.parent)
    return digest


def _refuse_one_place(source: Path, target: Path) -> None:
    """Where both tiers are one place by a link or a bind mount, freeing the source loses both."""
    with contextlib.suppress(FileNotFoundError):
        same = source.parent.samefile(target.parent)
        if not same and _is_file(target) and source.samefile(target):
            same = source.stat().st_nlink < 2
        if same:
            raise Trouble(
                f"{source} and {target} are one place by a link or mount of yours; there is"
                " nothing to move"
            )


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _leads_to(link: Path, path: Path) -> bool:
    return link.is_symlink() and link.resolve() == path.resolve()


def _same_content(move: Move) -> str | None:
    """Whether the target is what an earlier, cut move brought there, or an equal copy."""
    if move.source.samefile(move.target):
        return None
    digest = sha256(move.target)
    if move.source.stat().st_size != move.target.stat().st_size or digest != sha256(move.source):
        raise Trouble(
            f"{move.source} and {move.target} both exist and differ; both were left alone: remove"
            " or rename the one that you do not want"
        )
    # Copies of the user's own may not be on the disk yet.
    sync(move.target)
    flush(move.target.parent)
    return digest


def _make_directory(directory: Path, like: Path) -> None:
    """A directory with the owner of the one on the other side, and those above it."""
    if directory.is_dir():
        return
    _make_directory(directory.parent, like)
    directory.mkdir()
    _own(directory, like.stat())
    flush(directory.parent)


def _own(path: Path, info: os.stat_result) -> None:
    # Only root can give files away; the user's own copies are the user's.
    with contextlib.suppress(PermissionError):
        os.chown(path, info.st_uid, info.st_gid, follow_symlinks=False)


def _bring(move: Move, seen: Seen, copy_only: bool) -> str | None:
    """Have the content at the target, by the cheapest way that the disks allow."""
    source, target, part = move.source, move.target, move.part
    move.staged.unlink(missing_ok=True)  # of an earlier, cut move; never written into
    if not copy_only and second_name(source, move.staged):
        place(move.staged, target)
        flush(target.parent)
        return None
    before = source.stat()
    digest = None
    with held(part) as new:
        os.ftruncate(new, 0)  # an earlier, cut move's
        if copy_only or not clone(source, new):
            digest = copy(source, part, new, seen)
        _own(part, before)
        shutil.copystat(source, part)  # the times too: plans go by that of the last use
        os.fsync(new)
        if _identity(source.stat()) != _identity(before):
            raise Trouble(f"{source} was written while it was moved; it stays: move it again later")
        place(part, target)
    flush(target.parent)
    return digest


def _identity(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_size, info.st_mtime_ns, info.st_ino


def link_to_archive(active: Path, archived: Path) -> None:
    """Have the active place lead to the archive, by one rename, in the deploy's own words.

    Raises:
        OSError: where it cannot be made.
    """
    aside = _aside(active)
    aside.unlink(missing_ok=True)
    aside.symlink_to(archived)
    _own(aside, archived.stat())
    aside.replace(active)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.strixbox-new")
