"""Part of programs: the marked block in .bashrc, whole or damaged, and everybody else's lines."""

from __future__ import annotations

BEGIN = b"# >>> strixbox >>>"
END = b"# <<< strixbox <<<"


def parted(text: bytes, ours: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Lines before the first block, and all that follows it, without any block of ours.

    ``ours`` are the lines that strixbox writes between its markers. Of a block whose other marker
    is gone only they go, and the marker: whatever else is there may be the owner's.
    """
    lines = text.splitlines(keepends=True)
    before: list[bytes] = []
    after: list[bytes] = []
    kept, at = before, 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if line == BEGIN:
            at = _end_of_block(lines, at, ours)
            kept = after
        elif line == END:
            while kept and kept[-1].strip() in ours:
                kept.pop()
            kept = after
        else:
            kept.append(lines[at - 1])
    return before, after


def _end_of_block(lines: list[bytes], at: int, ours: list[bytes]) -> int:
    """Number of the first line behind a block whose first line after the marker is ``at``."""
    for number in range(at, len(lines)):
        if lines[number].strip() == END:
            return number + 1
        if lines[number].strip() == BEGIN:
            break
    while at < len(lines) and lines[at].strip() in ours:
        at += 1
    return at


def strange(text: bytes, ours: list[bytes]) -> bool:
    """Whether lines that strixbox does not write now would go with a block of it."""
    before, after = parted(text, ours)
    rest = [line.strip() for line in text.splitlines()]
    for line in (*before, *after):
        rest.remove(line.strip())
    return bool(set(rest) - {BEGIN, END, *ours})
