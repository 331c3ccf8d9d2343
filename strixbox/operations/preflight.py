"""The findings of preflight, told; a refusal ends this box's run before anything is changed."""

from __future__ import annotations

from strixbox.config import Config
from strixbox.facts import Leftovers, ModelTier, Survey, TmpfsMount
from strixbox.ground import tier_folders, user_folders
from strixbox.layout import SERVICE
from strixbox.leftovers import begun, by_device, dead, query, with_room
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.models import ask_models
from strixbox.operations.mount import place_trouble
from strixbox.preflight import Finding, accepted, examine, models
from strixbox.release import Release


@box_operation
def examined_box(cfg: Config, release: Release) -> Steps:
    """Look at the box and tell what is not in order; nothing is ever changed.

    + cfg: the box's settings, box_accept among them
    + release: the release that shall be in use, which needs disk room where it is not there
    """
    survey = ask(
        Survey,
        user=cfg.box.user,
        home=cfg.box.home,
        port=cfg.comfyui.port,
        service=SERVICE,
        seal=release.seal,
        directories=directories(cfg),
    )
    findings = (*examine(survey, cfg), examined_tmpfs(cfg))
    if survey["home"]:
        findings += examined_models(cfg, {})
    if any(f.code in ("DISK.ROOM", "MODELS.ROOM") and f.verdict != "ok" for f in findings):
        # What a dead run filled the disk with is no reason to refuse: this run clears it.
        found = ask(Leftovers, query=query(cfg, begun(survey, cfg, release)))
        findings = (*examine(with_room(survey, found, cfg, release), cfg), examined_tmpfs(cfg))
        if survey["home"]:
            findings += examined_models(cfg, by_device(dead(found, cfg, release)))
    for finding in findings:
        if finding.verdict != "ok":
            say(f"{finding.verdict}: {finding.code}: {finding.evidence}; {finding.mend}")
    refused = [finding for finding in findings if finding.verdict == "refuse"]
    if refused:
        raise BoxTrouble(
            "This box is not ready; nothing was changed. "
            + " ".join(f"{f.code}: {f.evidence}; {f.mend}." for f in refused)
        )
    return
    yield  # a generator, as pyinfra wants, that never changes anything


def directories(cfg: Config) -> tuple[str, ...]:
    """What the account has or makes, parents first.

    + cfg: the box's settings
    """
    active, archive = cfg.comfyui.models_directory, cfg.models.archive
    tiers = (active, archive) if archive else (active,)
    return (*user_folders(cfg), *tiers, *(path for tier in tiers for path in tier_folders(tier)))


def examined_tmpfs(cfg: Config) -> Finding:
    """The place of the RAM disk.

    + cfg: the box's settings
    """
    now = ask(TmpfsMount, path=cfg.tmpfs.path, user=cfg.box.user)
    trouble = place_trouble(cfg.tmpfs.path, now["place"], now["mount"])
    if trouble:
        return accepted(Finding("TMPFS.PLACE", "refuse", *trouble), cfg.box.accept)
    return Finding("TMPFS.PLACE", "ok", cfg.tmpfs.path)


def examined_models(cfg: Config, freed: dict[int, int]) -> tuple[Finding, ...]:
    """Findings about the models.

    + cfg: the box's settings
    + freed: bytes by device that this run makes free before
    """
    archive = cfg.models.archive
    tier = ask(ModelTier, path=archive) if archive else None
    known = ask_models(cfg.models, cfg.comfyui.models_directory, cfg.box.user)
    return models(known, tier, cfg, freed)
