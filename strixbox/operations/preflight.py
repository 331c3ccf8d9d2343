"""The findings of preflight, told; a refusal ends this box's run before anything is changed."""

from __future__ import annotations

from strixbox.config import Config
from strixbox.facts import Leftovers, Survey
from strixbox.layout import SERVICE
from strixbox.leftovers import begun, query, with_room
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.preflight import examine
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
    )
    findings = examine(survey, cfg)
    if any(finding.code == "DISK.ROOM" and finding.verdict != "ok" for finding in findings):
        # What a dead run filled the disk with is no reason to refuse: this run clears it.
        found = ask(Leftovers, query=query(cfg, begun(survey, cfg, release)))
        findings = examine(with_room(survey, found, cfg, release), cfg)
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
