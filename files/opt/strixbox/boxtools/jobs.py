"""A job: which workflow, and what it shall be run with. The chapter's values are data.

``workflows.yaml`` has the values that a job leaves open, and which model files fit.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from boxtools.errors import WrongUse

WORKFLOWS: tuple[str, ...] = (
    "txt2img",
    "img2img",
    "inpaint",
    "controlnet",
    "refiner",
    "turbo",
    "lcm",
    "tiled-vae",
    "tiled-diffusion-vae",
)

LARGEST = 16384  # pixels a side: MAX_RESOLUTION of ComfyUI's nodes.py


class Part(BaseModel):
    """A frozen part; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Job(Part):
    """One picture, or a batch of them, to be made. None is the chapter's value for the workflow."""

    workflow: str = "txt2img"
    prompt: str = ""
    negative: str = ""
    width: int = Field(1024, ge=16, le=LARGEST, multiple_of=8)
    height: int = Field(1024, ge=16, le=LARGEST, multiple_of=8)
    batch: int = Field(1, ge=1, le=4096)
    seed: int = Field(0, ge=0, le=2**64 - 1)
    steps: int | None = Field(None, ge=1, le=10000)
    cfg: float | None = Field(None, ge=0, le=100)
    sampler: str | None = None
    scheduler: str | None = None
    denoise: float | None = Field(None, ge=0, le=1)  # of refiner: the refiner's share of the steps
    strength: float | None = Field(None, ge=0, le=10)  # of the ControlNet
    checkpoint: str | None = None
    vae: str | None = None  # None: the checkpoint's own
    lora: str | None = None
    controlnet: str | None = None
    refiner: str | None = None
    image: str | None = None  # name in ComfyUI's input directory
    mask: str | None = None  # likewise; white is painted anew. None: the image's transparency
    tile: int | None = Field(None, ge=1)  # pixels a side; None: whole, but for the tiled workflows
    keep: bool = True  # False: into the temporary directory
    prefix: str = "strixbox"


class Chapter(Part):
    """What the chapter says about a workflow."""

    model: str  # key of the models in the data
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0
    strength: float = 1.0
    refiner_cfg: float | None = None
    size: str = "1024x1024"
    tile: int | None = None
    image: Literal["no", "may", "must"] = "may"
    controlnet: bool = False
    refiner: bool = False
    pack: bool = False  # tiles by the nodes of ComfyUI-TiledDiffusion


class Wanted(Part):
    """A kind of model file."""

    folder: str
    option: str
    like: tuple[str, ...]
    unlike: tuple[str, ...] = ()
    only: bool = False
    instead: str | None = None
    url: str | None = None


class Data(Part):
    """All of workflows.yaml."""

    workflows: dict[str, Chapter]
    models: dict[str, Wanted]


@functools.cache
def data() -> Data:
    """The data file beside this module."""
    text = Path(__file__).with_name("workflows.yaml").read_text(encoding="utf-8")
    return Data.model_validate(yaml.safe_load(text))


def chapter(workflow: str) -> Chapter:
    """The chapter's values.

    Raises:
        WrongUse: where there is no such workflow.
    """
    if workflow not in WORKFLOWS:
        raise WrongUse(f"no workflow {workflow}; there are {', '.join(WORKFLOWS)}")
    return data().workflows[workflow]


def check_images(job: Job) -> None:
    """See that the job has the images that its workflow begins with.

    Raises:
        WrongUse: where it lacks one, or has one that would not be used.
    """
    said = chapter(job.workflow)
    if said.image == "must" and job.image is None:
        raise WrongUse(f"{job.workflow} needs an image; name one with --image FILE")
    if said.image == "no" and job.image is not None:
        raise WrongUse(f"{job.workflow} begins with noise and takes no image; use img2img")
    if job.mask is not None and job.workflow != "inpaint":
        raise WrongUse(f"{job.workflow} takes no mask; inpaint does")


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of ``1024x1536``.

    Raises:
        WrongUse: where it is none, or one that ComfyUI cannot make.
    """
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip(), re.ASCII)
    if match is None:
        raise WrongUse(f"{text!r} is no size; write WIDTHxHEIGHT, e.g. 1024x1536")
    width, height = int(match[1]), int(match[2])
    for side in (width, height):
        if side % 8 or not 16 <= side <= LARGEST:
            # A latent pixel is 8 by 8 pixels; ComfyUI would silently cut the rest off.
            raise WrongUse(f"{text}: both sides must be multiples of 8 from 16 to {LARGEST}")
    return width, height


def default_size(workflow: str) -> tuple[int, int]:
    """Width and height that the workflow's models are made for."""
    return parse_size(chapter(workflow).size)
