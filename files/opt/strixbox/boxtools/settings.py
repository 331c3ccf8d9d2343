"""What the deploy told the tools about this box: ``/etc/strixbox/tools.json``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boxtools.errors import Trouble

FILE = "/etc/strixbox/tools.json"
# Names another file, for a second server on the box and for tests.
ENVIRONMENT = "STRIXBOX_TOOLS"


class Part(BaseModel):
    """A frozen part of the settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ManagedModel(Part):
    """A model of the deploy's manifest."""

    name: str
    folder: str
    tier: Literal["active", "archive"]
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None


class Variable(Part):
    """An environment variable of a launch profile and what it really does."""

    value: str
    does: str


class Profile(Part):
    """A launch profile: ComfyUI's flags and the names of its variables."""

    flags: tuple[str, ...]
    variables: tuple[str, ...]
    preload: bool


class Settings(Part):
    """All of it."""

    managed: str = Field("", description="the deploy's mark, by which it knows its own files")
    url: str = Field(description="where ComfyUI answers, without a trailing slash")
    user: str = Field(description="account that runs the service and owns the models")
    service: str = Field(description="systemd unit of ComfyUI")
    base_directory: Path = Field(description="ComfyUI's --base-directory: models, input, output")
    temp_directory: Path = Field(description="ComfyUI's temporary files, a RAM disk")
    archive: Path | None = Field(description="models directory of the archive tier, if any")
    current: Path = Field(description="link to the release in use")
    launch: Path = Field(
        description="program that starts ComfyUI: PROFILE [NAME=VALUE...] [FLAG...]"
    )
    state: Path = Field(description="where the tools keep results; the user owns it")
    stack: str = Field(description="name of the stack, e.g. rocm-6.4.2")
    torch: str = Field(description="version of the pinned torch")
    hip: str | None = Field(description="start of torch.version.hip; None for a CPU build")
    tunableop: Path | None = Field(description="TunableOp's results, %d for the device ordinal")
    profile: str = Field(description="launch profile that the service runs")
    profiles: dict[str, Profile]
    variables: dict[str, Variable]
    models: tuple[ManagedModel, ...]
    ram_gib: int

    @property
    def active(self) -> Path:
        """Models directory of the active tier."""
        return self.base_directory / "models"


def load(path: Path | None = None) -> Settings:
    """Read the settings.

    Raises:
        Trouble: where they are not there or not what the deploy writes.
    """
    path = path or Path(os.environ.get(ENVIRONMENT, FILE))
    try:
        return Settings.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Trouble(f"{path} is not there; run the deploy on this box once more") from None
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}; see its owner and mode") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise Trouble(
            f"{path} is not what the deploy writes ({_first(error)}); run the deploy once more"
        ) from None


def _first(error: ValidationError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{where}: {first['msg']}"
