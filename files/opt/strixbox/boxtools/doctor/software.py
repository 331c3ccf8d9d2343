"""Facts about the software: the release in use, its torch, flags, variables, TunableOp."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from boxtools.doctor.machine import Account
from boxtools.doctor.models import Models, read_models
from boxtools.doctor.world import World, listed, parse_object, text
from boxtools.settings import Settings

ETC = "/etc/strixbox"
WATCHED = ("HSA_OVERRIDE_GFX_VERSION", "PYTORCH_ROCM_ARCH", "HIP_VISIBLE_DEVICES")
# Where variables are set for everybody: by PAM, by systemd, by login shells.
FOR_ALL = ("/etc/environment", "/etc/security/pam_env.conf")
FOLDERS = (
    "/etc/environment.d",
    "/etc/profile.d",
    "/etc/systemd/system.conf.d",
    "/etc/systemd/system",
)
OF_USER = (".bashrc", ".profile", ".bash_profile", ".zshrc", ".config/environment.d")
# Nothing but this one assignment: such a line can be turned off and nothing else goes with it.
PLAIN = re.compile(r"\s*(?:export\s+)?HSA_OVERRIDE_GFX_VERSION=[\w.\"']*\s*(?:#.*)?")
BLOCK = ("# >>> strixbox >>>", "# <<< strixbox <<<")
# Runs in the release's own Python: comfy.options and comfy.cli_args import neither torch nor a GPU.
PARSER = """
import contextlib, io, json, sys
import comfy.options
comfy.options.enable_args_parsing()
told = {}
for name, words in json.loads(sys.argv[1]).items():
    sys.modules.pop("comfy.cli_args", None)
    sys.argv[:] = ["main.py", *words]
    said = io.StringIO()
    told[name] = None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            import comfy.cli_args
        except SystemExit as end:
            if end.code:
                told[name] = (said.getvalue().strip().splitlines() or ["refused"])[-1]
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Torch:
    """What ``torch/version.py`` says; empty strings where it says None."""

    version: str
    hip: str
    cuda: str


@dataclass(frozen=True)
class Release:
    """The release that ``current`` names."""

    path: str  # real path, empty where the link leads nowhere
    seal: dict[str, Any]  # release.json, empty where it cannot be read
    torch: Torch | None
    packages: dict[str, str]  # version by canonical name
    pins: dict[str, str]  # constraints.txt: what may not change

    @property
    def archs(self) -> tuple[str, ...]:
        """GPU targets that the wheel has code for, as proved at the deploy; empty if unknown."""
        proof = self.seal.get("proof")
        torch = proof.get("torch") if isinstance(proof, dict) else None
        archs = torch.get("archs") if isinstance(torch, dict) else None
        return tuple(str(arch) for arch in archs) if isinstance(archs, list) else ()


@dataclass(frozen=True)
class Leftover:
    """A line outside of our own files that sets a variable ROCm reads."""

    path: str
    number: int  # line, from 1
    line: str
    of_user: bool  # the user's own file, which only the user's word may change

    @property
    def plain(self) -> bool:
        """Whether the line sets the override and does nothing else."""
        return PLAIN.fullmatch(self.line) is not None


@dataclass(frozen=True)
class Tuned:
    """TunableOp's results as they lie on the disk."""

    path: str
    exists: bool
    validators: dict[str, str]
    results: int
    writable: bool  # by the service's account


@dataclass(frozen=True)
class Software:
    """What is installed and how it is set up."""

    release: Release
    flags: dict[str, str | None] | None  # what the parser says of each profile; None: not asked
    leftovers: tuple[Leftover, ...]
    unread: tuple[str, ...]  # files that might hold leftovers and may not be read
    tuned: Tuned | None
    models: Models


def read_software(
    world: World, settings: Settings, account: Account, running: list[str] | None
) -> Software:
    """Look at all of it; ``running`` is the command line of the service's process, if any."""
    release = read_release(settings.current)
    leftovers, unread = _leftovers(world, account)
    return Software(
        release=release,
        flags=_flags(world, settings, release, running),
        leftovers=tuple(leftovers),
        unread=tuple(unread),
        tuned=_tuned(settings, account),
        models=read_models(world, settings),
    )


def read_release(current: Path) -> Release:
    """The release that the link names, read from its files without starting anything."""
    try:
        path = str(current.resolve(strict=True))
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        return Release("", {}, None, {}, {})
    torch: Torch | None = None
    packages: dict[str, str] = {}
    for site in sorted((current / "venv/lib").glob("python3*/site-packages")):
        torch = torch or parse_torch(text(site / "torch/version.py"))
        packages |= dict(_packages(site))
    return Release(
        path,
        parse_object(text(current / "release.json")),
        torch,
        packages,
        parse_pins(text(current / "constraints.txt")),
    )


def parse_torch(content: str) -> Torch | None:
    """The versions in ``torch/version.py``; None where it is not that file."""

    def value(name: str) -> str:
        match = re.search(rf"^{name}\b[^=\n]*=[ \t]*['\"]([^'\"\n]+)", content, re.MULTILINE)
        return match[1] if match else ""

    version = value("__version__")
    return Torch(version, value("hip"), value("cuda")) if version else None


def parse_pins(content: str) -> dict[str, str]:
    """Version by canonical name of every ``name==version`` line."""
    pairs = (line.split("#")[0].split(";")[0].partition("==") for line in content.splitlines())
    return {canonicalize_name(n.strip()): v.strip() for n, s, v in pairs if s and n.strip()}


def _packages(site: Path) -> Iterator[tuple[str, str]]:
    for info in listed(site):
        match = re.fullmatch(r"(.+?)-([^-]+)\.dist-info", info.name)
        # RECORD is written last: without it an install was cut short.
        if match and (info / "RECORD").is_file():
            yield canonicalize_name(match[1]), match[2]


def _flags(
    world: World, settings: Settings, release: Release, running: list[str] | None
) -> dict[str, str | None] | None:
    asked = {name: profile_words(world, settings, name) for name in settings.profiles}
    if running:
        asked["the running service"] = running
    code = Path(release.path) / "ComfyUI"
    if not release.path or not code.is_dir():
        return None
    python = str(Path(release.path) / "venv/bin/python")
    words = [python, "-s", "-c", PARSER, json.dumps(asked)]
    told = parse_object(world.run(words, directory=code, user=settings.user).out)
    if not told:
        return None
    return {str(name): None if said is None else str(said)[:300] for name, said in told.items()}


def profile_words(world: World, settings: Settings, name: str) -> list[str]:
    """ComfyUI's flags under a profile: what the launch program reads, else the settings' own."""
    argv = parse_object(world.text(f"{ETC}/launch/{name}.json")).get("argv")
    if isinstance(argv, list):
        return [str(word) for word in argv]
    return list(settings.profiles[name].flags)


def _leftovers(world: World, account: Account) -> tuple[list[Leftover], list[str]]:
    places = [world.path(path) for path in FOR_ALL]
    for folder in FOLDERS:
        for path in listed(world.path(folder)):
            places += listed(path) if path.name.endswith(".d") else [path]
    own = [world.path(f"{account.home}/{name}") for name in OF_USER] if account.home else []
    own = [path for place in own for path in (listed(place) if place.is_dir() else [place])]
    found, unread = [], []
    for path in (*places, *own):
        shown = "/" + str(path.relative_to(world.root))
        try:
            if path.is_file():
                path.open("rb").close()
        except PermissionError:
            unread.append(shown)
            continue
        except OSError:
            continue
        for number, line in settings_of(text(path)):
            found.append(Leftover(shown, number, line, path in own))
    return found, unread


def settings_of(content: str) -> Iterator[tuple[int, str]]:
    """Lines outside of our block that set one of the watched variables, with their numbers."""
    names = "|".join(WATCHED)
    pattern = re.compile(rf"^[^#]{{0,200}}?(?<![\w$\{{])(?:{names})(?:[ \t]+DEFAULT)?[ \t]*=")
    inside = False
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() in BLOCK:
            inside = line.strip() == BLOCK[0]
        elif not inside and pattern.match(line):
            yield number, line.strip()[:300]


def _tuned(settings: Settings, account: Account) -> Tuned | None:
    if settings.tunableop is None:
        return None
    # torch puts the device's ordinal where %d stands; the box has one GPU.
    path = Path(str(settings.tunableop).replace("%d", "0"))
    try:
        info = path.parent.stat()
        writable = account.uid is None or account.uid in (0, info.st_uid)
        writable = writable or (info.st_gid in account.gids and bool(info.st_mode & 0o020))
    except OSError:
        writable = False
    validators, results = parse_tuned(text(path))
    return Tuned(str(path), path.is_file(), validators, results, writable)


def parse_tuned(content: str) -> tuple[dict[str, str], int]:
    """Validators by name and the number of results in TunableOp's file (torch's tunable/README)."""
    validators, results = {}, 0
    for line in content.splitlines():
        fields = line.split(",")
        if fields[0] == "Validator" and len(fields) >= 3:
            validators[fields[1]] = ",".join(fields[2:]).strip()
        elif len(fields) >= 3:
            results += 1
    return validators, results
