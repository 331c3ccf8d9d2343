"""Plots as SVG that stands in the HTML: no file beside it, colours of the page, no script."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boxtools.bench.chapter import claimed
from boxtools.bench.results import Bench, Result

# Drawn with these, then named as the page's variables, so that dark and light both do.
INK, FAINT = "#010203", "#040506"
SERIES = ("#010001", "#020002", "#030003", "#040004", "#050005", "#060006")
CLAIMED = "#070007"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    CLAIMED: "var(--claim)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a label may have a dollar sign
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 5,
}
GIB = 1 << 30
BAR = 0.8  # of the room between two groups of bars
NAME = 34  # characters of a sitting's name that fit a legend

Draw = Callable[[Axes, Sequence[Bench]], bool]


def charts(benches: Sequence[Bench]) -> list[tuple[str, str]]:
    """Title and SVG of every plot that the sittings have data for."""
    found = []
    for number, (title, draw) in enumerate(PLOTS):
        with mpl.rc_context({**STYLE, "svg.hashsalt": f"strixbox-{number}"}):
            figure = Figure(figsize=(6.4, 3.6), layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.add_subplot()
            if draw(axes, benches):
                found.append((title, svg(figure, title)))
    return found


def svg(figure: Figure, title: str) -> str:
    """The figure as an element of an HTML page: without addresses of any kind, without sizes."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label's letter that matplotlib's own font lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # HTML knows the namespaces by itself; an id must be there once a page.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\sid="[\w.]+_\d+"', "", text)
    text = re.sub(
        r'^<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{title}"', text
    )
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def by_size(axes: Axes, benches: Sequence[Bench]) -> bool:
    """Seconds per image over megapixels."""

    def megapixels(result: Result) -> float:
        return float(result.job.get("width", 0)) * float(result.job.get("height", 0)) / 1e6

    return _lines(axes, benches, "size/", megapixels, "megapixels", "seconds per image")


def by_steps(axes: Axes, benches: Sequence[Bench]) -> bool:
    """Seconds per image over sampling steps."""
    return _lines(axes, benches, "steps/", _number("steps"), "steps", "seconds per image")


def by_batch(axes: Axes, benches: Sequence[Bench]) -> bool:
    """Seconds per image over the size of the batch."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _lines(axes, benches, "batch/", _number("batch"), "images a batch", "seconds per image")


def memory(axes: Axes, benches: Sequence[Bench]) -> bool:
    """VRAM and GTT of the last sitting, at the moment when both together were largest."""
    shown = [(name, result) for name, result in benches[-1].named().items() if result.peaks.used]
    shown = [(name, r) for name, r in shown if name.startswith(("size/", "batch/", "vram/"))]
    if not shown:
        return False
    names = [name for name, _ in shown]
    peaks = [(r.peaks.used or 0) / GIB for _, r in shown]
    axes.bar(names, peaks, color=SERIES[0], width=BAR / 2)
    axes.set_ylabel("VRAM and GTT, GiB")
    _slant(axes)
    return True


def sides(axes: Axes, benches: Sequence[Bench]) -> bool:
    """All sittings side by side in the cases that they share; the chapter where there is one."""
    return _bars(axes, benches, "seconds", "seconds per image", 16)


def vae(axes: Axes, benches: Sequence[Bench]) -> bool:
    """Seconds of the VAE's decoding."""
    return _bars(axes, benches, "decode", "seconds of decoding", 12)


PLOTS: tuple[tuple[str, Draw], ...] = (
    ("Resolution", by_size),
    ("Steps", by_steps),
    ("Batch size", by_batch),
    ("Peak memory", memory),
    ("Case by case", sides),
    ("VAE decoding", vae),
)


def _lines(
    axes: Axes,
    benches: Sequence[Bench],
    prefix: str,
    at: Callable[[Result], float],
    along: str,
    up: str,
) -> bool:
    drawn = False
    names: dict[str, Result] = {}
    for bench, colour in zip(benches, SERIES * len(benches), strict=False):
        points = []
        for name, result in bench.named().items():
            if name.startswith(prefix) and result.median is not None and result.spread:
                points.append((at(result), result.median, result.spread))
                names[name] = result
        points.sort(key=lambda point: point[0])
        if len(points) < 2:
            continue
        middle = [y for _, y, _ in points]
        below = [y - spread.low for _, y, spread in points]
        above = [spread.high - y for _, y, spread in points]
        axes.errorbar(
            [x for x, _, _ in points],
            middle,
            yerr=[below, above],
            color=colour,
            marker="o",
            capsize=3,
            label=_short(bench),
        )
        drawn = True
    said = [(at(r), value) for name, r in names.items() if (value := claimed(name, r))]
    if drawn and said:
        said.sort()
        axes.plot(*zip(*said, strict=True), color=CLAIMED, ls="--", marker="x", label="chapter")
    if drawn:
        axes.set_xlabel(along)
        axes.set_ylabel(up)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend()
    return drawn


def _bars(axes: Axes, benches: Sequence[Bench], metric: str, up: str, most: int) -> bool:
    every = [
        {
            name: r
            for name, r in bench.named().items()
            if r.metric == metric and r.median is not None
        }
        for bench in benches
    ]
    # Each render once, under the first of its names.
    first = [result.name for result in benches[-1].results]
    names = [name for name in first if all(name in one for one in every)][:most]
    if not names:
        return False
    groups: list[tuple[str, str, list[tuple[int, float, float]]]] = []
    for bench, results, colour in zip(benches, every, SERIES * len(benches), strict=False):
        shown = [(number, results[name]) for number, name in enumerate(names)]
        bars = [(n, r.median or 0.0, r.spread.mad if r.spread else 0.0) for n, r in shown]
        groups.append((_short(bench), colour, bars))
    said = [
        (number, value, 0.0)
        for number, name in enumerate(names)
        if (value := claimed(name, every[-1][name])) is not None
    ]
    if said:
        groups.append(("chapter", CLAIMED, said))
    width = BAR / len(groups)
    for place, (label, colour, bars) in enumerate(groups):
        left = (place - (len(groups) - 1) / 2) * width
        axes.bar(
            [number + left for number, _, _ in bars],
            [y for _, y, _ in bars],
            width * 0.92,
            yerr=[mad for _, _, mad in bars] if label != "chapter" else None,
            ecolor=INK,
            color=colour,
            label=label,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(up)
    axes.legend()
    _slant(axes)
    return True


def _number(name: str) -> Callable[[Result], float]:
    def read(result: Result) -> float:
        value = result.job.get(name, 1)
        return float(value) if isinstance(value, int | float) else 0.0

    return read


def _short(bench: Bench) -> str:
    # matplotlib leaves a label that begins with _ out of the legend.
    return "".join(filter(str.isprintable, bench.label or bench.id)).lstrip("_")[:NAME] or "?"


def _slant(axes: Axes) -> None:
    axes.tick_params(axis="x", rotation=40, labelsize=8, length=0)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")
