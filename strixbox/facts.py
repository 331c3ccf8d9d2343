"""Questions to a box; each is one command, answered in JSON by a program of ``strixbox/box``."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from strixbox.programs import read

T = TypeVar("T")


class BoxFact(FactBase[T]):
    """A fact whose program prints one JSON value; None only where the box did not answer."""

    def process(self, output: list[str]) -> T:
        """Parse the program's answer."""
        try:
            return cast(T, json.loads("\n".join(output)))
        except ValueError as error:
            raise FactProcessError(f"{self.name}: the box answered no JSON: {error}") from error


class FileStates(BoxFact[dict[str, dict[str, Any]]]):
    """For each path: kind, mode, owner, group, sha256 or target; ``{"kind": "absent"}`` else."""

    def command(self, paths: tuple[str, ...]) -> StringCommand:
        """Ask about ``paths``, none of which is followed where it is a link."""
        return read("file_states", {"paths": list(paths)})
