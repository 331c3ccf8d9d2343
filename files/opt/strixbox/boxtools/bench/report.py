"""One HTML file with everything in it: tables, plots, versions and verdicts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from boxtools.bench import charts, views
from boxtools.bench.chapter import claimed
from boxtools.bench.compare import Comparison, compare, with_chapter
from boxtools.bench.results import Bench, now
from boxtools.errors import Trouble
from boxtools.output import size


def page(benches: Sequence[Bench]) -> str:
    """The report of some sittings: each by itself, with the next, and the last with the chapter.

    Names in results come from files and servers: the template escapes all of them.
    """
    last = benches[-1]
    sides = [compare(one, other) for one, other in pairwise(benches)]
    chapter = with_chapter(last)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": views.seconds,
        "number": views.number,
        "size": size,
        "spread": views.spread,
        "remarks": views.remarks,
        "section": views.title,
        "when": views.when,
        "percent": _percent,
        "tone": _tone,
    }
    drawn = [(title, Markup(svg)) for title, svg in charts.charts(benches)]  # noqa: S704 - our own
    return environment.get_template("report.html.j2").render(
        benches=benches,
        last=last,
        tables=[(bench, views.by_section(bench)) for bench in benches],
        charts=drawn,
        comparisons=[*sides, *([chapter] if chapter.lines else [])],
        claimed=claimed,
        made=now(),
    )


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, or leave it as it is.

    Raises:
        Trouble: where that fails.
    """
    part: str | None = None
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise Trouble(
            f"{path} cannot be written ({error.strerror}); name another file with --out"
        ) from None


def _percent(ratio: float | None) -> str:
    """A ratio of times in words."""
    if ratio is None:
        return "-"
    return f"{abs(ratio - 1) * 100:.1f} % {'more' if ratio > 1 else 'less'} time"


def _tone(told: Comparison | str) -> str:
    """Class of a verdict in the style sheet."""
    word = told if isinstance(told, str) else ("slower" if told.worse else "faster")
    return {"faster": "good", "keep": "good", "slower": "bad", "drop": "bad"}.get(word, "plain")
