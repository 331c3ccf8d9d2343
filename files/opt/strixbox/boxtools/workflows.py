"""Workflows in ComfyUI's API format, made from a job and from what the running server has."""

from __future__ import annotations

import fnmatch
from pathlib import PurePosixPath
from typing import Any

from boxtools.errors import Trouble
from boxtools.jobs import (
    WORKFLOWS,
    Chapter,
    Job,
    chapter,
    check_images,
    data,
    default_size,
    parse_size,
)
from boxtools.object_info import ObjectInfo
from boxtools.server import Graph

__all__ = ["WORKFLOWS", "Job", "ObjectInfo", "default_size", "graph", "parse_size", "resolved"]

OVERLAP = 64  # pixels that tiles share: ComfyUI's own default
# These count for video only, but the nodes require them.
TEMPORAL = {"temporal_size": 64, "temporal_overlap": 8}
LAST_STEP = 10000  # KSamplerAdvanced: to the end
LOADERS = {  # folder -> node and input that list its files
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name"),
    "vae": ("VAELoader", "vae_name"),
    "loras": ("LoraLoader", "lora_name"),
    "controlnet": ("ControlNetLoader", "control_net_name"),
}


def models_of(nodes: Graph) -> list[str]:
    """Models that a graph loads, as "checkpoints/x.safetensors"."""
    loaders = {node: (folder, key) for folder, (node, key) in LOADERS.items()}
    wanted = [
        (node, loaders[node["class_type"]])
        for node in nodes.values()
        if node["class_type"] in loaders
    ]
    return [f"{folder}/{node['inputs'][key]}" for node, (folder, key) in wanted]


def pick(kind: str, info: ObjectInfo) -> str | None:
    """The file of that kind that ComfyUI lists and that fits best; None where none does."""
    wanted = data().models[kind]
    names = info.choices(*LOADERS[wanted.folder])
    fitting = [name for name in names if not _matches(name, wanted.unlike)]
    for pattern in wanted.like:
        for name in fitting:
            if _matches(name, (pattern,)):
                return name
    if wanted.only and len(fitting) == 1:
        return fitting[0]
    return pick(wanted.instead, info) if wanted.instead else None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the file's own name, without its directories, is like one of the patterns."""
    short = PurePosixPath(name.replace("\\", "/")).name.lower()
    return any(fnmatch.fnmatchcase(short, pattern) for pattern in patterns)


def resolved(job: Job, info: ObjectInfo) -> Job:
    """The job with everything filled in: the chapter's values, and files that are on the box.

    Raises:
        Trouble: naming a model that is not on the box, and how to get one.
        WrongUse: where the job lacks the image that its workflow needs, or has one too many.
    """
    check_images(job)
    said = chapter(job.workflow)
    full: dict[str, Any] = {
        "steps": said.steps,
        "cfg": said.cfg,
        "sampler": said.sampler,
        "scheduler": said.scheduler,
        "denoise": said.denoise,
        "tile": said.tile,
    }
    if said.image == "may" and job.image is not None:
        full["denoise"] = chapter("img2img").denoise  # at 1 nothing of the image would be left
    if said.controlnet:
        full |= {"strength": said.strength, "controlnet": _need("controlnet", job.controlnet, info)}
    if said.refiner:
        full["refiner"] = _need("refiner", job.refiner, info)
    if said.model == "lcm":
        full |= _distilled(job, info)
    else:
        full["checkpoint"] = _need(said.model, job.checkpoint, info)
    return job.model_copy(
        update={name: value for name, value in full.items() if getattr(job, name) is None}
    )


def _distilled(job: Job, info: ObjectInfo) -> dict[str, str]:
    """A checkpoint for LCM: one that is distilled, else any SDXL one with the LoRA that is."""
    checkpoint = job.checkpoint or pick("lcm", info)
    if checkpoint is not None and _matches(checkpoint, data().models["lcm"].like):
        return {"checkpoint": checkpoint}
    lora = _need("lcm-lora", job.lora, info)
    return {"checkpoint": _need("base", checkpoint, info), "lora": lora}


def _need(kind: str, asked: str | None, info: ObjectInfo) -> str:
    found = asked or pick(kind, info)
    if found is not None:
        return found
    wanted = data().models[kind]
    while wanted.instead is not None:
        kind, wanted = wanted.instead, data().models[wanted.instead]
    names = info.choices(*LOADERS[wanted.folder])
    there = f"there is {', '.join(names[:5])}" if names else "the folder is empty"
    raise Trouble(
        f"no file in models/{wanted.folder} has the name of a {kind} model"
        f" ({wanted.like[-1]}; {there}); name one with {wanted.option}, or get one:"
        f" strixbox models download --url {wanted.url or 'URL'} --folder {wanted.folder}"
    )


def graph(job: Job, info: ObjectInfo) -> Graph:
    """The workflow of a job, checked against what the server has.

    Raises:
        Trouble: naming what is missing on the box or is refused by a node, and the mend.
        WrongUse: as ``resolved``.
    """
    made = _Builder().build(resolved(job, info), chapter(job.workflow))
    if chapter(job.workflow).pack and not info.has("VAEDecodeTiled_TiledDiffusion"):
        raise Trouble(
            "ComfyUI has no node VAEDecodeTiled_TiledDiffusion; put ComfyUI-TiledDiffusion into"
            " comfyui_nodes and deploy, or use core ComfyUI's: strixbox render tiled-vae"
        )
    complaints = info.complaints(made)
    if complaints:
        raise Trouble(f"ComfyUI cannot run {job.workflow}: {'; '.join(complaints)}")
    return made


Link = list[Any]  # [node id, output slot]


class _Builder:
    """Collects nodes; every method returns links to outputs."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, kind: str, **inputs: Any) -> str:
        key = str(len(self.graph) + 1)
        self.graph[key] = {"class_type": kind, "inputs": inputs}
        return key

    def build(self, job: Job, said: Chapter) -> Graph:
        """The whole graph of a job without open values."""
        loader = self.add("CheckpointLoaderSimple", ckpt_name=job.checkpoint)
        model, clip, vae = [loader, 0], [loader, 1], [loader, 2]
        if job.vae is not None:
            vae = [self.add("VAELoader", vae_name=job.vae), 0]
        if job.lora is not None:
            lora = self.add(
                "LoraLoader",
                model=model,
                clip=clip,
                lora_name=job.lora,
                strength_model=1.0,
                strength_clip=1.0,
            )
            model, clip = [lora, 0], [lora, 1]
        if said.model == "lcm":
            model = [self.add("ModelSamplingDiscrete", model=model, sampling="lcm", zsnr=False), 0]
        words = self._words(job, clip)
        if said.controlnet:
            words = self._controlnet(job, words)
        start = self._latent(job, said, vae)
        if said.refiner:
            latent = self._refine(job, said, model, words, start)
        else:
            latent = self._sample(job, model, words, start)
        image = self._decode(job, said, vae, latent)
        if job.keep:
            self.add("SaveImage", images=image, filename_prefix=job.prefix)
        else:
            self.add("PreviewImage", images=image)
        return self.graph

    def _words(self, job: Job, clip: Link) -> tuple[Link, Link]:
        # Plain nodes also do for SDXL: ComfyUI takes the size from the latent, and the aesthetic
        # scores 6 and 2.5 for the refiner (model_base.py, encode_adm).
        positive, negative = (
            self.add("CLIPTextEncode", text=text, clip=clip) for text in (job.prompt, job.negative)
        )
        return [positive, 0], [negative, 0]

    def _controlnet(self, job: Job, words: tuple[Link, Link]) -> tuple[Link, Link]:
        net = self.add("ControlNetLoader", control_net_name=job.controlnet)
        hint = self.add("LoadImage", image=job.image)
        applied = self.add(
            "ControlNetApplyAdvanced",
            positive=words[0],
            negative=words[1],
            control_net=[net, 0],
            image=[hint, 0],
            strength=job.strength,
            start_percent=0.0,
            end_percent=1.0,
        )
        return [applied, 0], [applied, 1]

    def _latent(self, job: Job, said: Chapter, vae: Link) -> Link:
        """Where sampling starts: nothing, or the image that was given."""
        if job.image is None or said.controlnet:
            empty = self.add(
                "EmptyLatentImage", width=job.width, height=job.height, batch_size=job.batch
            )
            return [empty, 0]
        inpaint = job.workflow == "inpaint"
        loaded = self.add("LoadImage", image=job.image)
        pixels = self.add(
            "ImageScale",
            image=[loaded, 0],
            upscale_method="lanczos",
            width=job.width,
            height=job.height,
            # A mask is stretched to its image by ComfyUI: a crop would move one against the other.
            crop="disabled" if inpaint else "center",
        )
        if inpaint:
            latent = self._masked(job, vae, [loaded, 1], [pixels, 0])
        else:
            latent = self._encode(job, said, vae, [pixels, 0])
        if job.batch > 1:
            latent = [self.add("RepeatLatentBatch", samples=latent, amount=job.batch), 0]
        return latent

    def _masked(self, job: Job, vae: Link, transparency: Link, pixels: Link) -> Link:
        mask = transparency
        if job.mask is not None:
            mask = [self.add("LoadImageMask", image=job.mask, channel="red"), 0]
        if job.denoise is None or job.denoise >= 1:
            # Grey under the mask, which only full denoising gets rid of; 6 is the node's default.
            return [
                self.add("VAEEncodeForInpaint", pixels=pixels, vae=vae, mask=mask, grow_mask_by=6),
                0,
            ]
        encoded = self.add("VAEEncode", pixels=pixels, vae=vae)
        return [self.add("SetLatentNoiseMask", samples=[encoded, 0], mask=mask), 0]

    def _sample(self, job: Job, model: Link, words: tuple[Link, Link], start: Link) -> Link:
        sampled = self.add(
            "KSampler",
            model=model,
            seed=job.seed,
            steps=job.steps,
            cfg=job.cfg,
            sampler_name=job.sampler,
            scheduler=job.scheduler,
            positive=words[0],
            negative=words[1],
            latent_image=start,
            denoise=job.denoise,
        )
        return [sampled, 0]

    def _refine(
        self, job: Job, said: Chapter, model: Link, words: tuple[Link, Link], start: Link
    ) -> Link:
        """One schedule: the base begins it, the refiner takes over what noise is left."""
        steps, share = job.steps or said.steps, said.denoise if job.denoise is None else job.denoise
        split = steps - round(steps * share)
        loader = self.add("CheckpointLoaderSimple", ckpt_name=job.refiner)
        fine = self._words(job, [loader, 1])
        common = {"noise_seed": job.seed, "steps": steps, "sampler_name": job.sampler}
        begun = self.add(
            "KSamplerAdvanced",
            **common,
            model=model,
            add_noise="enable",
            cfg=job.cfg,
            scheduler=job.scheduler,
            positive=words[0],
            negative=words[1],
            latent_image=start,
            start_at_step=0,
            end_at_step=split,
            return_with_leftover_noise="enable",
        )
        ended = self.add(
            "KSamplerAdvanced",
            **common,
            model=[loader, 0],
            add_noise="disable",
            # The chapter's two values of cfg belong together: one that is asked for is for both.
            cfg=said.refiner_cfg if job.cfg == said.cfg else job.cfg,
            scheduler=job.scheduler,
            positive=fine[0],
            negative=fine[1],
            latent_image=[begun, 0],
            start_at_step=split,
            end_at_step=LAST_STEP,
            return_with_leftover_noise="disable",
        )
        return [ended, 0]

    def _encode(self, job: Job, said: Chapter, vae: Link, pixels: Link) -> Link:
        if job.tile is None:
            return [self.add("VAEEncode", pixels=pixels, vae=vae), 0]
        words = {"pixels": pixels, "vae": vae, "tile_size": job.tile}
        if said.pack:
            extra = {"fast": True, "color_fix": True}
            return [self.add("VAEEncodeTiled_TiledDiffusion", **words, **extra), 0]
        return [self.add("VAEEncodeTiled", **words, overlap=_overlap(job.tile), **TEMPORAL), 0]

    def _decode(self, job: Job, said: Chapter, vae: Link, latent: Link) -> Link:
        if job.tile is None:
            return [self.add("VAEDecode", samples=latent, vae=vae), 0]
        words = {"samples": latent, "vae": vae, "tile_size": job.tile}
        if said.pack:
            return [self.add("VAEDecodeTiled_TiledDiffusion", **words, fast=True), 0]
        return [self.add("VAEDecodeTiled", **words, overlap=_overlap(job.tile), **TEMPORAL), 0]


def _overlap(tile: int) -> int:
    # VAEDecodeTiled lowers it itself for small tiles; VAEEncodeTiled divides by zero instead.
    return min(OVERLAP, tile // 4)
