"""What the nodes of a running ComfyUI take and give, and what a workflow asks of them in vain.

The shape is that of ``/object_info`` in ComfyUI v0.3.64 (server.py ``node_info``), the rules those
of execution.py ``validate_inputs``. Whatever a node pack declares, nothing here raises.
"""

from __future__ import annotations

from typing import Any

from boxtools.server import Graph, Server

NUMBERS = ("INT", "FLOAT")


class ObjectInfo:
    """The nodes of one server by name."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self.nodes = nodes

    @classmethod
    def ask(cls, server: Server) -> ObjectInfo:
        """Read them all; raises Trouble where the server does not answer."""
        return cls(server.object_info())

    def has(self, node: str) -> bool:
        """Whether the server has a node of that class."""
        return node in self.nodes

    def choices(self, node: str, name: str) -> list[str]:
        """What an input that takes one of a list may be; empty for any other."""
        spec = self.inputs(node).get(name)
        found = _choices(*spec[:2]) if spec else None
        return [choice for choice in found or [] if isinstance(choice, str)]

    def inputs(self, node: str) -> dict[str, tuple[Any, dict[str, Any], bool]]:
        """Inputs of a node by name: type or list of choices, its limits, whether it is required."""
        found: dict[str, tuple[Any, dict[str, Any], bool]] = {}
        declared = _table(_table(self.nodes.get(node)).get("input"))
        for part in ("optional", "required"):
            for name, spec in _table(declared.get(part)).items():
                if isinstance(spec, list | tuple) and spec:
                    extra = _table(spec[1]) if len(spec) > 1 else {}
                    found[str(name)] = (spec[0], extra, part == "required")
        return found

    def outputs(self, node: str) -> list[Any]:
        """Types of what a node gives, by slot."""
        found = _table(self.nodes.get(node)).get("output")
        return list(found) if isinstance(found, list | tuple) else []

    def complaints(self, graph: Graph) -> list[str]:
        """Everything for which the server would refuse the workflow, one sentence each."""
        found: list[str] = []
        saves = False
        for key, node in graph.items():
            kind = _class(node)
            if kind is None:
                found.append(f"node {key} names no class")
            elif not self.has(kind):
                found.append(f"{kind} ({key}): this ComfyUI has no such node")
            else:
                saves = saves or _table(self.nodes[kind]).get("output_node") is True
                given = _table(node.get("inputs"))
                for name, spec in self.inputs(kind).items():
                    trouble = self._trouble(graph, spec, given, name)
                    if trouble:
                        found.append(f"{kind} ({key}): {trouble}")
        if not saves and not found:
            found.append("no node of the workflow saves or shows anything")
        return found

    def _trouble(
        self,
        graph: Graph,
        spec: tuple[Any, dict[str, Any], bool],
        given: dict[str, Any],
        name: str,
    ) -> str | None:
        kind, extra, required = spec
        if name not in given:
            return f"{name} is missing" if required else None
        value = given[name]
        if isinstance(value, list | tuple):
            return self._link(graph, kind, list(value), name)
        choices = _choices(kind, extra)
        if choices is not None:
            # The list of images is from before an upload; the server looks for the file instead.
            if extra.get("image_upload") or value in choices:
                return None
            return f"{name} is {value!r}, but {_some(choices)}"
        return _number(kind, extra, value, name) if kind in NUMBERS else None

    def _link(self, graph: Graph, kind: Any, link: list[Any], name: str) -> str | None:
        if len(link) != 2 or not isinstance(link[0], str) or link[0] not in graph:
            return f"{name} is linked to a node that is not there"
        source = _class(graph[link[0]])
        if source is None or not self.has(source):
            return None  # told at that node
        outputs = self.outputs(source)
        slot = link[1]
        if not isinstance(slot, int) or not 0 <= slot < len(outputs):
            return f"{name} is linked to output {slot!r} of {source}, which has {len(outputs)}"
        if not _fits(outputs[slot], kind):
            return f"{name} takes {kind}, but {source} gives {outputs[slot]} there"
        return None


def _table(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _class(node: Any) -> str | None:
    kind = _table(node).get("class_type")
    return kind if isinstance(kind, str) else None


def _choices(kind: Any, extra: dict[str, Any]) -> list[Any] | None:
    """The list of a COMBO in both ways of writing it; None where there is none to check with."""
    if isinstance(kind, list | tuple):
        return list(kind)
    options = extra.get("options") if kind == "COMBO" else None
    return list(options) if isinstance(options, list | tuple) else None


def _some(choices: list[Any]) -> str:
    if not choices:
        return "there is nothing to choose from"
    more = f" and {len(choices) - 8} more" if len(choices) > 8 else ""
    return f"there is {', '.join(str(choice) for choice in choices[:8])}{more}"


def _number(kind: Any, extra: dict[str, Any], value: Any, name: str) -> str | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return f"{name} is {value!r}, which is no number"
    least, most = extra.get("min"), extra.get("max")
    if isinstance(least, int | float) and not value >= least:
        return f"{name} is {value}, the least is {least}"
    if isinstance(most, int | float) and not value <= most:
        return f"{name} is {value}, the most is {most}"
    return None


def _fits(given: Any, taken: Any) -> bool:
    """Whether an output may feed an input: types overlap, ``*`` and lists go with anything."""
    if not isinstance(given, str) or not isinstance(taken, str) or "*" in (given, taken):
        return True
    return bool({t.strip() for t in given.split(",")} & {t.strip() for t in taken.split(",")})
