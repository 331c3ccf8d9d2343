"""Which boxes the words --limit and --exclude name, before pyinfra looks for them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

from strixbox.inventory import Boxes

# pyinfra's own groups: every box, and every box of the file inventory.py.
EVERY_BOX = ("all", "inventory")


def named(boxes: Boxes, word: str) -> set[str]:
    """Boxes that a word names: the members of a group, else those whose name it matches."""
    names = [entry.name for entry in boxes.entries]
    groups = dict.fromkeys(EVERY_BOX, names) | boxes.groups()
    return set(groups.get(word) or (name for name in names if fnmatch(name, word)))


def names_nothing(boxes: Boxes, limit: Iterable[str], exclude: Iterable[str]) -> str | None:
    """What is wrong with the words, or None; pyinfra runs over no box then, and calls that well."""
    there = f"there are the boxes {', '.join(entry.name for entry in boxes.entries)}"
    if groups := boxes.groups():
        there += f" and the groups {', '.join(groups)}"
    words = [("--limit", word) for word in limit] + [("--exclude", word) for word in exclude]
    empty = [f"{option} {word}" for option, word in words if not named(boxes, word)]
    if empty:
        return f"{' and '.join(empty)} name{'s' if len(empty) == 1 else ''} no box; {there}"
    wanted = {entry.name for entry in boxes.entries if not limit}.union(
        *(named(boxes, word) for word in limit)
    )
    if not wanted.difference(*(named(boxes, word) for word in exclude)):
        return f"{' '.join(f'{option} {word}' for option, word in words)} leaves no box; {there}"
    return None
