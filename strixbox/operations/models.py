"""Model files in their tiers."""

from __future__ import annotations

from pyinfra.context import host

from strixbox.config import Models
from strixbox.facts import ModelTier, VerifiedFiles
from strixbox.layout import RECORDS
from strixbox.models import Places, Step, plan
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import user_directories
from strixbox.programs import write


@box_operation
def archive_tier(path: str, user: str, folders: tuple[str, ...]) -> Steps:
    """Have the archive's directories, on a disk that is there.

    + path: models directory of the archive tier
    + user: the account that owns what is made
    + folders: folders of models below it
    """
    tier = ask(ModelTier, path=path)
    if not tier["exists"] and not tier["other_disk"]:
        raise BoxTrouble(
            f"models_archive {path} does not exist and would fill the system disk; mount the"
            " archive disk there, or create the directory yourself if that is meant."
        )
    yield from user_directories._inner(
        user=user, paths=(path, *(f"{path}/{folder}" for folder in folders))
    )


@box_operation
def model_files(models: Models, active: str, user: str) -> Steps:
    """Have every model of the manifest where it belongs: downloaded, moved, adopted or linked.

    + models: the manifest and the archive's directory
    + active: models directory of the active tier
    + user: the account that owns the tiers, and as which all of it is done

    One question for the whole manifest; files that are not in it are never touched.
    """
    paths = tuple(
        path for model in models.manifest for path in Places.of(model, active, models.archive).all()
    )
    known = ask(VerifiedFiles, paths=paths, records=RECORDS, user=user)
    todo = plan(models.manifest, active, models.archive, known)
    if not todo:
        host.noop(f"{len(models.manifest)} models are where they belong")
        return
    for step in todo:
        say(f"{step.path}: {step.action}")
    refuse_blocked(todo)
    moves = [step for step in todo if step.action == "move"]
    fetches = [step for step in todo if step.action in ("fetch", "adopt")]
    links = [step for step in todo if step.action == "link"]
    if moves:
        items = [
            {
                "source": step.source,
                "target": step.path,
                "link": step.leaves_a_link(active),
            }
            for step in moves
        ]
        yield write("move_file", {"items": items, "owner": user}, live=True)
    if fetches:
        items = [
            {
                "url": step.model.url,
                "path": step.path,
                "sha256": step.model.sha256,
                "owner": user,
            }
            for step in fetches
        ]
        yield write("fetch_files", {"items": items, "records": RECORDS}, live=True)
    if links:
        pairs = [[step.path, step.source] for step in links]
        yield write("link_files", {"links": pairs, "owner": user})
    # A moved file has another inode: it is checked once more and recorded at its new place.
    if moves:
        items = [
            {"url": s.model.url, "path": s.path, "sha256": s.model.sha256, "owner": user}
            for s in moves
        ]
        yield write("fetch_files", {"items": items, "records": RECORDS}, live=True)


def refuse_blocked(todo: list[Step]) -> None:
    """Stop where something else stands in a model's place, or a model has no source.

    Raises:
        BoxTrouble: naming every such path.
    """
    blocked = [step.path for step in todo if step.action == "blocked"]
    if blocked:
        raise BoxTrouble(
            f"{', '.join(blocked)} is in the way: a link that leads elsewhere than to this box's"
            " models_archive, or no file. If it leads into an archive, set models_archive to that;"
            " else move it away. Then run again."
        )
    missing = [step.path for step in todo if step.action == "missing"]
    if missing:
        raise BoxTrouble(
            f"{', '.join(missing)} is not on the box and has no url; put it there, or give it a url"
            " in models_manifest."
        )
