"""Writes the settings table of README.md from the schema and the defaults of group_data/all.py.

``python -m strixbox.docs`` after a change of either; a test compares.
"""

from __future__ import annotations

from strixbox.config import settings
from strixbox.groups import read_group_data
from strixbox.inventory import ROOT

BEGIN = "<!-- settings: written by python -m strixbox.docs -->\n"
END = "<!-- end of settings -->\n"
README = ROOT / "README.md"
FROM_THE_BOX = {
    "box_user": "`user` of boxes.yaml",
    "box_home": "`/home/<user>`",
    "comfyui_base_directory": "`<home>/ComfyUI`",
}


def table() -> str:
    """Every setting with its type, default and meaning, as Markdown."""
    defaults = read_group_data()["all"]
    rows = ["| Setting | Type | Default | Meaning |", "|---|---|---|---|"]
    for key, kind, meaning in settings():
        default = FROM_THE_BOX.get(key) or shown(defaults.get(key))
        rows.append(f"| `{key}` | {kind} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def shown(value: object) -> str:
    """A default in a cell: as it is where it is short, else where to find it."""
    if isinstance(value, list | dict | tuple) and len(repr(value)) > 40:
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    text = repr(value) if not isinstance(value, str) else value
    if len(text) == 40 and not text.strip("0123456789abcdefABCDEF"):
        text = f"{text[:12]}…"
    return f"`{text if len(text) <= 48 else text[:20] + '…'}`"


def with_table(text: str) -> str:
    """README with the table as it should be.

    Raises:
        ValueError: where the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has lost the markers of the settings table")
    return before + begin + "\n" + table() + "\n" + end + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
