"""The model files of this box: both tiers, what each is, and when it was last used."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from boxtools import pagecache
from boxtools.errors import Trouble, WrongUse
from boxtools.safetensors import kind, read_header
from boxtools.settings import Settings
from boxtools.statefile import read_json, write_json

Tier = Literal["active", "archive"]
# What ComfyUI takes for a model (folder_paths.py of v0.3.64), and what well-known nodes add.
SUFFIXES = frozenset(
    (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx")
)
USAGE = "usage.json"


@dataclass(frozen=True)
class ModelFile:
    """One model file; reached through links from several places, it is still one."""

    folder: str  # checkpoints, vae, loras, ...
    name: str  # as ComfyUI shows it: with the directories below the folder
    tier: Tier
    path: Path  # in its tier, links of the user's not resolved
    size: int  # bytes
    used: float | None = None  # unix seconds; None where the disk does not keep it
    resident: int | None = None  # bytes in the page cache; filled on request
    linked: bool = False  # of the archive: the active tier has a link to it
    leads_to: Path | None = None  # where a link of the user's own leads; such a model is not moved
    kind: str | None = None  # "SDXL base", "VAE", ...
    dtype: str | None = None  # F16, ...
    parameters: int | None = None
    cut: bool = False  # shorter than its header says

    @property
    def key(self) -> str:
        """Folder and name, the same in both tiers."""
        return f"{self.folder}/{self.name}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        leads_to = str(self.leads_to) if self.leads_to else None
        return vars(self) | {"path": str(self.path), "leads_to": leads_to}


def find_models(
    settings: Settings, *, kinds: bool = False, resident: bool = False
) -> list[ModelFile]:
    """Every model file below both tiers, by folder and name.

    A link from the active tier to the archive is the archive's file, counted once. Other links are
    the user's: they are listed with where they lead. ``kinds`` reads the headers of .safetensors
    files, ``resident`` asks the kernel what is in the page cache; both leave the files' time of
    last use alone where the kernel allows it. Links that lead nowhere: ``lost_links``.
    """
    noted = _usage(settings)
    found: dict[Path, ModelFile] = {}
    # The archive first: the active tier's links are told by what they lead to.
    tiers: list[tuple[Tier, Path]] = [("active", settings.active)]
    if settings.archive is not None:
        tiers.insert(0, ("archive", settings.archive))
    for tier, root in tiers:
        for folder, name, path in _walk(root):
            model = _model(folder, name, tier, path, noted)
            if model is None:
                continue
            real = path.resolve()
            known = found.get(real)
            if known and known.tier == "archive" and tier == "active":
                found[real] = replace(known, linked=True)
            else:
                # A link's own place is its key: its file may be listed too.
                found[real if model.leads_to is None else path] = model
    models = sorted(found.values(), key=lambda model: (model.key.lower(), model.tier))
    if kinds:
        models = [_with_kind(model) for model in models]
    if resident:
        models = [replace(model, resident=pagecache.resident(model.path)) for model in models]
    return models


def lost_links(settings: Settings) -> list[Path]:
    """Links below the tiers that lead nowhere: mostly, the archive's disk is not mounted."""
    roots = [settings.active, *([settings.archive] if settings.archive else [])]
    return [path for root in roots for _, _, path in _walk(root) if not os.path.exists(path)]  # noqa: PTH110


def _walk(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Folder, name and path of everything that is called like a model; links are followed.

    As ComfyUI does it; a directory that was reached already through itself is not entered again.
    """
    for folder in sorted(_entries(root)):
        yield from _below(folder, folder, frozenset())


def _below(
    folder: Path, directory: Path, inside: frozenset[Path]
) -> Iterator[tuple[str, str, Path]]:
    # os.path's questions are answered with no also where a directory cannot be searched.
    if not os.path.isdir(directory):  # noqa: PTH112
        return
    real = directory.resolve()
    if real in inside:
        return
    for path in sorted(_entries(directory)):
        if path.name.startswith("."):
            continue
        if os.path.isdir(path):  # noqa: PTH112
            yield from _below(folder, path, inside | {real})
        elif path.suffix.lower() in SUFFIXES:
            yield folder.name, str(path.relative_to(folder)), path


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:  # absent, or not ours to read
        return []


def _model(
    folder: str, name: str, tier: Tier, path: Path, noted: dict[str, float]
) -> ModelFile | None:
    try:
        info = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    # Somewhere on the way from the tier there is a link: the file, or a directory above it.
    root = path.parents[len(Path(name).parts)]
    real = path.resolve()
    elsewhere = real != root.resolve() / folder / name
    times = [time for time in (_access(path, info), noted.get(f"{folder}/{name}")) if time]
    return ModelFile(
        folder, name, tier, path, info.st_size, max(times, default=None),
        leads_to=real if elsewhere else None,
    )  # fmt: skip


def _access(path: Path, info: os.stat_result) -> float | None:
    """Time of the last read, None where the mount does not keep it.

    With relatime, the default, the kernel renews it only where it is a day old or older than the
    last write (mount(8)): good for days, not for hours.
    """
    try:
        return None if os.statvfs(path).f_flag & os.ST_NOATIME else info.st_atime
    except OSError:
        return None


def _usage(settings: Settings) -> dict[str, float]:
    told = read_json(settings.state / USAGE)
    if not isinstance(told, dict):
        return {}
    return {
        key: float(when)
        for key, when in told.items()
        if isinstance(when, int | float) and 0 < when < 1e11
    }


def note_use(settings: Settings, keys: Iterable[str], now: float | None = None) -> None:
    """Remember that models ("checkpoints/x.safetensors") were used, finer than the disk does.

    Raises:
        Trouble: where the state cannot be written.
    """
    when = time.time() if now is None else now
    write_json(settings.state / USAGE, _usage(settings) | dict.fromkeys(keys, when))


def _with_kind(model: ModelFile) -> ModelFile:
    if model.path.suffix.lower() in (".safetensors", ".sft"):
        header = read_header(model.path)
        if header is None:
            return replace(model, kind="no safetensors header")
        return replace(
            model,
            kind=kind(header.tensors),
            dtype=header.dtype,
            parameters=header.parameters,
            cut=model.size < header.length,
        )
    # A pickle can run code when it is loaded, so it is not looked into.
    names = {".gguf": "GGUF", ".onnx": "ONNX"}
    return replace(model, kind=names.get(model.path.suffix.lower(), "pickle"))


def choose(models: Sequence[ModelFile], words: Sequence[str]) -> list[ModelFile]:
    """The models that the words name: a name, folder/name, or a pattern of either.

    Raises:
        WrongUse: where a word names none, or a name is in several folders.
    """
    chosen: dict[tuple[str, str], ModelFile] = {}
    for word in words:
        found = [model for model in models if _named(model, word)]
        if not found:
            raise WrongUse(f"there is no model {word!r}{_nearest(models, word)}")
        keys = sorted({model.key for model in found})
        if len(keys) > 1 and not re.search(r"[*?\[]", word):
            raise WrongUse(f"{word!r} is the name of {', '.join(keys)}; name one with its folder")
        chosen |= {(model.key, model.tier): model for model in found}
    return list(chosen.values())


def refuse_lost(settings: Settings, words: Sequence[str]) -> None:
    """See that no word names a model of the archive that cannot be reached.

    Raises:
        Trouble: with how to reach it.
    """
    archive = settings.archive
    if archive is None:
        return
    for folder, name, path in _walk(settings.active):
        if os.path.exists(path) or not os.path.islink(path):  # noqa: PTH110, PTH114
            continue
        model = ModelFile(folder, name, "archive", path, 0)
        target = Path(os.path.normpath(path.parent / path.readlink()))
        if archive not in target.parents or not any(_named(model, word) for word in words):
            continue
        if _entries(archive):
            raise Trouble(
                f"{model.key} leads to {target}, which is not there; put the file back, or remove"
                f" the link {path}"
            )
        state = "empty" if archive.is_dir() else "not there"
        raise Trouble(
            f"{model.key} is in the archive tier, and {archive} is {state}: its disk is not"
            f" mounted; see findmnt {shlex.quote(str(archive))}, mount it and try again"
        )


def _named(model: ModelFile, word: str) -> bool:
    names = (model.key, model.name, Path(model.name).name)
    # A name with a bracket is also taken literally.
    return word in (*names, Path(model.name).stem) or any(fnmatchcase(n, word) for n in names)


def _nearest(models: Sequence[ModelFile], word: str) -> str:
    names = {name for model in models for name in (model.key, model.name)}
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    hint = f"; near it: {', '.join(near)}" if near else ""
    return f"{hint}; see: strixbox models list"
