"""Where a render's time went, from the events that the server sent while it worked."""

from __future__ import annotations

from boxtools.bench.results import Peaks, Run
from boxtools.server import Done, Graph

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
HOT = 95.0  # degrees Celsius; the chip's limit is 100, and it slows down before it
SLOWER = 1.10  # last third of the steps to the first third; the steps of a render are alike
THIRDS = 9  # steps, below which thirds say nothing


def run_of(done: Done, graph: Graph, seed: int, peaks: Peaks) -> Run:
    """The times of one finished prompt.

    A node's time is from its ``executing`` message to the next one, so that of a sampler includes
    the loading of its model, and its end is true: its result is in the CPU's memory by then.
    ``progress`` comes when the step was handed to the GPU, which may be a moment early.
    """
    spans = node_seconds(done)
    kinds = {key: str(node.get("class_type", "")) for key, node in graph.items()}
    intervals = step_seconds(done, {key for key, kind in kinds.items() if kind in SAMPLERS})
    return Run(
        seed=seed,
        seconds=max(done.seconds, 0.0),
        sampler=_total(spans, [key for key, kind in kinds.items() if kind in SAMPLERS]),
        step=sum(intervals) / len(intervals) if intervals else None,
        encode=_total(spans, [key for key, kind in kinds.items() if kind.startswith("VAEEncode")]),
        decode=_total(spans, [key for key, kind in kinds.items() if kind.startswith("VAEDecode")]),
        cached=tuple(sorted(kinds[key] for key in done.cached if key in kinds)),
        peaks=peaks,
        notes=tuple(notes(intervals, peaks)),
    )


def node_seconds(done: Done) -> dict[str, float]:
    """Seconds by node, of those that were executed."""
    spans: dict[str, float] = {}
    node: str | None = None
    since = 0.0
    for event in done.events:
        if event.kind not in ("executing", "execution_success", "history"):
            continue
        if node is not None:
            spans[node] = spans.get(node, 0.0) + max(event.at - since, 0.0)
        node = event.node if event.kind == "executing" else None
        since = event.at
    return spans


def step_seconds(done: Done, samplers: set[str]) -> list[float]:
    """Seconds of every step but each sampler's first, which also loads the model."""
    intervals: list[float] = []
    last: tuple[str | None, int, float] | None = None
    for event in done.events:
        if event.kind != "progress" or event.node not in samplers:
            continue
        if last is not None and last[0] == event.node and event.value > last[1]:
            steps = event.value - last[1]
            intervals += [max(event.at - last[2], 0.0) / steps] * steps
        last = (event.node, event.value, event.at)
    return intervals


def notes(intervals: list[float], peaks: Peaks) -> list[str]:
    """Signs that the box was too hot to keep its speed."""
    found = []
    if peaks.temperature is not None and peaks.temperature >= HOT:
        found.append(f"hot: {peaks.temperature:.0f} °C")
    third = len(intervals) // 3
    if len(intervals) >= THIRDS:
        begin, end = sum(intervals[:third]), sum(intervals[-third:])
        if begin > 0 and end / begin > SLOWER:
            found.append(f"slowed down: the last steps took {end / begin:.2f} times the first")
    return found


def _total(spans: dict[str, float], nodes: list[str]) -> float | None:
    found = [spans[node] for node in nodes if node in spans]
    return sum(found) if found else None
