"""``strixbox doctor``: what is wrong and how to mend it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from boxtools import settings as tools
from boxtools.doctor import bundle, fixes, slow, symptoms
from boxtools.doctor.checks import examine
from boxtools.doctor.facts import Facts, gather
from boxtools.doctor.finding import Finding
from boxtools.doctor.view import bundle_view, diagnosis_view, findings_view, matches_view
from boxtools.doctor.world import World
from boxtools.errors import Trouble, WrongUse
from boxtools.output import json_option, remarks, screen, show


@click.command()
@click.argument("text", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Show what is right too.")
@click.option("--slow", "is_slow", is_flag=True, help="Find out in five steps why images are slow.")
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@click.option("--dry", is_flag=True, help="With --fix: only say what would be done.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask before the user's files.")
@click.option(
    "--bundle",
    "packed",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Write a redacted .tar.gz for asking for help.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    text: tuple[str, ...],
    everything: bool,
    is_slow: bool,
    fix: bool,
    dry: bool,
    yes: bool,
    packed: str | None,
    as_json: bool,
) -> None:
    """Find what is wrong with this box and how to mend it.

    With TEXT, an error message (or - for stdin, or a file): say what it means. `doctor slow` is
    `doctor --slow`. With sudo it sees and mends more.
    """
    if text == ("slow",):
        text, is_slow = (), True
    if sum((bool(text), is_slow, fix, packed is not None)) > 1:
        raise WrongUse("choose one: an error text, --slow, --fix or --bundle")
    if (dry or yes) and not fix:
        raise WrongUse("--dry and --yes belong to --fix")
    if text:
        _explain(ctx, " ".join(text), as_json)
        return
    world, settings = World(), tools.load()
    facts = gather(world, settings)
    findings = examine(facts)
    if is_slow:
        diagnosis = slow.diagnose(findings, slow.watch_load(settings.url))
        show(diagnosis, as_json, diagnosis_view(diagnosis))
        ctx.exit(0 if diagnosis.cause is None else 1)
    if packed is not None:
        _pack(world, facts, findings, packed, as_json)
        return
    if fix:
        findings = _mend(world, facts, findings, dry, yes)
    value: dict[str, Any] = {"findings": [finding.model_dump() for finding in findings]}
    show(value, as_json, findings_view(findings, everything))
    ctx.exit(1 if any(finding.verdict == "wrong" for finding in findings) else 0)


def _explain(ctx: click.Context, text: str, as_json: bool) -> None:
    pasted = _pasted(text)
    if not pasted.strip():
        raise WrongUse('there is no text to explain; give the message: strixbox doctor "TEXT"')
    matches = symptoms.explain(pasted, spoken=True)
    value = {"matches": [match.model_dump() for match in matches]}
    show(value, as_json, matches_view(matches))
    if not matches:
        remarks().print(
            "This text is not in the catalogue. strixbox doctor looks at the box itself;"
            " strixbox doctor --bundle packs what others need to help."
        )
        ctx.exit(1)


def _pasted(text: str) -> str:
    """The text itself, or the end of stdin or of a file."""
    if text == "-":
        content = sys.stdin.buffer.read()
        return content[-symptoms.MOST :].decode("utf-8", errors="replace")
    try:
        path = Path(text)
        if path.is_file():
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - symptoms.MOST))
                return stream.read(symptoms.MOST).decode("utf-8", errors="replace")
    except (OSError, ValueError):  # a message is mostly too long for a name, or holds a null
        pass
    if re.fullmatch(r"\.{0,2}/\S*", text):
        raise WrongUse(f"{text} is no file to read")
    return text


def _pack(world: World, facts: Facts, findings: list[Finding], name: str, as_json: bool) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(world.now()))
    path = Path(name or f"strixbox-doctor-{stamp}.tar.gz").absolute()
    files = bundle.collect(world, facts, findings)
    bundle.write(path, bundle.archive(files, world.now()))
    sizes = {name: len(text) for name, text in files.items()}
    replaced = bundle.replaced(files)
    view = bundle_view(path, sizes, replaced)
    if as_json:
        show({"bundle": str(path), "files": sizes, "replaced": replaced}, True, view)
    else:  # the terminal breaks the lines, so that the command can be copied
        screen().print(view, soft_wrap=True)


def _mend(
    world: World, facts: Facts, findings: list[Finding], dry: bool, yes: bool
) -> list[Finding]:
    """Apply what is wanted and safe; returns the findings afterwards."""
    console = remarks()

    def say(line: str) -> None:
        console.print(escape(line), soft_wrap=True)

    todo = fixes.wanted(findings)
    if not todo:
        say("there is nothing that --fix could mend")
    done = False
    for fix in todo:
        say(f"{fix.name}: {fix.says}")
        try:
            for line in fix.plan(facts, world):
                say(f"  {line}")
            if dry:
                continue
            if fix.root and not world.is_root:
                say("  it needs root: sudo strixbox doctor --fix")
                continue
            if fix.asks and not yes and not _agreed():
                say("  left as it is; --yes answers for you")
                continue
            fix.apply(facts, world)
        except (Trouble, OSError) as trouble:
            say(f"  not done: {_sentence(trouble)}")
            continue
        done = True
    return examine(gather(world, facts.settings)) if done else findings


def _agreed() -> bool:
    """Whether the person at the terminal agrees; nobody there means no."""
    return sys.stdin.isatty() and click.confirm("  change it?", default=False, err=True)


def _sentence(trouble: Exception) -> str:
    if isinstance(trouble, OSError):
        return f"{trouble.filename or 'a file'}: {trouble.strerror}; see its owner and mode"
    return str(trouble)
