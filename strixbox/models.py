"""Where each model of the manifest belongs, and the steps from where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from strixbox.config import Model

Action = Literal["fetch", "adopt", "move", "link", "blocked", "missing"]
State = Mapping[str, Any]
WORDS: dict[Action, str] = {
    "fetch": "is to be downloaded",
    "adopt": "is there, and its content is to be checked by its sha256",
    "move": "is to be moved here from {source}",
    "link": "is to be a link to {source}",
    "blocked": "is {stands}, and in the way of the model",
    "missing": "is not there, and the model has no url",
}


@dataclass(frozen=True)
class Step:
    """One thing to do for a model.

    + source: what is moved or linked to; of a download, where the link leads that it replaces
    + link: where a move leaves a link, for ComfyUI to find the model by
    + sha256: the content that a move takes only; None: any
    + stands: what is in the way
    """

    action: Action
    model: Model
    path: str
    source: str = ""
    link: str = ""
    sha256: str | None = None
    stands: str = ""

    def words(self) -> str:
        """What is to be done, for somebody who does not know this program."""
        told = WORDS[self.action].format(source=self.source, stands=self.stands)
        if self.action in ("fetch", "missing") and self.source:
            told += f" (the link leads to {self.source}, where nothing is)"
        return f"{self.path} {told}"


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
    model: Model, places: Places, files: Mapping[str, State], urls: Mapping[str, str]
) -> list[Step]:
    """What brings a model from where it is to where it belongs, in order.

    A file is moved by copy, check, link, remove (strixbox/box/move_file.py). A model of the archive
    tier is reached through a link at its active place. Files that are not the model's are left
    alone and named.
    """
    home = places.home(model)
    result = _at_home(model, places, files, urls)
    if home == places.active or (result and result[-1].action in ("move", "blocked", "missing")):
        return result
    link = files[places.active]
    if link["kind"] == "absent":
        result.append(Step("link", model, places.active, home))
    elif link["kind"] == "file":
        if not _one_file(link, files[home]):
            wanted = _wanted(model, urls)
            result.append(Step("move", model, home, places.active, places.active, wanted))
    elif link.get("target") != home:
        result.append(_led_anew(model, places, files, urls))
    return result


def _at_home(
    model: Model, places: Places, files: Mapping[str, State], urls: Mapping[str, str]
) -> list[Step]:
    """What has the file at its home; the last of them is a move where one does all the rest."""
    home = places.home(model)
    other = next((path for path in places.all() if path != home), None)
    at_home, at_other = files[home], files[other] if other else {"kind": "absent"}
    result: list[Step] = []
    wanted = _wanted(model, urls)
    if at_home["kind"] == "file":
        if at_home["sha256"] is None or (wanted and at_home["sha256"] != wanted):
            result.append(Step("adopt", model, home))
        if other and home == places.active and _left_by_a_move(at_home, at_other):
            result.append(Step("move", model, home, other, sha256=wanted))
        return result
    former = _former(files[places.active])
    leads = at_home.get("target") if at_home["kind"] == "link" else None
    ours = leads == other or (home == places.active and former)
    if at_home["kind"] == "other" or (leads and not ours):
        return [_blocked(model, home, at_home)]
    kept = places.active if home != places.active else ""
    if other and at_other["kind"] == "file":
        return [Step("move", model, home, other, kept, wanted)]
    if former and former["kind"] == "file":
        source = files[places.active]["target"]
        return [Step("move", model, home, source, kept, wanted or former["recorded"])]
    if former and former["kind"] != "absent":
        return [_blocked(model, places.active, files[places.active])]
    return [Step("fetch" if model.url else "missing", model, home, leads or "")]


def _led_anew(
    model: Model, places: Places, files: Mapping[str, State], urls: Mapping[str, str]
) -> Step:
    """What is done about a link that leads elsewhere than to the model's home in the archive."""
    home, link = places.home(model), files[places.active]
    former = _former(link)
    if former and former["kind"] == "file" and not _one_file(former, files[home]):
        # A move from there that was cut before the link; what differs is left alone.
        source = link["target"]
        wanted = _wanted(model, urls) or former["recorded"]
        return Step("move", model, home, source, places.active, wanted)
    if former and former["kind"] in ("file", "absent"):
        return Step("link", model, places.active, home)
    return _blocked(model, places.active, link)


def _wanted(model: Model, urls: Mapping[str, str]) -> str | None:
    """The content that a model has: by the manifest, or as it was at first use."""
    return model.sha256 or urls.get(model.url or "")


def _blocked(model: Model, path: str, state: State) -> Step:
    """What stands at a path is somebody's, and no file."""
    stands = _named(state)
    former = _former(state)
    if former and former["kind"] not in ("file", "absent"):
        stands += f", which is {_named(former)}"
    return Step("blocked", model, path, stands=stands)


def _named(state: State) -> str:
    return f"a link to {state['target']}" if state["kind"] == "link" else str(state["what"])


def _former(link: State) -> State | None:
    """The place that a link leads to, where this toolkit once had a file of its own there.

    models_archive was another one then. A link to anything else is its owner's.
    """
    former: State | None = link.get("former")
    return former


def _one_file(one: State, other: State) -> bool:
    """Whether two names lead to one file: a folder that is a link, or a disk mounted twice."""
    return one.get("inode") is not None and one.get("inode") == other.get("inode")


def _left_by_a_move(home: State, other: State) -> bool:
    """Whether a move to the active tier was cut before its last step, the source's removal.

    Only a file that was managed in the archive has a hash on record there; a copy that the user
    keeps has none and is left alone. The hashes of both are compared once more before one goes.
    """
    known = other.get("sha256") if other["kind"] == "file" else None
    return known is not None and home["sha256"] in (None, known) and not _one_file(home, other)


def plan(
    manifest: tuple[Model, ...], active: str, archive: str | None, known: Mapping[str, Any]
) -> list[Step]:
    """Steps of the whole manifest."""
    return [
        step
        for model in manifest
        for step in steps(model, Places.of(model, active, archive), known["files"], known["urls"])
    ]


def obstacles(todo: list[Step]) -> list[tuple[str, str]]:
    """What stops the steps as a whole: evidence and mend."""
    blocked = [step for step in todo if step.action == "blocked"]
    missing = [step.words() for step in todo if step.action == "missing"]
    found = []
    if blocked:
        mend = "move it away"
        if any(step.stands.startswith("a link to ") for step in blocked):
            mend = (
                "where a link leads into an archive set models_archive to that, else move it away"
            )
        found.append(("; ".join(step.words() for step in blocked), f"{mend}; then run again"))
    if missing:
        mend = "put it there (or mount its disk), or give it a url in models_manifest"
        found.append(("; ".join(missing), mend))
    return found


def unmounted(archive: str, tier: Mapping[str, Any]) -> tuple[str, str] | None:
    """Evidence and mend where the archive's directory is not there; None where it may be used.

    + tier: what strixbox/box/model_tier.py tells
    """
    if tier["exists"] or tier["other_disk"]:
        return None
    return (
        f"models_archive {archive} does not exist and would fill the system disk",
        "mount the archive disk there, or create the directory yourself if that is meant",
    )


def crowded(
    todo: list[Step], known: Mapping[str, Any], freed: Mapping[int, int]
) -> Iterator[tuple[str, str]]:
    """Evidence and mend for every model that its disk has no room for.

    A move copies before it removes. Of a download the room is known where the manifest has its
    ``bytes``.

    + known: what strixbox/box/verified_files.py tells
    + freed: bytes by device that this run makes free before
    """
    rooms, files = known["rooms"], known["files"]
    left = {room["device"]: room["free"] for room in rooms.values()}
    left = {device: free + freed.get(device, 0) for device, free in left.items()}
    # The operation's own order (strixbox/operations/models.py).
    for step in sorted(todo, key=lambda step: step.action != "move"):
        if step.action not in ("move", "fetch") or files[step.path]["kind"] == "file":
            continue
        size = _size(step, files)
        folder = str(PurePosixPath(step.path).parent)
        device = rooms[folder]["device"]
        left[device] += files[step.path].get("part", 0)
        if size > left[device]:
            evidence = (
                f"{folder} has {max(left[device], 0) / 2**30:.1f} GiB free and {step.model.name}"
                f" needs {size / 2**30:.1f}"
            )
            yield evidence, "free disk room there, or give the model another tier"
        left[device] -= size
        if step.action == "move":
            source = rooms.get(str(PurePosixPath(step.source).parent))
            if source:
                left[source["device"]] += size


def _size(step: Step, files: Mapping[str, State]) -> int:
    if step.action == "fetch":
        return step.model.bytes or 0
    at_source = files.get(step.source)
    if at_source is None:  # no place of today's
        link = next(f for f in files.values() if f.get("target") == step.source)
        at_source = link["former"]
    return int(at_source["size"])
