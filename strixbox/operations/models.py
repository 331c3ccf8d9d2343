"""Model files in their tiers."""

from __future__ import annotations

from typing import Any

from pyinfra.context import host

from strixbox.config import Models
from strixbox.facts import ModelTier, VerifiedFiles
from strixbox.ground import tier_folders
from strixbox.layout import RECORDS
from strixbox.models import Places, Step, obstacles, plan, unmounted
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import user_directories
from strixbox.programs import write


@box_operation
def archive_tier(path: str, user: str) -> Steps:
    """Have the archive's directories, on a disk that is there.

    + path: models directory of the archive tier
    + user: the account that owns what is made
    """
    tier = ask(ModelTier, path=path)
    trouble = unmounted(path, tier)
    if trouble:
        raise BoxTrouble("; ".join(trouble) + ".")
    yield from user_directories._inner(user=user, paths=(path, *tier_folders(path)))


@box_operation
def model_files(models: Models, active: str, user: str) -> Steps:
    """Have every model of the manifest where it belongs: downloaded, moved, adopted or linked.

    + models: the manifest and the archive's directory
    + active: models directory of the active tier
    + user: the account that owns the tiers, and as which all of it is done

    One question for the whole manifest; files that are not in it are never touched.
    """
    todo = plan(models.manifest, active, models.archive, ask_models(models, active, user))
    if not todo:
        host.noop(f"{len(models.manifest)} models are where they belong")
        return
    for step in todo:
        say(step.words())
    refuse_blocked(todo)
    moves = [step for step in todo if step.action == "move"]
    fetches = [step for step in todo if step.action in ("fetch", "adopt")]
    links = [step for step in todo if step.action == "link"]
    if moves:
        yield write("move_file", {"items": [_moving(s) for s in moves], "owner": user}, live=True)
    if fetches:
        items = [_having(step, user) | {"link": step.source or None} for step in fetches]
        yield write("fetch_files", {"items": items, "records": RECORDS}, live=True)
    if links:
        pairs = [[step.path, step.source] for step in links]
        yield write("link_files", {"links": pairs, "owner": user})
    # A moved file has another inode: it is checked once more and recorded at its new place.
    if moves:
        items = [_having(step, user) for step in moves]
        yield write("fetch_files", {"items": items, "records": RECORDS}, live=True)


def ask_models(models: Models, active: str, user: str) -> dict[str, Any]:
    """What is at the places of the manifest's models, as ``user`` sees it.

    + models: the manifest and the archive's directory
    + active: models directory of the active tier
    + user: the account that owns the tiers

    One question, in the same words wherever it is asked: a run that changes nothing asks once.
    """
    places = (Places.of(model, active, models.archive) for model in models.manifest)
    paths = tuple(path for both in places for path in both.all())
    return ask(VerifiedFiles, paths=paths, records=RECORDS, user=user)


def _moving(step: Step) -> dict[str, Any]:
    return {
        "source": step.source,
        "target": step.path,
        "link": step.link or None,
        "sha256": step.sha256,
    }


def _having(step: Step, user: str) -> dict[str, Any]:
    model = step.model
    return {"url": model.url, "path": step.path, "sha256": model.sha256, "owner": user}


def refuse_blocked(todo: list[Step]) -> None:
    """Stop where something else stands in a model's place, or a model has no source.

    Raises:
        BoxTrouble: naming every such path.
    """
    found = obstacles(todo)
    if found:
        raise BoxTrouble(" ".join(f"{evidence}; {mend}." for evidence, mend in found))
