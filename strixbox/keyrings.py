"""apt's keyrings: which of them hold AMD's key for nobody any more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# apt takes the keys of the second for every source that names none (sources.list(5), Signed-By).
KEYRINGS, TRUSTED = "/etc/apt/keyrings/", "/etc/apt/trusted.gpg.d/"
UBUNTUS = ".ubuntu.com"


def entries(text: str) -> list[str]:
    """Entries of a sources or preferences file, without what is commented out."""
    # deb822 and preferences are stanzas; one-line sources are entries of a line each.
    one_line = re.search(r"^\s*deb(-src)?\s", text, re.MULTILINE)
    parts = text.splitlines() if one_line else re.split(r"\n\s*\n", text)
    lines = ([x for x in p.splitlines() if x.strip() and x.strip()[0] != "#"] for p in parts)
    return ["\n".join(live) for live in lines if live]


def named(texts: Iterable[str]) -> frozenset[str]:
    """Keyrings that Signed-By names: between commas in a line's brackets, blanks in a stanza."""
    form = r"(?i)signed-by[=:]([^\]\n]*(?:\n[ \t]+[^\n]*)*)"
    values = (value for text in texts for value in re.findall(form, text))
    words = (word for value in values for word in re.split(r"[\s,]+", value))
    return frozenset(word for word in words if word.startswith("/"))


def needs_any_key(sources: Iterable[str]) -> bool:
    """Whether a source names no keyring, and so may need a key of any in trusted.gpg.d.

    Ubuntu's own need none that could be AMD's.
    """
    for entry in (entry for text in sources for entry in entries(text)):
        hosts = re.findall(r"[a-z+]+://([^/\s:]+)", entry)
        ubuntus = bool(hosts) and all(host.endswith(UBUNTUS) for host in hosts)
        if not ubuntus and not named([entry]) and "BEGIN PGP" not in entry:
            return True
    return False


@dataclass(frozen=True)
class Keyrings:
    """Keyrings with the fingerprints in them; those of which nothing is known are not in it.

    ``amds`` is the fingerprint of AMD's key. Of the sources that stay, ``named`` are the keyrings
    that they name; ``any_key`` where one of them names none.
    """

    known: Mapping[str, Sequence[str]]
    amds: str
    named: frozenset[str]
    any_key: bool

    def of_amds(self, sources: Iterable[str]) -> tuple[str, ...]:
        """Those that only AMD's own ``sources`` name.

        One key in a keyring is AMD's then, an older one perhaps; of several, all have to be.
        """
        live = (entry for text in sources for entry in entries(text))
        return tuple(
            path
            for path in sorted(named(live) - self.named)
            if self._is_free(path)
            and (
                path not in self.known
                or self._holds_amds_alone(path)
                or (len(set(self.known[path])) == 1 and not path.startswith(TRUSTED))
            )
        )

    def unused(self) -> tuple[str, ...]:
        """Those in apt's own folders with AMD's key alone that no source needs."""
        return tuple(
            path
            for path in sorted(self.known)
            if path.startswith((KEYRINGS, TRUSTED))
            and path not in self.named
            and self._is_free(path)
            and self._holds_amds_alone(path)
        )

    def _is_free(self, path: str) -> bool:
        return not (path.startswith(TRUSTED) and self.any_key)

    def _holds_amds_alone(self, path: str) -> bool:
        return set(self.known[path]) == {self.amds}
