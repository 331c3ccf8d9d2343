"""Explains a pasted error: a catalogue of what users of these boxes really hit."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

CATALOGUE = Path(__file__).with_name("symptoms.yaml")
# A pasted log may be anything; the end is what matters, and a line is cut into pieces.
MOST = 1 << 20  # characters
PIECE, OVERLAP = 1000, 200


class Symptom(BaseModel):
    """An error message, what is behind it, and what to do.

    Patterns are written in lower case and matched against lower-cased lines, so that they begin
    with plain letters that are found quickly; none has a repeat inside a repeat. ``spoken`` are
    patterns of what people write of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$")
    patterns: tuple[str, ...] = Field(min_length=1)
    spoken: tuple[str, ...] = ()
    score: int = Field(ge=1, le=99, description="how surely the pattern means this, percent")
    means: str
    mend: str
    source: str = Field(description="where the message is from or was reported")
    harmless: bool = False

    @functools.cached_property
    def regexes(self) -> tuple[re.Pattern[str], ...]:
        """The patterns, those of programs first, compiled."""
        return tuple(re.compile(pattern) for pattern in (*self.patterns, *self.spoken))


class Match(BaseModel):
    """A symptom that was found in a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    confidence: int  # percent
    line: str  # where it was found
    means: str
    mend: str
    source: str
    harmless: bool


@functools.cache
def catalogue() -> tuple[Symptom, ...]:
    """All symptoms."""
    entries = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    return tuple(Symptom.model_validate(entry) for entry in entries)


def explain(text: str, *, spoken: bool = False) -> list[Match]:
    """What the text's messages mean, the surest first; empty for an unknown text.

    ``spoken``: a person wrote the text, so that a person's words count too.
    """
    found: dict[str, Match] = {}
    seen: dict[str, set[int]] = {}
    for line in pieces(text[-MOST:]):
        lowered = line.lower()
        for symptom in catalogue():
            regexes = symptom.regexes[: None if spoken else len(symptom.patterns)]
            hits = {n for n, regex in enumerate(regexes) if regex.search(lowered)}
            if not hits:
                continue
            known = seen.setdefault(symptom.code, set())
            known |= hits
            found[symptom.code] = Match(
                code=symptom.code,
                # Several messages of the same fault make it surer.
                confidence=min(99, symptom.score + 5 * (len(known) - 1)),
                line=found[symptom.code].line if symptom.code in found else line.strip()[:400],
                means=symptom.means,
                mend=symptom.mend,
                source=symptom.source,
                harmless=symptom.harmless,
            )
    return sorted(found.values(), key=lambda match: (match.harmless, -match.confidence))


def pieces(text: str) -> Iterator[str]:
    """Lines, each once; a very long one in pieces that overlap."""
    seen = set()
    for line in text.splitlines():
        for start in range(0, max(len(line), 1), PIECE - OVERLAP):
            piece = line[start : start + PIECE]
            if piece not in seen:
                seen.add(piece)
                yield piece
