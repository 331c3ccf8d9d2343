"""Which models to move between the tiers, by their last use."""

from __future__ import annotations

from dataclasses import dataclass

from boxtools.catalogue import ModelFile
from boxtools.copyfile import RESERVE


@dataclass(frozen=True)
class Proposal:
    """What to move, and what that leads to; sizes in bytes."""

    archive: tuple[ModelFile, ...]
    activate: tuple[ModelFile, ...]
    free: int  # on the active tier's disk now
    after: int  # and after the moves
    missing: int  # of what was wanted free
    kept: tuple[ModelFile, ...]  # the deploy's manifest says where these belong
    unknown: int  # models whose last use the disk does not keep
    full: bool  # the archive has no room for some that would go there


def propose(
    models: list[ModelFile],
    managed: frozenset[str],
    now: float,
    days: float,
    wanted: int | None,
    free: int,
    archive_free: int,
) -> Proposal:
    """Moves by use.

    Models of the active tier that were not used for ``days`` go to the archive, those first whose
    last use is longest ago, the larger first among equals; with ``wanted`` only as many as give
    that much free room. Models of the archive that were used within ``days`` come back, the last
    used first, where the wanted room stays free.
    """
    before = now - days * 86400
    own = [model for model in models if model.leads_to is None]
    kept = tuple(m for m in own if m.key in managed and _misplaced(m, before))
    own = [model for model in own if model.key not in managed]
    # A model with a file in each tier is for its owner to sort out.
    both = {m.key for m in own if m.tier == "active"} & {m.key for m in own if m.tier == "archive"}
    own = [model for model in own if model.key not in both]
    idle = [m for m in own if m.tier == "active" and m.used is not None and m.used < before]
    idle.sort(key=lambda model: (model.used or 0, -model.size))
    room, left, archive, full = free, archive_free - RESERVE, [], False
    for model in idle:
        if wanted is not None and room >= wanted:
            break
        if model.size > left:
            full = True
            continue
        archive.append(model)
        room, left = room + model.size, left - model.size
    busy = [m for m in own if m.tier == "archive" and m.used is not None and m.used >= before]
    activate = []
    for model in sorted(busy, key=lambda model: -(model.used or 0)):
        if room - model.size >= max(wanted or 0, RESERVE):
            activate.append(model)
            room -= model.size
    return Proposal(
        tuple(archive),
        tuple(activate),
        free,
        room,
        max(0, (wanted or 0) - room),
        kept,
        sum(model.used is None for model in own),
        full,
    )


def _misplaced(model: ModelFile, before: float) -> bool:
    if model.used is None:
        return False
    return model.used < before if model.tier == "active" else model.used >= before
