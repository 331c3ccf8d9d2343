"""Tables from torch's profiler: operators, GPU kernels, and the share of every node.

Times are microseconds, memory is bytes. torch 2.6 and later say ``device_time_total``, older ones
``cuda_time_total``; both are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ROWS = 1000  # operators and kernels at most, the most costly ones
OF_NODE = 20  # operators of a node at most


def tables(
    averages: Iterable[Any], events: Iterable[Any], labels: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """``operators``, ``kernels`` and ``nodes``.

    Args:
        averages: what ``profile.key_averages()`` returns.
        events: what ``profile.events()`` returns: a tree by ``cpu_parent``.
        labels: name of a ``record_function`` -> id and class of the node that it marks.
    """
    operators: list[dict[str, Any]] = []
    kernels: list[dict[str, Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    for row in averages:
        name = str(row.key)
        if on_device(row):
            # The GPU's copy of a node's mark spans its kernels and would count them twice.
            if name not in labels and not getattr(row, "is_user_annotation", False):
                kernels.append(
                    {"name": name, "calls": int(row.count), "device": device(row, "self_")}
                )
        elif name in labels:
            node, kind = labels[name]
            nodes[name] = {
                "node": node,
                "kind": kind,
                "calls": int(row.count),
                "cpu": number(row, "cpu_time_total"),
                "device": device(row, ""),
                "operators": [],
            }
        else:
            operators.append(operator(row))
    for label, share in by_node(events, labels).items():
        if label in nodes:
            nodes[label]["operators"] = heaviest(share.values(), OF_NODE)
    return {
        "operators": heaviest(operators, ROWS),
        "kernels": sorted(kernels, key=lambda one: -one["device"])[:ROWS],
        "nodes": sorted(nodes.values(), key=lambda one: -max(one["device"], one["cpu"])),
    }


def operator(row: Any) -> dict[str, Any]:
    """One operator's row."""
    return {
        "name": str(row.key),
        "calls": int(row.count),
        "self_cpu": number(row, "self_cpu_time_total"),
        "cpu": number(row, "cpu_time_total"),
        "self_device": device(row, "self_"),
        "device": device(row, ""),
        "cpu_memory": int(number(row, "self_cpu_memory_usage")),
        "device_memory": int(
            number(row, "self_device_memory_usage", "self_cuda_memory_usage"),
        ),
    }


def by_node(
    events: Iterable[Any], labels: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Label -> operator -> calls and own times of what ran inside a node's mark."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for event in events:
        name = str(event.name)
        if on_device(event) or name in labels:
            continue
        label = mark(event, labels)
        if label is None:
            continue
        row = found.setdefault(label, {}).setdefault(
            name, {"name": name, "calls": 0, "self_cpu": 0.0, "self_device": 0.0}
        )
        row["calls"] += 1
        row["self_cpu"] += number(event, "self_cpu_time_total")
        row["self_device"] += device(event, "self_")
    return found


def mark(event: Any, labels: Mapping[str, tuple[str, str]]) -> str | None:
    """The node's mark that an event lies in."""
    above = getattr(event, "cpu_parent", None)
    while above is not None:
        if str(above.name) in labels:
            return str(above.name)
        above = getattr(above, "cpu_parent", None)
    return None


def heaviest(rows: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The rows with the most time of their own: the GPU's where it has any, else the CPU's."""
    rows = list(rows)
    key = "self_device" if any(row["self_device"] for row in rows) else "self_cpu"
    return sorted(rows, key=lambda row: -row[key])[:most]


def on_device(row: Any) -> bool:
    """Whether it ran on the GPU; ``device_type`` is an enumeration of torch's C++ side."""
    kind = getattr(row, "device_type", None)
    return str(getattr(kind, "name", kind)) not in ("CPU", "None")


def device(row: Any, own: str) -> float:
    """Time on the GPU: with the operators below it, or (``self_``) its own."""
    return number(row, f"{own}device_time_total", f"{own}cuda_time_total")


def number(row: Any, *names: str) -> float:
    """The first of these attributes that is there; 0 where none is."""
    for name in names:
        value = getattr(row, name, None)
        if value is not None:
            return float(value)
    return 0.0
