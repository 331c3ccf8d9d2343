"""``strixbox render``: a workflow's images, with progress per step."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from boxtools import output, pictures, render, settings
from boxtools.catalogue import note_use
from boxtools.errors import Trouble, WrongUse
from boxtools.jobs import chapter, check_images, data
from boxtools.server import Done, Event, Graph, Server
from boxtools.workflows import (
    WORKFLOWS,
    Job,
    ObjectInfo,
    default_size,
    graph,
    models_of,
    parse_size,
    resolved,
)

EVERY = output.Progress.EVERY


@click.command()
@click.argument("name", required=False, metavar="WORKFLOW")
@click.option("--list", "listing", is_flag=True, help="Show the workflows and their values.")
@click.option("--prompt", "-p", default="", help="What to see.")
@click.option("--negative", "-n", default="", help="What not to see.")
@click.option("--size", help="WIDTHxHEIGHT in pixels; the workflow's, or the image's shape.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images made at once.")
@click.option("--count", type=click.IntRange(1, 100000), default=1, show_default=True,
              help="How many times, each with the next seed.")  # fmt: skip
@click.option("--seed", type=int, help="Seed of the first; random without.")
@click.option("--steps", type=int, help="Sampling steps.")
@click.option("--cfg", type=float, help="Classifier-free guidance.")
@click.option("--sampler", help="Sampler by ComfyUI's name, e.g. dpmpp_2m.")
@click.option("--scheduler", help="Scheduler by ComfyUI's name, e.g. karras.")
@click.option("--denoise", type=float, help="How much is made anew; of refiner: its share.")
@click.option("--strength", type=float, help="Weight of the ControlNet.")
@click.option("--checkpoint", help="File in models/checkpoints.")
@click.option("--vae", help="File in models/vae; the checkpoint's own without.")
@click.option("--lora", help="File in models/loras.")
@click.option("--controlnet", help="File in models/controlnet.")
@click.option("--refiner", help="File in models/checkpoints that ends what the base began.")
@click.option("--image", type=click.Path(path_type=Path), help="Image to begin with or to follow.")
@click.option("--mask", type=click.Path(path_type=Path),
              help="For inpaint: white is painted anew; without, what is transparent.")  # fmt: skip
@click.option("--tile", type=int, help="Run the VAE in tiles of that many pixels.")
@click.option("--ahead", type=click.IntRange(1, 100), default=2, show_default=True,
              help="Prompts of ours that may wait in ComfyUI's queue.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Directory for copies of the images.")
@click.option("--print", "printing", is_flag=True, help="Print the graph, queue nothing.")
@output.json_option
def command(
    name: str | None,
    listing: bool,
    size: str | None,
    count: int,
    seed: int | None,
    image: Path | None,
    mask: Path | None,
    ahead: int,
    out: Path | None,
    printing: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Render WORKFLOW (see --list) and save its images.

    Images are saved by ComfyUI in its output directory; --out copies them. Ctrl-C takes back what
    waits and stops what runs, of this command only.
    """
    if listing:
        _show_list(as_json)
        return
    if name is None:
        raise WrongUse(f"name a workflow: {', '.join(WORKFLOWS)}")
    chapter(name)  # an unknown one is told before the server is asked
    files = {key: _Upload(path) for key, path in (("image", image), ("mask", mask)) if path}
    if name == "inpaint" and image and not mask and not files["image"].picture.transparent:
        raise WrongUse(f"{image} has nothing transparent to paint anew; name a mask with --mask")
    width, height = parse_size(size) if size else _size(name, files.get("image"))
    first = secrets.randbelow(2**32) if seed is None else seed
    asked |= {key: upload.name for key, upload in files.items()}
    try:
        jobs = [
            Job(workflow=name, width=width, height=height, seed=first + number, **asked)
            for number in range(count)
        ]
    except ValidationError as error:
        problem = error.errors()[0]
        raise WrongUse(f"--{problem['loc'][0]} {problem['input']}: {problem['msg']}") from None
    check_images(jobs[0])
    box = settings.load()
    server = Server(box.url)
    info = ObjectInfo.ask(server)
    graphs = [graph(job, info) for job in jobs]
    if printing:
        sys.stdout.write(json.dumps(graphs[0], indent=1) + "\n")
        return
    if out is not None:
        render.check_directory(out)
    for upload in files.values():
        upload.send(server)
    _Run(server, box.base_directory / "output", out, as_json).run(
        [resolved(job, info) for job in jobs], graphs, ahead
    )
    # The disk remembers the day of a use at best; `strixbox models plan` wants it finer. Where
    # the note cannot be made the picture is made all the same.
    with suppress(Trouble):
        note_use(box, models_of(graphs[0]))


class _Upload:
    """A local image, and the name for it in ComfyUI's input directory.

    The name is made of the content, so that an upload never replaces another image.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.content = path.read_bytes()
        except OSError as error:
            raise WrongUse(f"{path} cannot be read: {error.strerror}") from None
        picture = pictures.look(self.content)
        if picture is None:
            raise WrongUse(f"{path} is no PNG, JPEG or WebP image")
        self.picture = picture
        self.name = f"strixbox-{hashlib.sha256(self.content).hexdigest()[:20]}{picture.suffix}"

    def send(self, server: Server) -> None:
        stored = server.upload(self.name, self.content)
        if stored != self.name:
            raise Trouble(f"ComfyUI keeps the image as {stored!r}, not as {self.name!r}")


def _size(name: str, image: _Upload | None) -> tuple[int, int]:
    width, height = default_size(name)
    return pictures.fit(image.picture, width * height) if image else (width, height)


class _Run:
    """One call of the command: what it shows, keeps and tells."""

    def __init__(self, server: Server, saved: Path, out: Path | None, as_json: bool) -> None:
        self.server = server
        self.saved = saved
        self.out = out
        self.as_json = as_json
        self.made: list[render.Made] = []

    def run(self, jobs: list[Job], graphs: list[Graph], ahead: int) -> None:
        """Render all; what was made is shown also where a later one fails."""
        try:
            with _Steps(graphs) as steps:
                line = render.Line(self.server.url, ahead, steps.event, steps.held)
                with closing(line.run(graphs)) as ends:
                    for index, done in ends:
                        self._keep(jobs[index], graphs[index], done)
        finally:
            if self.as_json:
                results = [made.model_dump() for made in self.made]
                value = {"job": jobs[0].model_dump(), "asked": len(jobs), "made": results}
                output.show(value, True, "")

    def _keep(self, job: Job, nodes: Graph, done: Done) -> None:
        images = [render.place(image, self.saved) for image in done.images()]
        if self.out is not None:
            images = [
                render.store(self.server.view(image), image["filename"], self.out)
                for image in done.images()
            ]
        if not images:
            raise Trouble(f"ComfyUI saved no image for seed {job.seed}; see journalctl -u comfyui")
        made = render.Made(
            seed=job.seed,
            seconds=round(done.seconds, 3),
            cached=set(nodes) <= set(done.cached),
            images=[str(path) for path in images],
        )
        self.made.append(made)
        if not self.as_json:
            note = " (made before, nothing was computed)" if made.cached else ""
            for path in made.images:
                text = f"{path}  {made.seconds:.1f} s  seed {made.seed}{note}"
                output.screen().print(escape(text), soft_wrap=True)


class _Steps:
    """Says what runs: one changing line on a terminal, elsewhere a line every few seconds."""

    def __init__(self, graphs: list[Graph]) -> None:
        self.graphs = graphs
        self.console = output.remarks()
        self.status: Status | None = None
        self.said = time.monotonic()
        self.first: dict[tuple[int, str | None], Event] = {}  # where each node's steps began
        self.lock = threading.Lock()
        self.stack = ExitStack()

    def __enter__(self) -> _Steps:
        if self.console.is_terminal:
            self.status = self.stack.enter_context(self.console.status("queued"))
        return self

    def __exit__(self, *problem: object) -> None:
        self.stack.close()

    def event(self, index: int, event: Event) -> None:
        """One step of one prompt, from whichever thread."""
        node = self.graphs[index].get(event.node or "", {})
        if event.node is None or event.kind not in ("executing", "progress"):
            return
        kind = node.get("class_type", event.node)
        text = f"{index + 1}/{len(self.graphs)} {kind}"
        if event.kind == "progress":
            begun = self.first.setdefault((index, event.node), event)
            text += f" step {event.value}/{event.maximum}"
            if event.value > begun.value:
                text += f", {(event.at - begun.at) / (event.value - begun.value):.2f} s/it"
        self.say(text)

    def held(self) -> None:
        """Others' prompts fill the queue."""
        self.say("waiting: others' prompts fill ComfyUI's queue")

    def say(self, text: str) -> None:
        """Show a line."""
        with self.lock:
            if self.status is not None:
                self.status.update(escape(text))
            elif time.monotonic() - self.said >= EVERY:
                self.said = time.monotonic()
                self.console.print(escape(text), soft_wrap=True)


def _show_list(as_json: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("WORKFLOW", "SIZE", "STEPS", "CFG", "SAMPLER", "SCHEDULER", "DENOISE", "TILE",
                  "IMAGE", "MODEL"):  # fmt: skip
        table.add_column(title)
    values = data().workflows
    for name in WORKFLOWS:
        said = values[name]
        table.add_row(
            name,
            said.size,
            str(said.steps),
            f"{said.cfg:g}",
            said.sampler,
            said.scheduler,
            f"{said.denoise:g}",
            str(said.tile or "-"),
            {"no": "-", "may": "optional", "must": "needed"}[said.image],
            said.model,
        )
    output.show(
        {"workflows": {name: values[name].model_dump() for name in WORKFLOWS}}, as_json, table
    )
