"""What dead runs leave on a box: where it is looked for, and what of it nobody wants any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strixbox.box._atomic import ASIDE
from strixbox.box._model_files import PART, TAG
from strixbox.config import MODEL_FOLDERS, Config
from strixbox.generation import Generation
from strixbox.layout import (
    BACKUPS,
    BIN,
    BOXTOOLS,
    BUILDER,
    COMMAND,
    CURRENT,
    ETC,
    GENERATION_ID,
    GENERATIONS,
    KEY,
    LIB,
    LOCKS,
    NODES,
    OPT,
    PIN,
    RELEASE_ID,
    RELEASES,
    SOURCE,
    STATE,
    UV_CACHE,
    WHEELS,
)
from strixbox.models import Places
from strixbox.release import Release, file_name

UNITS = "/etc/systemd/system"
# Nothing else fills these directories, and they are small.
TREES = (ETC, BIN, LIB, LOCKS, BOXTOOLS, NODES, GENERATIONS)
OURS = f"{RELEASES}/{RELEASE_ID}"
ASIDES = (
    *(f"{folder}/*{ASIDE}" for folder in (OPT, f"{OPT}/uv", STATE, BACKUPS)),
    # A checkout that is being made has a dot before its name (strixbox/box/checkout.py).
    *(f"{folder}/{dot}*{ASIDE}" for folder in (OURS, f"{OURS}/nodes") for dot in ("", ".")),
    f"/opt/*{ASIDE}",  # a tree of an older ROCm on its way to the backups
    *(f"{UNITS}/{unit}.service{ASIDE}" for unit in ("comfyui", "strixbox-*")),
    *(f"{path}{ASIDE}" for path in (KEY, PIN, SOURCE, COMMAND, "/etc/tmpfiles.d/strixbox.conf")),
    # git's own, in checkouts that are ours: a git that was killed leaves them.
    *(f"{OURS}/{code}/.git/*.lock" for code in ("ComfyUI", "nodes/*")),
    *(f"{folder}/.tmp*" for folder in (UV_CACHE, f"{UV_CACHE}/*")),  # uv's own
)
PREFIXES = ("strixbox-apt-", "strixbox-proof-")  # in /tmp
# A download that nobody's manifest names may be one of `strixbox download`, which resumes it. Older
# ones are not resumed any more (boxtools/doctor/models.py: STALE).
DAY = 86400  # seconds
STALE = 7 * DAY
# pyinfra's helper for sudo belongs to a run that may live, a dry one or one of another project.
HELPER_AGE = DAY


@dataclass(frozen=True)
class Leftover:
    """One file or tree that goes, and the room that it takes on its disk."""

    path: str
    bytes: int
    device: int


def query(cfg: Config, begun: tuple[str, ...] = ()) -> dict[str, Any]:
    """Where strixbox/box/leftovers.py looks on this box.

    + begun: what is measured besides, as the start of what this run is to finish
    """
    active, archive = cfg.comfyui.models_directory, cfg.models.archive
    return {
        "trees": list(TREES),
        "asides": list(ASIDES),
        "edited": ["/etc/fstab"],
        "prefixes": list(PREFIXES),
        "releases": OURS,
        "generations": f"{GENERATIONS}/{GENERATION_ID}",
        "current": CURRENT,
        "wheels": WHEELS,
        "builder": BUILDER,
        "user": cfg.box.user,
        "user_edited": [f"{cfg.box.home}/.bashrc"],
        "tiers": [active, archive] if archive else [active],
        "folders": list(MODEL_FOLDERS),
        "begun": list(begun),
    }


def dead(found: list[dict[str, Any]], cfg: Config, release: Release) -> tuple[Leftover, ...]:
    """What of the candidates goes; what this run resumes, or a living process has, stays.

    + found: what strixbox/box/leftovers.py tells
    + cfg: the box's settings
    + release: the release that shall be in use
    """
    wanted = {release.path, Generation.of(cfg, release).path, *_resumed(cfg)}
    return tuple(
        Leftover(entry["path"], entry["bytes"], entry["device"])
        for entry in found
        if not entry["busy"] and _goes(entry, wanted)
    )


def strays(found: list[dict[str, Any]], trees: list[str]) -> tuple[str, ...]:
    """What an uninstall clears outside of the directories that it removes anyway.

    + found: what strixbox/box/leftovers.py tells
    + trees: what is removed
    """
    return tuple(
        entry["path"]
        for entry in found
        if entry["kind"] in ("aside", "temporary")
        and not entry["busy"]
        and not any(entry["path"].startswith(f"{tree}/") for tree in trees)
    )


def _goes(entry: dict[str, Any], wanted: set[str]) -> bool:
    kind, path = entry["kind"], entry["path"]
    if kind == "release":
        return path not in wanted and not entry["used"]
    if kind == "generation":
        return path not in wanted
    if kind == "download":
        whole = path.removesuffix(TAG).removesuffix(PART)
        old = not entry["user"] or entry["age"] > STALE
        return entry["whole"] or (whole not in wanted and old)
    if kind == "askpass":
        return bool(entry["age"] > HELPER_AGE)
    return bool(kind != "begun")


def _resumed(cfg: Config) -> set[str]:
    """Files whose downloads are continued by this run."""
    active = cfg.comfyui.models_directory
    wheels = {f"{WHEELS}/{file_name(wheel)}" for wheel in cfg.python.wheels}
    places = ((m, Places.of(m, active, cfg.models.archive)) for m in cfg.models.manifest)
    return wheels | {place.home(model) for model, place in places}


def begun(survey: dict[str, Any], cfg: Config, release: Release) -> tuple[str, ...]:
    """What may be there already of what preflight wants room for; a dead run may have filled it.

    + survey: what preflight knows of the box
    """
    built = () if survey["sealed"] else (f"{WHEELS}/{file_name(w)}" for w in release.python.wheels)
    installed = survey["rocm"][1:2] == "i" or not cfg.rocm.version
    packages = () if installed else ("/var/cache/apt/archives", f"/opt/rocm-{cfg.rocm.version}")
    return (*built, *packages)


def by_device(gone: tuple[Leftover, ...]) -> dict[int, int]:
    """The room that leftovers take on each disk."""
    rooms: dict[int, int] = {}
    for one in gone:
        rooms[one.device] = rooms.get(one.device, 0) + one.bytes
    return rooms


def with_room(
    survey: dict[str, Any], found: list[dict[str, Any]], cfg: Config, release: Release
) -> dict[str, Any]:
    """The survey, with the room that dead runs take and this run clears or goes on with.

    + survey: what preflight knows of the box
    + found: what strixbox/box/leftovers.py tells
    """
    rooms = by_device(dead(found, cfg, release))
    for entry in found:
        if entry["kind"] == "begun" or entry["path"] == release.path:
            rooms[entry["device"]] = rooms.get(entry["device"], 0) + entry["bytes"]
    disks = {
        path: disk | {"left": rooms.get(disk["device"], 0)}
        for path, disk in survey["disks"].items()
    }
    return survey | {"disks": disks}
