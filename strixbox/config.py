"""What a box shall be: every setting, its type, its limits and what it means.

``Config.load`` turns the flat ``section_field`` keys of ``group_data/`` into frozen sections; a
task gets its sections and nothing else. Flat keys are kept in ``group_data`` because pyinfra
replaces whole values: a box overrides ``comfyui_port`` without repeating the other settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
)

from strixbox.codes import CODES
from strixbox.digests import digest_of
from strixbox.layout import BACKUPS, BUILDER, CACHE, LOGS, OPT, RUN, STATE
from strixbox.locks import known_locks, lock_text, pins
from strixbox.rocm_support import release_of_wheel
from strixbox.schema import Check, Section, mistakes_in


def _absolute(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or str(path) != text:
        raise ValueError("write an absolute path without '..', '//' or a trailing slash")
    if path == PurePosixPath("/"):
        raise ValueError("name a directory of its own, not /")
    return text


def _plain_url(text: str) -> str:
    if "@" in text.split("/")[2]:
        raise ValueError("keep user names and passwords out of URLs; they end up in logs")
    return text


AbsolutePath = Annotated[
    str, StringConstraints(pattern=r"^/[^\x00-\x1f\"\\]*$"), AfterValidator(_absolute)
]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]
Url = Annotated[
    str, StringConstraints(pattern=r"^https?://[^\s/]+(/\S*)?$"), AfterValidator(_plain_url)
]
Version = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)*([+._-][0-9A-Za-z.+_-]+)?$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f.][^/\x00-\x1f]*$")]
# What apt_preferences(5) takes for packages: names with globs; regular expressions are left out.
PackagePattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9+.*?-]*$")]
# Dots and capitals are common where accounts come from a directory (LDAP); systemd's User=, sudo
# and runuser take them.
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]
# A value goes into an EnvironmentFile and a shell script alike, so it is one printable line.
VariableValue = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f'\\]*$")]
FindingCode = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$")]
ModelFolder = Literal[
    "checkpoints",
    "clip_vision",
    "controlnet",
    "diffusion_models",
    "embeddings",
    "loras",
    "text_encoders",
    "upscale_models",
    "vae",
    "vae_approx",
]
MODEL_FOLDERS: tuple[str, ...] = get_args(ModelFolder)
# No directory of the user's and no RAM disk may be put there: the system's own, and ours.
_OWNED = tuple(
    PurePosixPath(path)
    for path in (
        *(OPT, STATE, CACHE, BACKUPS, LOGS, RUN),
        *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"),
        *("/var/backups", "/var/lib/apt", "/var/lib/dpkg"),
    )
)
# What no RAM disk may cover.
_NEEDED = tuple(
    PurePosixPath(path)
    for path in ("/home", "/root", "/run/user", "/run/systemd", "/snap", "/var/cache", "/var/log")
)
_SHARED = frozenset(
    PurePosixPath(path)
    for path in ("/home", "/mnt", "/media", "/opt", "/root", "/run", "/srv", "/tmp", "/var")  # noqa: S108
)
# The toolkit sets these from the settings named beside them.
RESERVED_FLAGS = {
    "--base-directory": "comfyui_base_directory",
    "--database-url": "comfyui_base_directory",
    "--extra-model-paths-config": "models_active and models_archive",
    "--listen": "comfyui_access",
    "--port": "comfyui_port",
    "--preview-method": "comfyui_preview",
    "--quick-test-for-ci": "the proof of a release, which ends with it",
    "--temp-directory": "tmpfs_path",
}
# The toolkit gives these to what it starts, whatever a profile says.
RESERVED_VARIABLES = frozenset({"PIP_CONSTRAINT", "STRIXBOX_UNIT", "UV_CONSTRAINT"})
# Mutually exclusive in ComfyUI v0.3.64's own parser (comfy/cli_args.py).
EXCLUSIVE_FLAGS: tuple[frozenset[str], ...] = (
    frozenset({"--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram", "--cpu"}),
    frozenset(
        {
            "--use-split-cross-attention",
            "--use-quad-cross-attention",
            "--use-pytorch-cross-attention",
            "--use-sage-attention",
            "--use-flash-attention",
        }
    ),
    frozenset({"--cache-classic", "--cache-lru", "--cache-none"}),
    frozenset({"--force-fp32", "--force-fp16"}),
    frozenset(
        {
            *("--fp32-unet", "--fp64-unet", "--bf16-unet", "--fp16-unet"),
            *("--fp8_e4m3fn-unet", "--fp8_e5m2-unet", "--fp8_e8m0fnu-unet"),
        }
    ),
    frozenset({"--fp16-vae", "--fp32-vae", "--bf16-vae"}),
    frozenset(
        {
            *("--fp8_e4m3fn-text-enc", "--fp8_e5m2-text-enc"),
            *("--fp16-text-enc", "--fp32-text-enc", "--bf16-text-enc"),
        }
    ),
    frozenset({"--cuda-malloc", "--disable-cuda-malloc"}),
    frozenset({"--force-upcast-attention", "--dont-upcast-attention"}),
)


# Data of a single run, no settings of a box: the entry that takes it, its form, and that in words.
RUN_DATA = {
    "release": (
        "rollback",
        re.compile(r"[0-9a-f]{12}"),
        "a release's name, 12 characters of 0-9 a-f (ls /opt/strixbox/releases)",
    ),
    "purge_rocm": ("uninstall", re.compile(r"true|false"), "true or false"),
}


class Box(Section):
    """The machine itself and the account that ComfyUI belongs to."""

    user: UserName = Field(description="account that owns ~/ComfyUI and runs the service")
    home: AbsolutePath = Field(description="home directory of that account")
    ram_gib: int = Field(ge=8, le=1024, description="memory of the box, GiB")
    distribution: Word = Field(description="ID and VERSION_ID the box must have, e.g. ubuntu-24.04")
    accept: dict[FindingCode, str] = Field(
        description="preflight findings that are accepted on this box: code -> the reason"
    )

    def checks(self) -> tuple[Check, ...]:
        """The account is a person's; findings are accepted by a known code, for a reason."""
        return self._person(), self._reasons()

    def _person(self) -> Check:
        if self.user in (BUILDER, "root"):
            yield (
                f"box_user {self.user} is not a person's account; name the one that ComfyUI's"
                " files belong to"
            )

    def _reasons(self) -> Check:
        for code, reason in self.accept.items():
            if code not in CODES:
                yield f"box_accept names {code}, which no check has; see docs/preflight.md"
            if not reason.strip():
                yield f"box_accept of {code} needs a reason"


class Rocm(Section):
    """ROCm from AMD's apt repository; ``version`` None leaves apt's ROCm off the box."""

    version: Version | None = Field(description="ROCm release from apt, or None for none")
    packages: tuple[Word, ...] = Field(description="apt packages that are installed and held")
    repository: Url = Field(description="apt repository of that release")
    suite: Word = Field(description="suite of the repository")
    key_url: Url = Field(description="the repository's signing key, ASCII-armoured")
    key_fingerprint: Fingerprint = Field(description="fingerprint that key must have")
    pinned: tuple[PackagePattern, ...] = Field(
        description="package patterns pinned to AMD's repository"
    )
    disk_gib: int = Field(ge=0, le=500, description="disk room the packages need, GiB")

    def checks(self) -> tuple[Check, ...]:
        """The repository is that of the version, and something is installed from it."""
        return self._repository(), self._packages()

    def _repository(self) -> Check:
        if self.version and not self.repository.rstrip("/").endswith("/" + self.version):
            yield (
                f"rocm_repository {self.repository} is not the repository of rocm_version"
                f" {self.version}; change both together"
            )

    def _packages(self) -> Check:
        if self.version and not self.packages:
            yield "rocm_packages is empty; set rocm_version to None to install none"


class Wheel(Section):
    """One wheel by URL; ``sha256`` None is recorded at first use and checked ever after."""

    project: Word
    version: Version
    url: Url
    sha256: Sha256 | None

    def checks(self) -> tuple[Check, ...]:
        """The URL names this very wheel."""
        return (self._file(),)

    def _file(self) -> Check:
        name = self.url.rsplit("/", 1)[1].replace("%2B", "+")
        if not name.startswith(f"{self.project.replace('-', '_')}-{self.version}-"):
            yield f"the URL of {self.project} {self.version} names another file: {name}"
        elif not name.endswith(".whl"):
            yield f"the URL of {self.project} does not end in .whl: {name}"


class Python(Section):
    """The interpreter, uv, and the wheels of the stack."""

    version: Annotated[str, StringConstraints(pattern=r"^3\.\d+$")] = Field(
        description="Python minor version of the releases' environments"
    )
    index_url: Url = Field(description="package index for everything but the stack's own wheels")
    uv_version: Version = Field(description="uv, which builds the environments")
    uv_sha256: Sha256 = Field(description="sha256 of uv's manylinux x86_64 wheel")
    wheels: tuple[Wheel, ...] = Field(description="the stack's wheels: torch and its family")
    numpy: Version = Field(description="numpy that goes with those wheels")
    hip: Version | None = Field(
        description="start of torch.version.hip that proves the ROCm build; None for a CPU build"
    )
    requirements: Word = Field(
        description="lock of ComfyUI's requirements in files/opt/strixbox/locks"
    )

    @property
    def torch(self) -> Wheel | None:
        """Torch's own wheel."""
        return next((wheel for wheel in self.wheels if wheel.project == "torch"), None)

    def checks(self) -> tuple[Check, ...]:
        """The wheels are torch's family for this Python and ROCm, and the lock is for them."""
        return self._family(), self._hip(), self._tags(), self._lock()

    def _family(self) -> Check:
        projects = [wheel.project for wheel in self.wheels]
        if self.torch is None:
            yield "python_wheels has no torch"
        for project in sorted({p for p in projects if projects.count(p) > 1}):
            yield f"python_wheels names {project} twice"

    def _hip(self) -> Check:
        torch = self.torch
        if torch and self.hip is not None and f"+rocm{self.hip}." not in torch.version + ".":
            yield (
                f"python_wheels: torch {torch.version} is not built for ROCm {self.hip}; take AMD's"
                " wheel, whose version ends in +rocm..., or mend python_hip"
            )

    def _tags(self) -> Check:
        tag = "cp" + self.version.replace(".", "")
        other = [
            wheel.project
            for wheel in self.wheels
            if f"-{tag}-" not in wheel.url and "-py3-" not in wheel.url
        ]
        if other:
            yield (
                f"python_wheels: {', '.join(other)} not built for Python {self.version} ({tag});"
                " take other wheels, or mend python_version"
            )

    def _lock(self) -> Check:
        if self.requirements not in known_locks():
            yield (
                f"python_requirements names the lock {self.requirements}, which is not in"
                f" files/opt/strixbox/locks; take one of {', '.join(known_locks())}"
            )
            return
        locked = pins(lock_text(self.requirements), self.version).get("numpy")
        if locked is not None and locked != self.numpy:
            yield (
                f"python_numpy is {self.numpy} but the lock {self.requirements} has numpy {locked};"
                f" set python_numpy to {locked}, or make a lock for {self.numpy} with bin/lock"
            )


class Node(Section):
    """A pinned custom node: a git checkout at a commit, part of the release."""

    name: FileName
    url: Url
    commit: Commit


class Comfyui(Section):
    """ComfyUI at a commit, its nodes, and how the service is reached."""

    url: Url = Field(description="git repository of ComfyUI")
    commit: Commit = Field(description="commit of ComfyUI")
    nodes: tuple[Node, ...] = Field(description="pinned custom nodes of the release")
    base_directory: AbsolutePath = Field(
        description="the user's directory: models, input, output, user, custom_nodes"
    )
    access: Literal["local", "open"] = Field(
        description="local: 127.0.0.1 only, reached by ssh -L; open: every address, no password"
    )
    port: int = Field(ge=1024, le=65535, description="TCP port of the server")
    profile: Word = Field(description="launch profile that the service runs")
    preview: Literal["none", "auto", "latent2rgb", "taesd"] = Field(
        description="live preview method"
    )
    start_timeout: int = Field(ge=5, le=3600, description="seconds until the server must answer")
    keep_releases: int = Field(ge=2, le=10, description="releases kept on the box")
    release_disk_gib: int = Field(ge=1, le=200, description="disk room one release needs, GiB")

    @property
    def models_directory(self) -> str:
        """The active tier, where ComfyUI looks for models."""
        return f"{self.base_directory}/models"

    def checks(self) -> tuple[Check, ...]:
        """Each node has a directory of its own."""
        return (self._node_names(),)

    def _node_names(self) -> Check:
        names = [node.name for node in self.nodes]
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield f"comfyui_nodes names {name} twice"


class Variable(Section):
    """An environment variable and what it really does."""

    value: VariableValue
    # A comment in files that shells and systemd read: a second line would be no comment.
    does: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{10,}$")]


class Profile(Section):
    """One way to start ComfyUI: flags, variables by name, and what runs beside it."""

    flags: tuple[str, ...]
    variables: tuple[VariableName, ...]
    preload: bool

    def checks(self) -> tuple[Check, ...]:
        """The flags are the profile's own to set, and ComfyUI's parser takes them together."""
        return self._reserved(), self._exclusive()

    def _reserved(self) -> Check:
        for flag in self.flags:
            if not re.fullmatch(r"[^\x00-\x1f'\"\\$`]+", flag):
                yield f"the flag {flag!r} holds a character that no flag needs"
            # argparse takes the beginning of a flag for the flag: --list for --listen.
            name = flag.split("=", 1)[0]
            meant = [full for full in RESERVED_FLAGS if len(name) > 2 and full.startswith(name)]
            if meant:
                yield f"the flag {name} is set by {RESERVED_FLAGS[meant[0]]}; leave it out"

    def _exclusive(self) -> Check:
        names = [flag.split("=", 1)[0] for flag in self.flags]
        for group in EXCLUSIVE_FLAGS:
            both = [name for name in names if name in group]
            if len(both) > 1:
                yield f"the flags {' and '.join(both)} exclude each other; keep one"


class Launch(Section):
    """Every variable once, the profiles that use them, and those of the login shell."""

    variables: dict[VariableName, Variable] = Field(
        description="environment variables: value and what each really does"
    )
    profiles: dict[Word, Profile] = Field(description="launch profiles: flags, variables, preload")
    shell: tuple[VariableName, ...] = Field(description="variables of the block in ~/.bashrc")

    def checks(self) -> tuple[Check, ...]:
        """Every variable that is used is there, and none is one that the toolkit sets."""
        return self._names(), self._reserved()

    def _reserved(self) -> Check:
        for name in sorted(RESERVED_VARIABLES & self.variables.keys()):
            yield f"launch_variables: {name} is set by the toolkit itself; leave it out"

    def _names(self) -> Check:
        users: list[tuple[str, Iterable[str]]] = [("launch_shell", self.shell)]
        users += [(f"profile {name}", profile.variables) for name, profile in self.profiles.items()]
        for user, names in users:
            for name in names:
                if name not in self.variables:
                    yield f"{user} names the variable {name}, absent in launch_variables"


class Tools(Section):
    """The strixbox command on the box, and our nodes in ComfyUI."""

    profiler: bool = Field(description="load the node pack that `strixbox profile` needs")


class Tmpfs(Section):
    """The RAM disk for ComfyUI's temporary files."""

    path: AbsolutePath = Field(description="mount point, ComfyUI's --temp-directory")
    size_gib: int = Field(ge=1, le=512, description="upper bound of the RAM disk, GiB")


class Model(Section):
    """A model file: where it belongs and, when it is to be downloaded, from where."""

    name: FileName
    folder: ModelFolder
    tier: Literal["active", "archive"]
    url: Url | None = None
    sha256: Sha256 | None = None
    bytes: int | None = Field(default=None, ge=1)


class Models(Section):
    """The model tiers and the manifest that says which model belongs where."""

    archive: AbsolutePath | None = Field(
        description="models directory of the archive tier (SATA), or None for one tier"
    )
    manifest: tuple[Model, ...] = Field(description="model files that are managed")

    def checks(self) -> tuple[Check, ...]:
        """Each model is named once, and has a tier to be in."""
        return self._names(), self._tiers()

    def _names(self) -> Check:
        places = [(model.folder, model.name) for model in self.manifest]
        for folder, name in sorted({place for place in places if places.count(place) > 1}):
            yield f"models_manifest names {folder}/{name} twice"

    def _tiers(self) -> Check:
        for model in self.manifest:
            if model.tier == "archive" and self.archive is None:
                yield (
                    f"models_manifest puts {model.name} in the archive tier but models_archive is"
                    " None; set models_archive to the SATA disk's directory"
                )


class Config(Section):
    """All settings of one box."""

    stack: Word = Field(description="name of the stack, shown in reports")
    box: Box
    rocm: Rocm
    python: Python
    comfyui: Comfyui
    launch: Launch
    tools: Tools
    tmpfs: Tmpfs
    models: Models

    def checks(self) -> tuple[Check, ...]:
        """What two sections say fits together."""
        return (
            self._profile(),
            self._rocm_of_torch(),
            self._ram_disk_size(),
            self._directories(),
            self._ram_disk_covers_nothing(),
            self._tiers_are_apart(),
        )

    def _profile(self) -> Check:
        if self.comfyui.profile not in self.launch.profiles:
            known = ", ".join(sorted(self.launch.profiles))
            yield (
                f"comfyui_profile {self.comfyui.profile!r} is not a launch profile;"
                f" take one of {known}"
            )

    def _rocm_of_torch(self) -> Check:
        torch, release = self.python.torch, self.rocm.version
        built = release_of_wheel(torch.version) if torch else ""
        if torch is None or not built:
            return
        if release is None:
            if ".lw." in torch.version:
                yield (
                    f"python_wheels: torch {torch.version} is a lightweight wheel, which brings no"
                    f" ROCm libraries; set rocm_version to {built}"
                )
        elif not f"{release}.".startswith(f"{built}."):
            yield (
                f"python_wheels: torch {torch.version} is built for ROCm {built}, and"
                f" rocm_version is {release}; change both together, or set rocm_version to None"
            )

    def _ram_disk_size(self) -> Check:
        if self.tmpfs.size_gib * 2 > self.box.ram_gib:
            yield (
                f"tmpfs_size_gib {self.tmpfs.size_gib} is more than half of box_ram_gib"
                f" {self.box.ram_gib}; the GPU shares that memory"
            )

    def _directories(self) -> Check:
        yield from _misplaced("comfyui_base_directory", self.comfyui.base_directory)
        yield from _misplaced("tmpfs_path", self.tmpfs.path)
        if self.models.archive is not None:
            yield from _misplaced("models_archive", self.models.archive)

    def _ram_disk_covers_nothing(self) -> Check:
        ram = PurePosixPath(self.tmpfs.path)
        ours = {"comfyui_base_directory": self.comfyui.base_directory}
        if self.models.archive is not None:
            ours["models_archive"] = self.models.archive
        for name, path in ours.items():
            if _within(PurePosixPath(path), ram) or _within(ram, PurePosixPath(path)):
                yield (
                    f"tmpfs_path {ram} and {name} {path} must not hold each other: what is on the"
                    " RAM disk is gone after a reboot"
                )
                return
        if any(_within(ram, root) for root in _OWNED):
            return  # told as misplaced
        for root in (*_OWNED, *_NEEDED, PurePosixPath(self.box.home)):
            if _within(root, ram):
                yield (
                    f"tmpfs_path {ram} holds {root}, which the RAM disk would hide; choose a"
                    " directory of its own"
                )
                return

    def _tiers_are_apart(self) -> Check:
        if self.models.archive is None:
            return
        base, archive = (
            PurePosixPath(self.comfyui.base_directory),
            PurePosixPath(self.models.archive),
        )
        if _within(base, archive) or _within(archive, base / "models"):
            yield (
                f"models_archive {archive} and the active tier {base}/models must not hold each"
                " other; name a directory on the other disk"
            )

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Build the configuration from flat ``section_field`` keys, all mistakes at once.

        Keys of pyinfra itself (``ssh_...`` and ``_...``) are left alone. The account is that of the
        login, and its home and ComfyUI's directory follow from it, unless they are set.

        Raises:
            ConfigError: with one line per mistake, each naming the setting and the mend.
        """
        sections: dict[str, Any] = {}
        mistakes: list[str] = []
        for key, value in _follow(data).items():
            if key.startswith(("ssh_", "_")) or key in RUN_DATA:
                continue
            section, _, field = key.partition("_")
            if key == "stack":
                sections[key] = value
            elif section in cls.model_fields and field:
                sections.setdefault(section, {})[field] = value
            else:
                mistakes.append(f"{key}: there is no such setting{_nearest(key)}")
        values = _tuples(sections)
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(mistakes + mistakes_in(values, cls, error, _sentence)) from None
        if mistakes:
            raise ConfigError(mistakes)
        return config

    def digest(self) -> str:
        """Short digest of all settings, recorded with every run."""
        return digest_of(self.model_dump(mode="json"))


def _follow(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those that follow from others and are not set themselves."""
    whole = dict(data)
    if isinstance(data.get("ssh_user"), str):
        whole.setdefault("box_user", data["ssh_user"])
    if "box_user" in whole:
        whole.setdefault("box_home", f"/home/{whole['box_user']}")
    if "box_home" in whole:
        whole.setdefault("comfyui_base_directory", f"{whole['box_home']}/ComfyUI")
    return whole


def _misplaced(name: str, text: str) -> Check:
    """Where no directory of the user's, and no RAM disk, may be."""
    path = PurePosixPath(text)
    if path in _SHARED:
        yield f"{name} {path} is shared with others; name a directory below it"
        return
    for root in _OWNED:
        inside = _within(path, root)
        # What a RAM disk would hide is told as that.
        if inside or (name != "tmpfs_path" and _within(root, path)):
            yield (
                f"{name} {path} {'is inside' if inside else 'holds'} {root}, which belongs to the"
                " system or to the toolkit; choose a directory of its own"
            )
            return


def _within(path: PurePosixPath, directory: PurePosixPath) -> bool:
    return path == directory or directory in path.parents


class ConfigError(ValueError):
    """All mistakes found in the settings of one box."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def settings() -> list[tuple[str, str, str]]:
    """Every setting as (flat key, type as written in the schema, meaning), in schema order."""
    rows = []
    for section, outer in Config.model_fields.items():
        kind = outer.annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            rows.append((section, "text", outer.description or ""))
            continue
        schema = kind.model_json_schema()["properties"]
        rows += [
            (f"{section}_{field}", _type_name(schema[field]), info.description or "")
            for field, info in kind.model_fields.items()
        ]
    return rows


def _type_name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(str(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type_name(choice) for choice in schema["anyOf"])
    bounds = [str(schema[key]) for key in ("minimum", "maximum") if key in schema]
    names = {
        "string": "text",
        "integer": "whole number",
        "array": "list",
        "boolean": "true or false",
        "object": "table",
        "null": "None",
    }
    name = names.get(schema.get("type", ""), "table")
    return f"{name} {' to '.join(bounds)}" if len(bounds) == 2 else name


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    known = [name for name, _, _ in settings()]
    close = get_close_matches(key, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else "; see the settings table in README.md"


def _tuples(value: Any) -> Any:
    """Lists become tuples: group_data files write either, the frozen schema holds tuples."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


_MENDS = {
    "missing": "it is required; set it in group_data/all.py or for this box in boxes.yaml",
    "string_type": "write it as text, in quotes",
    "int_type": "write it as a whole number without quotes",
    "bool_type": "write true or false",
}
_PATTERN_MENDS = {
    r"^[^\x00-\x1f]{10,}$": "say in one line of ten characters or more what it does",
    r"^[0-9a-f]{40}$": "write the full commit: 40 characters of 0-9 a-f",
    r"^[0-9a-f]{64}$": "write the sha256: 64 characters of 0-9 a-f, or None where none is known",
    r"^[0-9A-F]{40}$": "write the key's fingerprint: 40 characters of 0-9 A-F without blanks",
    r"^/[^\x00-\x1f\"\\]*$": "write an absolute path, without quotes or backslashes",
    r"^https?://[^\s/]+(/\S*)?$": "write a URL that starts with http:// or https://",
}


def _sentence(error: Any) -> str:
    """One pydantic error as ``setting: what is wrong; the mend``."""
    where = [str(part) for part in error["loc"]]
    key = where[0] if len(where) == 1 else "_".join(where[:2])
    inner = "".join(f"[{part}]" for part in where[2:] if part != "[key]")
    kind = error["type"]
    if kind == "value_error":
        text = str(error["ctx"]["error"])
        return text if not where or len(where) == 1 else f"{key}{inner}: {text}"
    if kind == "extra_forbidden":
        return f"{key}{inner}: there is no such setting{'' if inner else _nearest(key)}"
    mend = _MENDS.get(kind)
    if kind == "string_pattern_mismatch":
        mend = _PATTERN_MENDS.get(
            error["ctx"]["pattern"], f"it must match {error['ctx']['pattern']}"
        )
    if mend is None:
        mend = error["msg"][0].lower() + error["msg"][1:]
    got = error.get("input")
    shown = f"{got!r} is not valid; " if isinstance(got, str | int | float | bool) else ""
    return f"{key}{inner}: {shown}{mend}"
