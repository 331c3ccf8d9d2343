"""``strixbox profile``: what a workflow's time is spent on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from boxtools import output, pictures, profile, settings, trace
from boxtools.errors import WrongUse
from boxtools.jobs import chapter
from boxtools.server import Event, Server
from boxtools.workflows import Job, ObjectInfo, default_size, graph, parse_size


@click.command()
@click.argument("workflow", default="txt2img")
@click.option("--prompt", "-p", default="a lighthouse at dusk", show_default=True,
              help="What to see.")  # fmt: skip
@click.option("--size", help="WIDTHxHEIGHT in pixels; the workflow's own without.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images made at once.")
@click.option("--steps", type=int, default=3, show_default=True,
              help="Sampling steps; every step is like the others.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the noise.")
@click.option("--checkpoint", help="File in models/checkpoints.")
@click.option("--vae", help="File in models/vae; the checkpoint's own without.")
@click.option("--image", type=click.Path(path_type=Path), help="Image to begin with or to follow.")
@click.option("--tile", type=int, help="Run the VAE in tiles of that many pixels.")
@click.option("--memory", is_flag=True, help="Record what operators allocate.")
@click.option("--shapes", is_flag=True, help="Record the shapes of operators' inputs.")
@click.option("--stack", is_flag=True, help="Record Python's calls; a large trace.")
@click.option("--cold", is_flag=True, help="Without a prompt before it, which loads the models.")
@click.option("--top", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="Rows of a table.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path),
              help="Directory for the trace; the tools' own without.")  # fmt: skip
@click.option("--from", "file", type=click.Path(path_type=Path),
              help="Show a trace that was recorded before; asks no server.")  # fmt: skip
@output.json_option
def command(
    workflow: str,
    size: str | None,
    image: Path | None,
    memory: bool,
    shapes: bool,
    stack: bool,
    cold: bool,
    top: int,
    out: Path | None,
    file: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Run WORKFLOW once to load its models, then once under torch's profiler.

    Shows what each node and operator took and saves a trace for Perfetto. Needs the profiler pack
    in ComfyUI: tools_profiler: true in the deploy's settings.
    """
    if file is not None:
        told = trace.summarize(file)
        report = profile.Report(**dict(told), workflow=file.name)
        output.show(report, as_json, profile.view(report, top))
        return
    chapter(workflow)  # an unknown one is told before the server is asked
    width, height = parse_size(size) if size else default_size(workflow)
    box = settings.load()
    server = Server(box.url)
    profile.need_pack(server)
    if image is not None:
        asked["image"] = _upload(server, image)
    try:
        job = Job(workflow=workflow, width=width, height=height, keep=False, **asked)
    except ValidationError as error:
        problem = error.errors()[0]
        raise WrongUse(f"--{problem['loc'][0]} {problem['input']}: {problem['msg']}") from None
    info = ObjectInfo.ask(server)
    # ComfyUI would not encode the same words again: a space makes them others of the same length.
    other = job.model_copy(update={"seed": (job.seed + 1) % 2**64, "prompt": f"{job.prompt} ",
                                   "negative": f"{job.negative} "})  # fmt: skip
    with _progress() as seen:
        report = profile.record(
            server,
            graph(job, info),
            None if cold else graph(other, info),
            out or box.state / "profiles",
            workflow,
            options={"memory": memory, "shapes": shapes, "stack": stack},
            seen=seen,
        )
    output.show(report, as_json, profile.view(report, top))


def _upload(server: Server, path: Path) -> str:
    """Put an image into ComfyUI's input directory under a name made of its content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WrongUse(f"{path} cannot be read: {error.strerror}") from None
    picture = pictures.look(content)
    if picture is None:
        raise WrongUse(f"{path} is no PNG, JPEG or WebP image")
    name = f"strixbox-{hashlib.sha256(content).hexdigest()[:20]}{picture.suffix}"
    return server.upload(name, content)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, Event], None]]:
    """One line a phase, and a bar for its sampling."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, output.Progress] = {}

        def seen(phase: str, event: Event) -> None:
            if event.kind != "progress" or event.maximum < 1:
                return
            if phase not in bars:
                stack.close()  # the bar of the phase before
                bars[phase] = stack.enter_context(output.Progress(phase, event.maximum, "steps"))
            bars[phase].at(event.value)

        yield seen
