"""What is measured: the axes of the chapter's tables, as cases with names that never change.

Names are the keys by which results are compared, with each other and with chapter.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from boxtools.errors import WrongUse
from boxtools.jobs import Job, chapter, default_size, parse_size

Metric = Literal["seconds", "decode", "encode"]
"""What a case is about: seconds per image, or seconds of the VAE's decoding or encoding."""

Size = tuple[int, int]

CHAPTER_SIZE: Size = (1024, 1024)
SIZES: tuple[Size, ...] = tuple(
    parse_size(text)
    for text in ("512x512", "768x768", "1024x1024", "1024x1536", "1536x1536", "2048x2048")
)
STEPS = (10, 15, 20, 25, 30, 40, 50)
BATCHES = (1, 2, 4, 8)
CFGS = (1.0, 4.0, 7.5)  # 1.0 is the one that costs less: ComfyUI leaves out the second pass
TILES = (512, 1024, 2048)
# Sampler, scheduler and steps of 7.5.1, by ComfyUI's names.
SAMPLERS = (
    ("dpmpp_2m", "karras", 25),
    ("dpmpp_sde", "karras", 25),
    ("euler_ancestral", "normal", 20),
    ("ddim", "ddim_uniform", 30),
)
# The launch profiles of 7.2.2 by the mode that they are there for.
MODES = {"highvram": "optimized", "normalvram": "normalvram", "lowvram": "lowvram"}
# The stack of the chapter does not start without these two (7.1.1), tuned or not.
NEEDED = ("HSA_OVERRIDE_GFX_VERSION", "PYTORCH_ROCM_ARCH")
VAE_STEPS = 4  # only the VAE's own time counts in those cases

PROMPT = "photograph of a lighthouse on a cliff at dawn, waves, mist, detailed, sharp focus"
NEGATIVE = "blurry, low quality, watermark, text"
IMAGE = "strixbox-bench.png"  # uploaded before the first case that starts from an image

BASE = Job(
    prompt=PROMPT,
    negative=NEGATIVE,
    steps=25,
    cfg=7.5,
    sampler="dpmpp_2m",
    scheduler="karras",
    keep=False,  # saving is not what is measured, and the box's output stays the user's
)


@dataclass(frozen=True)
class Case:
    """One line of a table."""

    name: str
    section: str  # of the chapter
    job: Job
    metric: Metric = "seconds"
    profile: str | None = None  # launch profile of a private server; None is the service itself
    keeps: tuple[str, ...] | None = None  # the only variables that the profile keeps
    also: tuple[str, ...] = field(default=())  # other names under which a table shows it


def sized(job: Job, size: Size) -> Job:
    """The job at that size."""
    return job.model_copy(update={"width": size[0], "height": size[1]})


def name_of(size: Size) -> str:
    """As in names and options: ``1024x1536``."""
    return f"{size[0]}x{size[1]}"


def described(job: Job) -> dict[str, Any]:
    """A job as results tell it: without what is open, differs from run to run, or costs nothing."""
    told = job.model_dump(mode="json", exclude={"seed", "prefix", "keep"})
    return {name: value for name, value in told.items() if value is not None}


def resolutions(sizes: Sequence[Size]) -> list[Case]:
    """7.11.1."""
    return [Case(f"size/{name_of(size)}", "7.11.1", sized(BASE, size)) for size in sizes]


def steps(base: Job) -> list[Case]:
    """7.5.2."""
    return [Case(f"steps/{n}", "7.5.2", _with(base, steps=n)) for n in STEPS]


def samplers(base: Job) -> list[Case]:
    """7.5.1; LCM with its own model or LoRA and 6 steps, the middle of the chapter's 4 to 8."""
    cases = [
        Case(
            f"sampler/{sampler}-{scheduler}-{count}",
            "7.5.1",
            _with(base, sampler=sampler, scheduler=scheduler, steps=count),
        )
        for sampler, scheduler, count in SAMPLERS
    ]
    return [*cases, Case("sampler/lcm", "7.5.1", _own(base, "lcm"))]


def batch(base: Job) -> list[Case]:
    """7.4.3; seconds per image, so that the sizes of the batch compare."""
    return [Case(f"batch/{n}", "7.4.3", _with(base, batch=n)) for n in BATCHES]


def vram(base: Job) -> list[Case]:
    """7.2.2, each mode in a private server under the profile that the deploy has for it."""
    return [Case(f"vram/{mode}", "7.2.2", base, profile=name) for mode, name in MODES.items()]


def vae(base: Job) -> list[Case]:
    """7.6.1 and 7.6.2: decoding and encoding, whole, tiled by core nodes, and by TiledDiffusion."""
    short = _with(base, steps=VAE_STEPS)
    cases = [Case("vae/plain", "7.6.1", short, "decode")]
    for kind, workflow in (("tiled", "tiled-vae"), ("tiled-diffusion", "tiled-diffusion-vae")):
        for tile in TILES:
            job = _with(short, workflow=workflow, tile=tile)
            cases.append(Case(f"vae/{kind}-{tile}", "7.6.2", job, "decode"))
    image = _with(short, image=IMAGE)
    encoded = _with(image, workflow="img2img", denoise=1.0)
    tiled = _with(image, workflow="tiled-vae", tile=1024, denoise=1.0)
    return [
        *cases,
        Case("encode/plain", "7.6.1", encoded, "encode"),
        Case("encode/tiled-1024", "7.6.1", tiled, "encode"),
    ]


def workflows(base: Job) -> list[Case]:
    """7.5.2's recommended settings; those of each workflow come with the workflow."""
    image = _with(base, image=IMAGE)
    cases = [Case("workflow/txt2img", "7.5.2", base)]
    for name in ("img2img", "inpaint", "controlnet"):
        cases.append(Case(f"workflow/{name}", "7.5.2", _own(image, name)))
    turbo = _own(base, "turbo")
    if (base.width, base.height) == CHAPTER_SIZE:
        turbo = sized(turbo, default_size("turbo"))
    return [*cases, Case("workflow/turbo", "7.5.3", turbo)]


def guidance(base: Job) -> list[Case]:
    """7.5.3."""
    return [Case(f"cfg/{cfg:g}", "7.5.3", _with(base, cfg=cfg)) for cfg in CFGS]


def tuning(base: Job) -> list[Case]:
    """7.11.3: ComfyUI with only what the stack cannot start without, and the service as it is."""
    before = Case("tuning/before", "7.11.3", base, profile="normalvram", keeps=NEEDED)
    return [before, Case("tuning/after", "7.11.3", base)]


AXES: dict[str, Callable[[Job], list[Case]]] = {
    "steps": steps,
    "samplers": samplers,
    "batch": batch,
    "vram": vram,
    "vae": vae,
    "workflows": workflows,
    "cfg": guidance,
    "tuning": tuning,
}
PLANS = ("quick", "chapter", "resolutions", *AXES)


def plan(name: str, sizes: Sequence[Size] = (), count: int | None = None) -> tuple[Case, ...]:
    """The cases of a plan, those that are the same render once.

    ``sizes`` take the place of the chapter's: the resolutions to measure, and the size at which the
    other axes are; ``count`` steps take the place of 25 where steps are not what is varied.

    Raises:
        WrongUse: where there is no such plan.
    """
    if name not in PLANS:
        raise WrongUse(f"no plan {name}; there are {', '.join(PLANS)}")
    cases = _cases(name, sizes)
    if count is not None:
        cases = [_shortened(case, count) for case in cases]
    return together(cases)


def names() -> tuple[str, ...]:
    """Names of the chapter's cases in the order of its tables."""
    return tuple(case.name for case in _cases("chapter", ()))


def _cases(name: str, sizes: Sequence[Size]) -> list[Case]:
    cases: list[Case] = []
    if name == "quick":
        cases += resolutions(sizes or (SIZES[0], CHAPTER_SIZE))
    if name in ("chapter", "resolutions"):
        cases += resolutions(sizes or SIZES)
    for axis, make in AXES.items():
        if name in (axis, "chapter"):
            for size in sizes or (CHAPTER_SIZE,):
                mark = "" if size == CHAPTER_SIZE else f"@{name_of(size)}"
                cases += [replace(c, name=c.name + mark) for c in make(sized(BASE, size))]
    return cases


def together(cases: Sequence[Case]) -> tuple[Case, ...]:
    """One case for each render, under the first of its names; ordered so that servers stay up."""
    merged: dict[tuple[object, ...], Case] = {}
    for case in cases:
        key = (case.job.model_dump_json(), case.metric, case.profile, case.keeps)
        known = merged.get(key)
        if known is None:
            merged[key] = case
        elif case.name != known.name:
            merged[key] = replace(known, also=(*known.also, case.name))
    servers: list[tuple[str | None, tuple[str, ...] | None]] = []
    for case in merged.values():
        if (case.profile, case.keeps) not in servers:
            servers.append((case.profile, case.keeps))
    return tuple(sorted(merged.values(), key=lambda c: servers.index((c.profile, c.keeps))))


def _with(job: Job, **words: object) -> Job:
    return job.model_copy(update=words)


def _own(job: Job, workflow: str) -> Job:
    """The job with that workflow's own settings."""
    names = ("steps", "cfg", "sampler", "scheduler", "denoise")
    own = {name: getattr(chapter(workflow), name) for name in names}
    return _with(job, workflow=workflow, **own)


def _shortened(case: Case, count: int) -> Case:
    """The case with that many steps, where it is not the steps that it is about."""
    if case.name.startswith("steps/"):
        return case
    return replace(case, job=_with(case.job, steps=count))
