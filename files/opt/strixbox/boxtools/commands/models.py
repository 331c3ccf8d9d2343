"""``strixbox models``: list, move, check and download models."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.markup import escape

from boxtools import download as downloads
from boxtools import models_view, output, tiers
from boxtools.catalogue import ModelFile, Tier, choose, find_models, lost_links, refuse_lost
from boxtools.errors import Trouble, WrongUse
from boxtools.hashes import Hashes, Verified, managed_model, verify
from boxtools.models_view import printable
from boxtools.output import Progress, json_option, remarks, show, size
from boxtools.settings import ManagedModel, Settings, load
from boxtools.tierplan import Proposal, propose


class ListByDefault(click.Group):
    """``strixbox models [OPTIONS]`` is ``strixbox models list [OPTIONS]``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` where no sub-command is named."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def amount(text: str) -> int:
    """Bytes of a size such as 100G; the units are binary."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([KMGT]?)(i?B)?", text, re.I)
    if match is None:
        raise WrongUse(f"{text!r} is no size; write it as 100G")
    return int(float(match[1]) * 1024.0 ** " KMGT".index(match[2].upper() or " "))


dry_option = click.option("--dry", is_flag=True, help="Only tell what would be moved.")


@click.group(cls=ListByDefault)
def command() -> None:
    """List, move, check and download models."""


@command.command("list")
@click.option("--folder", help="Only this folder, e.g. checkpoints.")
@json_option
def list_models(folder: str | None, as_json: bool) -> None:
    """Every model with its tier, kind, size, last use, and share in the page cache.

    The last use is the time of the last read that the disk keeps: to a day, as mounts with relatime
    renew it once a day, and unknown where the mount is noatime.
    """
    settings = load()
    models = find_models(settings, kinds=True, resident=True)
    if folder is not None:
        known = sorted({model.folder for model in models})
        models = [model for model in models if model.folder == folder]
        if not models and folder not in known and not (settings.active / folder).is_dir():
            raise WrongUse(f"there is no folder {folder!r}; there are: {', '.join(known)}")
    lost = lost_links(settings)
    cut = tiers.cut_move(settings)
    value = {
        "models": [model.plain() for model in models],
        "lost_links": [str(path) for path in lost],
        "cut_move": str(cut.source) if cut else None,
    }
    show(value, as_json, models_view.models(models))
    if lost:
        names = ", ".join(str(path) for path in lost[:5])
        _remark(f"links that lead nowhere ({len(lost)}); is the archive's disk mounted? {names}")
    if cut:
        _remark(f"{cut.source}: a move is under way, or was cut; the next move finishes it")
    if any(model.used is None for model in models):
        _remark("the last use of some is unknown: their disk is mounted noatime")


@command.command()
@click.argument("names", nargs=-1, required=True)
@dry_option
def archive(names: tuple[str, ...], dry: bool) -> None:
    """Move models to the archive tier; ComfyUI reaches them through links."""
    _move(names, "archive", dry)


@command.command()
@click.argument("names", nargs=-1, required=True)
@dry_option
def activate(names: tuple[str, ...], dry: bool) -> None:
    """Move models to the active tier."""
    _move(names, "active", dry)


def _move(names: Sequence[str], to: Tier, dry: bool) -> None:
    settings = load()
    if dry:
        _move_all(settings, _to_move(settings, names, to), to, dry=True)
        return
    with tiers.lock(settings):
        _recover(settings)
        _move_all(settings, _to_move(settings, names, to), to, dry=False)


def _recover(settings: Settings) -> None:
    said = tiers.recover(settings)
    if said:
        _remark(said)


def _to_move(settings: Settings, names: Sequence[str], to: Tier) -> list[ModelFile]:
    refuse_lost(settings, names)
    chosen = choose(find_models(settings), names)
    moving = [model for model in chosen if model.tier != to]
    for model in chosen:
        if model.tier == to and model.key not in {other.key for other in moving}:
            _remark(f"{model.key} is in the {to} tier already")
    return moving


def _move_all(settings: Settings, models: Sequence[ModelFile], to: Tier, dry: bool) -> None:
    # All of them are checked before the first is moved.
    moves = [(model, tiers.planned_move(model, to, settings)) for model in models]
    hashes = Hashes.load(settings)
    for model, move in moves:
        managed = managed_model(settings, model.key)
        if managed and managed.tier != to:
            _remark(
                f"{model.key} is managed: the next deploy moves it back, unless its tier in"
                f' models_manifest is set to "{to}"'
            )
        if dry:
            _say(f"{move.source} -> {move.target} ({size(model.size)})")
            continue
        begun = time.monotonic()
        with Progress(escape(printable(model.key)), 2 * model.size >> 20, "MiB") as progress:
            digest = tiers.carry_out(move, settings, _after(0, progress))
        seconds = time.monotonic() - begun
        before = hashes.wanted(model.key, managed)
        hashes.moved(move.source, move.target, digest, model.key)
        hashes.save()
        rate = f" ({size(model.size / seconds)}/s)" if digest and model.size >= 1 << 20 else ""
        _say(f"{model.key}: in the {to} tier, {size(model.size)} in {seconds:.1f} s{rate}")
        if digest and before and digest != before:
            _remark(
                f"{model.key} is not what its recorded sha256 says, and was not before the move;"
                f" see: strixbox models verify {shlex.quote(model.key)}"
            )


@command.command("verify")
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Read also what has not changed since the last time.")
@click.option("--accept", is_flag=True, help="Record changed models of your own as they are now.")
@json_option
@click.pass_context
def verify_models(
    ctx: click.Context, names: tuple[str, ...], again: bool, accept: bool, as_json: bool
) -> None:
    """Compare models with their sha256: the manifest's, or the one recorded at first use.

    What cannot be loaded is never recorded. Exit code 1 where one is not what it should be.
    """
    if accept and not names:
        raise WrongUse("name the models whose change you accept")
    settings = load()
    models = find_models(settings)
    refuse_lost(settings, names)
    models = choose(models, names) if names else models
    hashes = Hashes.load(settings)
    if accept:
        for model in models:
            hashes.first.pop(model.key, None)
    total = sum(m.size for m in models if again or hashes.known(m.path) is None)
    results: list[Verified] = []
    read = 0
    with Progress("verify", total >> 20, "MiB") as progress:
        for model in models:
            managed = managed_model(settings, model.key)
            result = verify(model, hashes, managed, again, _after(read, progress))
            read += model.size if result.read else 0
            results.append(result)
            if result.read or accept:
                hashes.save()  # what was read needs not be read again after Ctrl-C
    plain = [vars(r) | {"path": str(r.path), "good": r.good} for r in results]
    show({"models": plain}, as_json, models_view.verified(results))
    bad = [result for result in results if not result.good]
    for result in bad:
        if result.trouble:
            _remark(f"{result.path}: {result.trouble}")
    if bad:
        _remark(
            f"{len(bad)} of {len(results)} are not what they should be; download them again, or"
            " accept a change of your own that can be loaded with: strixbox models verify --accept"
            " NAME"
        )
        ctx.exit(1)


@command.command("download")
@click.argument("names", nargs=-1)
@click.option("--url", help="Another file than those of models_manifest.")
@click.option("--folder", help="Folder for --url, e.g. loras.")
@click.option("--name", help="Its name where the URL does not end in it.")
@click.option("--sha256", help="The hash that it must have.")
def download_models(
    names: tuple[str, ...],
    url: str | None,
    folder: str | None,
    name: str | None,
    sha256: str | None,
) -> None:
    """Download models of the manifest by NAME, or any file by --url; a cut download goes on."""
    settings = load()
    if bool(names) == bool(url):
        raise WrongUse("name models of models_manifest, or give --url and --folder")
    if url is None:
        if folder or name or sha256:
            raise WrongUse("--folder, --name and --sha256 belong to --url")
        for managed in _managed(settings, names):
            _download_managed(settings, managed)
        return
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise WrongUse("--sha256 is 64 hexadecimal digits")
    file = downloads.file_name(url) if name is None else name
    file = downloads.checked_name(file, f"{file!r} is no model file's name")
    path = _folder(settings, folder) / file
    _download(settings, url, path, f"{path.parent.name}/{file}", sha256.lower() if sha256 else None)


def _folder(settings: Settings, folder: str | None) -> Path:
    known = sorted(path.name for path in settings.active.glob("*/"))
    if folder not in known:
        asked = f"there is no folder {folder!r}" if folder else "give --folder"
        raise WrongUse(f"{asked}; there are: {', '.join(known)}")
    return settings.active / folder


def _managed(settings: Settings, names: Sequence[str]) -> list[ManagedModel]:
    places = {f"{m.folder}/{m.name}": m for m in settings.models}
    # Models that are not there yet, in the shape of those that are.
    wanted = [
        ModelFile(m.folder, m.name, m.tier, settings.active / m.folder / m.name, m.bytes or 0)
        for m in settings.models
    ]
    chosen = [places[model.key] for model in choose(wanted, names)]
    without = [f"{m.folder}/{m.name}" for m in chosen if not m.url]
    if without:
        raise WrongUse(f"{', '.join(without)} has no url in models_manifest; give --url")
    return chosen


def _download_managed(settings: Settings, managed: ManagedModel) -> None:
    active = settings.active / managed.folder / managed.name
    home = active
    if managed.tier == "archive" and settings.archive:
        home = settings.archive / managed.folder / managed.name
    key = f"{managed.folder}/{managed.name}"
    there = next((model for model in find_models(settings) if model.key == key), None)
    path = there.path if there else home
    _download(settings, managed.url or "", path, key, managed.sha256)
    if path != active and not os.path.lexists(active):
        tiers.link_to_archive(active, path)


def _download(settings: Settings, url: str, path: Path, key: str, sha256: str | None) -> None:
    hashes = Hashes.load(settings)
    wanted = downloads.Wanted(url, path, sha256 or hashes.urls.get(url))
    found = downloads.already_there(wanted)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        try:
            with Progress(escape(printable(key)), 0, "MiB") as progress:
                found = downloads.download(wanted, lambda done, total: _at(progress, done, total))
        except KeyboardInterrupt:
            kept = wanted.part.stat().st_size if wanted.part.exists() else 0
            if kept:
                _remark(f"{key}: {size(kept)} are kept; the same command goes on from there")
            raise
        seconds = time.monotonic() - begun
        _say(f"{key}: {size(path.stat().st_size)} in {seconds:.1f} s, sha256 {found}")
    else:
        _say(f"{key}: is there already, sha256 {found}")
    if wanted.sha256 is None:
        _remark(f"{key}: nobody says which sha256 it should have; this one is recorded")
    hashes.urls.setdefault(url, found)
    hashes.note(path, found, key)
    hashes.save()


def _after(base: int, progress: Progress) -> Callable[[int], None]:
    """Shows bytes on a bar of MiB, on top of those that are done already."""
    return lambda done: progress.at((base + done) >> 20)


def _at(progress: Progress, done: int, total: int | None) -> None:
    if total and progress.total != total >> 20:
        progress.total = total >> 20
        if progress.bar:
            progress.bar.update(progress.task, total=total >> 20)
    progress.at(done >> 20)


@command.command()
@click.option("--free", type=amount, help="Room wanted on the active tier's disk, e.g. 100G.")
@click.option("--days", type=output.FiniteRange(0), default=30.0, show_default=True)
@click.option("--apply", is_flag=True, help="Do it.")
@dry_option
@json_option
def plan(free: int | None, days: float, apply: bool, dry: bool, as_json: bool) -> None:
    """Propose moves: models unused for that many DAYS to the archive, used ones back."""
    settings = load()
    if apply and not dry:
        with tiers.lock(settings):
            _recover(settings)
            proposal = _propose(settings, free, days)
            _show_plan(proposal, as_json)
            _move_all(settings, proposal.archive, "archive", dry=False)
            _move_all(settings, proposal.activate, "active", dry=False)
    else:
        _show_plan(_propose(settings, free, days), as_json)


def _propose(settings: Settings, free: int | None, days: float) -> Proposal:
    if settings.archive is None:
        raise WrongUse("this box has one tier; set models_archive and run the deploy")
    rooms = []
    for root in (settings.active, settings.archive):
        try:
            disk = os.statvfs(root)
        except OSError as error:
            raise Trouble(f"{root} cannot be asked for its room: {error.strerror}") from None
        rooms.append(disk.f_bavail * disk.f_frsize)
    if settings.active.stat().st_dev == settings.archive.stat().st_dev:
        _remark("both tiers are on one file system: moves give no room; is the disk mounted?")
    managed = frozenset(f"{m.folder}/{m.name}" for m in settings.models)
    return propose(find_models(settings), managed, time.time(), days, free, rooms[0], rooms[1])


def _show_plan(proposal: Proposal, as_json: bool) -> None:
    commands = [
        shlex.join(["strixbox", "models", verb, *(model.key for model in models)])
        for verb, models in (("archive", proposal.archive), ("activate", proposal.activate))
        if models
    ]
    value = {
        "archive": [model.plain() for model in proposal.archive],
        "activate": [model.plain() for model in proposal.activate],
        "free": proposal.free,
        "free_after": proposal.after,
        "missing": proposal.missing,
        "managed": [model.key for model in proposal.kept],
        "commands": commands,
    }
    show(value, as_json, models_view.moves(proposal))
    if not as_json:
        for words in commands:
            _say(words)
    _remark(f"free on the active tier's disk: {size(proposal.free)}, then {size(proposal.after)}")
    if proposal.missing:
        _remark(f"{size(proposal.missing)} less than wanted: the other models were used, or stay")
    if proposal.full:
        _remark("the archive has no room for some that would go there")
    if proposal.kept:
        names = ", ".join(model.key for model in proposal.kept)
        _remark(f"by their use, set another tier in models_manifest for: {names}")
    if proposal.unknown:
        _remark(f"{proposal.unknown} models stay: their last use is unknown (mounted noatime)")


def _say(line: str) -> None:
    click.echo(printable(line))


def _remark(line: str) -> None:
    remarks().print(escape(printable(line)), soft_wrap=True)
