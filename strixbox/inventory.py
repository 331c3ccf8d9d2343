"""boxes.yaml -> pyinfra's hosts and groups, checked before any box is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self, get_type_hints

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator
from pyinfra.api.arguments import all_argument_meta
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.ssh import ConnectorData
from typeguard import TypeCheckError, check_type

from strixbox import lab
from strixbox.config import Config, ConfigError, Section, UserName, Word

ROOT = Path(__file__).parent.parent
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:%-]*$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]

_CONNECTION_TYPES = get_type_hints(ConnectorData)
_CONNECTION = frozenset(_CONNECTION_TYPES)
_OWN_FIELDS = {
    "ssh_hostname": "address",
    "ssh_key": "key",
    "ssh_port": "port",
    "ssh_user": "user",
}
_PASSWORDS = frozenset({"ssh_password", "ssh_key_password", "_sudo_password", "_su_password"})

# Groups that mean something without a file in group_data.
PLAIN_GROUPS = frozenset({"canary"})


def _expanded(path: str) -> Path:
    """``path`` with its ~; one of an account that is not there stays as it is written."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _is_private_key(path: Path) -> bool:
    """Whether a file reads like a private key; whether it is the right one, the box will say."""
    try:
        with path.open("rb") as stream:
            first = stream.readline(200)
    except OSError:
        return False
    return first.startswith(b"-----BEGIN ") and b"PRIVATE KEY" in first


class BoxEntry(Section):
    """One box of boxes.yaml."""

    name: Word
    address: Address
    user: UserName
    port: int = Field(default=22, ge=1, le=65535)
    key: str | None = None
    groups: tuple[GroupName, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _connection_is_sound(self) -> Self:
        for key in self.settings:
            if key in _PASSWORDS:
                raise ValueError(
                    f"settings.{key}: keep passwords out of files; log in with a key (ssh-copy-id),"
                    " sudo's password is asked for when it is needed"
                )
            if key in _OWN_FIELDS:
                raise ValueError(
                    f"settings.{key}: write it as '{_OWN_FIELDS[key]}:' beside the box's name"
                )
            known = _CONNECTION if key.startswith("ssh_") else all_argument_meta
            if key.startswith(("ssh_", "_")) and key not in known:
                raise ValueError(f"settings.{key}: pyinfra has no such setting; mend the spelling")
            if key in _CONNECTION_TYPES:
                try:
                    check_type(self.settings[key], _CONNECTION_TYPES[key])
                except TypeCheckError as error:
                    raise ValueError(f"settings.{key}: {error}; mend its type") from None
        if self.key is not None and not _expanded(self.key).is_file():
            raise ValueError(
                f"key {self.key} is not there; make one with ssh-keygen, or leave it out"
            )
        if self.key is not None and not _is_private_key(_expanded(self.key)):
            # pyinfra ends the run for every box over it.
            raise ValueError(
                f"key {self.key} is no private key; name the file without .pub that ssh-keygen made"
            )
        known_hosts = self.known_hosts
        if "\0" in str(known_hosts) or known_hosts.is_dir():
            raise ValueError(f"settings.ssh_known_hosts_file: {known_hosts} is no file")
        return self

    @property
    def known_hosts(self) -> Path:
        """Where the box's host key is kept."""
        default = "~/.ssh/known_hosts"
        return _expanded(str(self.settings.get("ssh_known_hosts_file", default)))

    def data(self) -> dict[str, Any]:
        """The host's data for pyinfra: how to reach it, and its own settings.

        The account's home and ComfyUI's directory follow from the user unless they are set.
        """
        home = self.settings.get("box_home", f"/home/{self.user}")
        data: dict[str, Any] = {
            "ssh_hostname": self.address,
            "ssh_user": self.user,
            "ssh_port": self.port,
            "box_user": self.user,
            "box_home": home,
            "comfyui_base_directory": f"{home}/ComfyUI",
        }
        if self.key is not None:
            data["ssh_key"] = str(_expanded(self.key))
        return data | self.settings


@dataclass(frozen=True)
class Boxes:
    """All boxes, and where they came from."""

    entries: tuple[BoxEntry, ...]
    source: str
    # Groups that come first, with members or without: of two groups' data, the later one's wins.
    group_order: tuple[str, ...] = ()

    def hosts(self) -> list[tuple[str, dict[str, Any]]]:
        """Hosts as pyinfra takes them."""
        return [(entry.name, entry.data()) for entry in self.entries]

    def groups(self) -> dict[str, list[str]]:
        """Members by group, in the order in which the groups first appear."""
        groups: dict[str, list[str]] = {group: [] for group in self.group_order}
        for entry in self.entries:
            for group in entry.groups:
                groups.setdefault(group, []).append(entry.name)
        return groups

    def only(self, names: Iterable[str]) -> Boxes:
        """These boxes of it alone, with the settings that they have among all."""
        wanted = set(names)
        entries = tuple(entry for entry in self.entries if entry.name in wanted)
        return replace(self, entries=entries, group_order=tuple(self.groups()))


class InventoryError(ValueError):
    """All mistakes of boxes.yaml and of the boxes' settings."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def boxes_file() -> Path:
    """The file that lists the boxes; ``STRIXBOX_BOXES`` names another one."""
    return Path(os.environ.get("STRIXBOX_BOXES", ROOT / "boxes.yaml"))


def load_boxes(path: Path) -> Boxes:
    """Boxes of ``path``; without that file, the boxes of the running lab.

    Raises:
        InventoryError: naming every mistake, or saying how to get a first box.
    """
    if path.exists():
        return Boxes(_parse(path), str(path))
    data = lab.load()
    if data is None or not data.boxes():
        raise InventoryError(
            [
                f"{path.name} does not exist and no lab box runs; copy boxes.example.yaml to"
                f" {path.name} and enter your box, or start a lab box with bin/lab up"
            ]
        )
    return Boxes(_entries(data.boxes(), "lab.json"), "the lab")


def have_known_hosts(path: Path) -> None:
    """Create the file that new host keys are added to; without it no connection is made.

    ssh itself creates it at the first login; paramiko (4.0) fails instead.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise InventoryError(
            [f"{path} cannot be made ({error.strerror}); see ssh_known_hosts_file"]
        ) from None


# PyYAML's constructors let these of their own through: bad dates and numbers, odd tags, depth.
_UNCAUGHT_BY_YAML = (ValueError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: of two values one would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, if every key is there once."""
        seen: list[Any] = []
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # <<: what it brings gives way to the keys beside it
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> tuple[BoxEntry, ...]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe
        json.dumps(content, default=str)  # refuses what holds itself
    except (yaml.YAMLError, OSError, *_UNCAUGHT_BY_YAML) as error:
        where = " ".join(str(error).split())
        raise InventoryError([f"{path.name} is not YAML: {where}"]) from None
    if not isinstance(content, dict) or set(content) != {"boxes"}:
        raise InventoryError(
            [f"{path.name} must hold one key, 'boxes', with a list; see boxes.example.yaml"]
        )
    if not isinstance(content["boxes"], list) or not content["boxes"]:
        raise InventoryError([f"{path.name}: 'boxes' must be a list with at least one box"])
    return _entries(content["boxes"], path.name)


def _entries(raw: list[Any], where: str) -> tuple[BoxEntry, ...]:
    mistakes: list[str] = []
    entries: list[BoxEntry] = []
    for number, item in enumerate(raw, start=1):
        label = item.get("name", f"number {number}") if isinstance(item, dict) else number
        try:
            if isinstance(item, dict) and item.get("settings", ...) is None:
                item = item | {"settings": {}}  # all its lines are comments
            if isinstance(item, dict) and isinstance(item.get("groups"), list):
                item = item | {"groups": tuple(item["groups"])}
            entries.append(BoxEntry.model_validate(item))
        except ValidationError as error:
            mistakes += [f"{where}, box {label}: {_entry_mistake(e)}" for e in error.errors()]
    names = [entry.name for entry in entries]
    for name in sorted({n for n in names if names.count(n) > 1}):
        mistakes.append(f"{where}: two boxes are called {name}; names must differ")
    places = [(entry.address, entry.port) for entry in entries]
    for place in sorted({p for p in places if places.count(p) > 1}):
        same = [e.name for e in entries if (e.address, e.port) == place]
        mistakes.append(
            f"{where}: {' and '.join(same)} are the same machine, {place[0]} port {place[1]};"
            " keep one"
        )
    known = {file.stem for file in (ROOT / "group_data").glob("*.py")} - {"all"} | PLAIN_GROUPS
    for entry in entries:
        for group in entry.groups:
            if group not in known:
                mistakes.append(
                    f"{where}, box {entry.name}: there is no group {group};"
                    f" take one of {', '.join(sorted(known))}, or add group_data/{group}.py"
                )
    if mistakes:
        raise InventoryError(mistakes)
    return tuple(entries)


def _entry_mistake(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "entry"
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}; settings of the toolkit go under 'settings'"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "string_pattern_mismatch":
        return f"{key} {error['input']!r} is not valid; it must match {error['ctx']['pattern']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    mend = _MENDS.get(error["type"], error["msg"][0].lower() + error["msg"][1:])
    return f"{key}: {error['input']!r} is not valid; {mend}"


_MENDS = {
    "string_type": "write it as text, in quotes",
    "int_type": "write it as a whole number without quotes",
    "tuple_type": "write it as a list, [one, two]",
    "dict_type": "write it as 'setting: value' lines",
    "model_type": "a box is 'name:', 'address:' and 'user:' lines",
}


def check_settings(
    boxes: Boxes,
    group_data: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Config]:
    """The validated configuration of every box, with pyinfra's own precedence of data.

    Raises:
        InventoryError: naming, for every mistake, the box, the setting and the mend; a mistake that
            all boxes share is named once.
    """
    groups = {
        group: (members, dict(group_data.get(group, {})))
        for group, members in boxes.groups().items()
    }
    inventory = Inventory(
        (boxes.hosts(), dict(group_data.get("all", {}))),
        override_data=dict(overrides or {}),
        **groups,
    )
    configs: dict[str, Config] = {}
    wrong: dict[str, list[str]] = {}
    for entry in boxes.entries:
        try:
            configs[entry.name] = Config.load(inventory.get_host(entry.name).data.dict())
        except ConfigError as error:
            for mistake in error.mistakes:
                wrong.setdefault(mistake, []).append(entry.name)
    if wrong:
        raise InventoryError([f"{_names(names)}: {text}" for text, names in wrong.items()])
    return configs


def _names(names: Iterable[str]) -> str:
    names = list(names)
    return ("box " if len(names) == 1 else "boxes ") + ", ".join(names)
