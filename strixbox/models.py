"""Where each model of the manifest belongs, and the steps from where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from strixbox.config import Model

Action = Literal["nothing", "fetch", "adopt", "move", "link", "unlink", "blocked", "missing"]


@dataclass(frozen=True)
class Step:
    """One thing to do for a model; ``source`` only for a move."""

    action: Action
    model: Model
    path: str
    source: str = ""

    def leaves_a_link(self, active: str) -> bool:
        """Whether a move leaves a link at the old place, for ComfyUI to find the model by."""
        return self.source.startswith(f"{active}/")


@dataclass(frozen=True)
class Places:
    """The two places of a model; ``archive`` is None where there is one tier."""

    active: str
    archive: str | None

    @classmethod
    def of(cls, model: Model, active: str, archive: str | None) -> Places:
        """Places of ``model`` below the tiers' directories."""
        tail = f"{model.folder}/{model.name}"
        return cls(f"{active}/{tail}", f"{archive}/{tail}" if archive else None)

    def home(self, model: Model) -> str:
        """Where the file itself belongs."""
        return self.archive if model.tier == "archive" and self.archive else self.active

    def all(self) -> tuple[str, ...]:
        """Every place that exists."""
        return (self.active, self.archive) if self.archive else (self.active,)


def steps(
    model: Model, places: Places, files: Mapping[str, Mapping[str, Any]], urls: Mapping[str, str]
) -> list[Step]:
    """What brings a model from where it is to where it belongs, in order.

    A file is moved by copy, check, link, remove (strixbox/box/move_file.py). A model of the archive
    tier is reached through a link at its active place. Files that are not the model's are left
    alone and named.
    """
    home = places.home(model)
    other = next((path for path in places.all() if path != home), None)
    at_home = files[home]
    result: list[Step] = []
    if at_home["kind"] == "file":
        wanted = model.sha256 or urls.get(model.url or "")
        if at_home["sha256"] is None or (wanted and at_home["sha256"] != wanted):
            result.append(Step("adopt", model, home))
        if other and home == places.active and _left_by_a_move(files[home], files[other]):
            result.append(Step("move", model, home, other))
    elif at_home["kind"] in ("other",) or (
        at_home["kind"] == "link" and at_home.get("target") != other
    ):
        return [Step("blocked", model, home)]
    elif other and files[other]["kind"] == "file":
        return [Step("move", model, home, other)]
    elif model.url:
        result.append(Step("fetch", model, home))
    else:
        return [Step("missing", model, home)]
    if home != places.active:
        link = files[places.active]
        if link["kind"] == "absent":
            result.append(Step("link", model, places.active, home))
        elif link["kind"] == "file":
            result.append(Step("move", model, home, places.active))
        elif link.get("target") != home:
            result.append(Step("blocked", model, places.active))
    return result


def _left_by_a_move(home: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a move to the active tier was cut before its last step, the source's removal.

    Only a file that was managed in the archive has a hash on record there; a copy that the user
    keeps has none and is left alone. The hashes of both are compared once more before one goes.
    """
    known = other.get("sha256") if other["kind"] == "file" else None
    return known is not None and home["sha256"] in (None, known)


def plan(
    manifest: tuple[Model, ...], active: str, archive: str | None, known: Mapping[str, Any]
) -> list[Step]:
    """Steps of the whole manifest."""
    return [
        step
        for model in manifest
        for step in steps(model, Places.of(model, active, archive), known["files"], known["urls"])
    ]
