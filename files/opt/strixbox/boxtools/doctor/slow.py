"""The five steps that find out why images are slow, each with its evidence.

The order is the usual one: does the GPU work, can torch use it, do the variables fit, do the flags,
and only then machine and workflow. What is asked at each step is what is true of this chip: an
override is a suspect, never a cure, and a GPU at 100 % can still be slow.
"""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict

from boxtools.doctor.checks import WORST_FIRST
from boxtools.doctor.finding import Finding, Verdict
from boxtools.errors import Trouble
from boxtools.server import Server
from boxtools.watch import Watch

SECONDS = 3.0  # of watching the GPU; a step of SDXL takes about half a second
IDLE = 50.0  # percent
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Does the GPU work while an image is made?",
        ("SERVICE.STATE", "SERVICE.ANSWER", "SERVICE.DEVICE", "OS.PORT_TAKEN"),
    ),
    (
        "Can torch use the GPU?",
        (
            *("TORCH.BUILD", "TORCH.PINS", "RELEASE.CURRENT", "GPU.PRESENT", "GPU.KFD"),
            *("GPU.NODES", "GPU.ACCESS", "USER.ACCOUNT", "USER.GROUPS", "SERVICE.GROUPS"),
            "ENV.HIDDEN",
        ),
    ),
    (
        "Do variables, ROCm and kernel fit the GPU?",
        (
            *("ENV.OVERRIDE", "TORCH.ARCH", "ENV.DEBUG", "ENV.LIBRARIES", "TUNABLEOP.TUNING"),
            *("TUNABLEOP.RESULTS", "TUNABLEOP.STALE", "TUNABLEOP.PLACE", "KERNEL.ROCM"),
            *("FIRMWARE.BROKEN", "DRIVER.DKMS"),
        ),
    ),
    (
        "Do the launch options fit?",
        ("FLAGS.REFUSED", "FLAGS.SLOW", "SERVICE.DRIFT", "XFORMERS.INSTALLED"),
    ),
    (
        "Is it the machine?",
        (
            *("GPU.TEMPERATURE", "GPU.POWER", "MEMORY.SWAP", "GPU.GTT", "GPU.CARVE_OUT"),
            *("DISK.ROOM", "DISK.TEMP", "SERVICE.RESTARTS", "LOG.PAGE_FAULT", "LOG.GPU_HANG"),
            *("LOG.MES", "LOG.OOM", "LOG.THERMAL", "LOG.DISK"),
        ),
    ),
)
WORKFLOW = (
    "Nothing on the box explains it, so it is the work itself: each step costs the same, cfg 1.0"
    " halves it, SDE samplers double it, pixels count in proportion, and the first image of each"
    " size is slower. Measure it: strixbox bench run; strixbox profile shows what the time goes to."
)


class Load(BaseModel):
    """What was seen while watching for a few seconds; None is what could not be seen."""

    model_config = ConfigDict(frozen=True)

    rendering: bool | None = None
    busy: float | None = None  # mean percent


class Step(BaseModel):
    """One step of the five."""

    model_config = ConfigDict(frozen=True)

    number: int
    question: str
    verdict: Verdict
    evidence: str
    findings: tuple[Finding, ...]  # what is not right


class Diagnosis(BaseModel):
    """All steps, and where the cause is most likely."""

    model_config = ConfigDict(frozen=True)

    steps: tuple[Step, ...]
    cause: int | None  # number of the step, None where nothing on the box explains it
    conclusion: str


def watch_load(url: str, seconds: float = SECONDS) -> Load:
    """Watch GPU and queue for a few seconds."""
    try:
        rendering: bool | None = bool(Server(url).queue()[0])
    except Trouble:
        rendering = None
    with Watch() as watch:
        time.sleep(seconds)
    return Load(rendering=rendering, busy=watch.peaks().busy)


def diagnose(findings: list[Finding], load: Load) -> Diagnosis:
    """Walk the five steps over the findings."""
    steps = []
    for number, (question, codes) in enumerate(STEPS, 1):
        known = {finding.code: finding for finding in findings if finding.code in codes}
        own = [known[code] for code in codes if code in known]
        bad = tuple(finding for finding in own if finding.verdict in ("wrong", "warn"))
        worst = min(own, key=lambda finding: WORST_FIRST.index(finding.verdict), default=None)
        verdict: Verdict = worst.verdict if worst else "unknown"
        evidence = "; ".join(f.evidence for f in bad) or _good(own)
        if number == 1:
            verdict, evidence = _with_load(verdict, evidence, load)
        steps.append(
            Step(
                number=number,
                question=question,
                verdict=verdict,
                evidence=evidence,
                findings=bad,
            )
        )
    blamed, first = _cause(steps)
    text = WORKFLOW
    if first is not None:
        text = f"{first.code}: {first.evidence}. {first.meaning} Mend: {first.mend}"
    return Diagnosis(steps=tuple(steps), cause=blamed, conclusion=text)


def _cause(steps: list[Step]) -> tuple[int | None, Finding | None]:
    """Number of the step and the finding: the first that is wrong, else the first to look at."""
    bad = [(step.number, finding) for step in steps for finding in step.findings]
    for verdict in ("wrong", "warn"):
        found = [pair for pair in bad if pair[1].verdict == verdict]
        # That the server works on the CPU has a reason, which one of the next steps may hold.
        reasons = [pair for pair in found if pair[1].code != "SERVICE.DEVICE"]
        for pair in reasons or found:
            return pair
    return None, None


def _good(findings: list[Finding]) -> str:
    told = [finding.evidence for finding in findings if finding.verdict == "ok"]
    return "; ".join(told[:3]) or "nothing could be seen; run it with sudo"


def _with_load(verdict: Verdict, evidence: str, load: Load) -> tuple[Verdict, str]:
    if load.rendering is None or load.busy is None or verdict == "wrong":
        return verdict, evidence
    if not load.rendering:
        note = f"nothing is rendered now (GPU {load.busy:.0f} %): call it while an image is made"
        return ("unknown" if verdict == "ok" else verdict), f"{evidence}; {note}"
    note = f"GPU {load.busy:.0f} % busy while an image is made"
    if load.busy < IDLE:
        return "warn", f"{note}: it waits for something; {evidence}"
    return verdict, f"{note}: it works, so look further for what it works on; {evidence}"
