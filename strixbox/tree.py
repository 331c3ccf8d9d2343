"""Files of the box from their images here: ``templates/`` and ``files/`` mirror ``/``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class BoxFile:
    """A whole file as it shall be on the box."""

    path: str
    content: bytes = field(repr=False)
    mode: str = "644"
    owner: str = "root"
    group: str = "root"

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class BoxDirectory:
    """A directory as it shall be on the box; its content is not managed.

    ``group`` None is the owner's primary one, whatever the box calls it.
    """

    path: str
    mode: str = "755"
    owner: str = "root"
    group: str | None = "root"


@cache
def _environment() -> Environment:
    # Nothing here is HTML; an undefined name is a mistake of ours and must not render as nothing.
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )


def render(path: str, /, **values: object) -> str:
    """Text of ``templates/<path>.j2`` with ``values``.

    Raises:
        jinja2.UndefinedError: where the template names a value that was not given.
    """
    return _environment().get_template(f"{path.lstrip('/')}.j2").render(**values)


def rendered(
    path: str, /, *, mode: str = "644", image: str | None = None, **values: object
) -> BoxFile:
    """The file ``path`` from its template; ``image`` names one template for several paths."""
    return BoxFile(path, render(image or path, **values).encode(), mode)


@cache
def shipped(path: str, *, mode: str = "644", image: str | None = None) -> BoxFile:
    """The file ``path`` as it stands under ``files/``, there at ``image`` where that is given."""
    return BoxFile(path, (ROOT / "files" / (image or path).lstrip("/")).read_bytes(), mode)


@cache
def shipped_tree(path: str, *, image: str | None = None) -> tuple[BoxFile, ...]:
    """Every file below ``path`` as it stands under ``files/``, byte code left out."""
    root = ROOT / "files" / (image or path).lstrip("/")
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    return tuple(shipped(f"{path}/{name}", image=f"{image or path}/{name}") for name in names)
