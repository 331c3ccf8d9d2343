"""boxes.yaml -> pyinfra's hosts and groups, checked before any box is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import Field, StringConstraints, ValidationError
from pyinfra.api.arguments import all_argument_meta
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.ssh import ConnectorData
from typeguard import TypeCheckError, check_type

from strixbox import lab
from strixbox.config import RUN_DATA, Config, ConfigError, UserName, Word
from strixbox.schema import Check, Section, mistakes_in, right_part

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
PASSWORDS = frozenset({"ssh_password", "ssh_key_password", "_sudo_password", "_su_password"})
NO_PASSWORDS = (
    "keep passwords out of files; log in with a key (ssh-copy-id), sudo's password is asked for"
    " when it is needed"
)

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

    def checks(self) -> tuple[Check, ...]:
        """pyinfra can connect with what is told, and no password is told."""
        return self._connection(), self._key(), self._host_keys()

    def _connection(self) -> Check:
        for key in self.settings:
            known = _CONNECTION if key.startswith("ssh_") else all_argument_meta
            if key in PASSWORDS:
                yield f"settings.{key}: {NO_PASSWORDS}"
            elif key in RUN_DATA:
                yield f"settings.{key}: it is for one run alone; give it with --data, when it is"
            elif key in _OWN_FIELDS:
                yield f"settings.{key}: write it as '{_OWN_FIELDS[key]}:' beside the box's name"
            elif key.startswith(("ssh_", "_")) and key not in known:
                yield f"settings.{key}: pyinfra has no such setting; mend the spelling"
            elif key in _CONNECTION_TYPES:
                try:
                    check_type(self.settings[key], _CONNECTION_TYPES[key])
                except TypeCheckError as error:
                    yield f"settings.{key}: {error}; mend its type"

    def _key(self) -> Check:
        if self.key is None:
            return
        if not _expanded(self.key).is_file():
            yield f"key {self.key} is not there; make one with ssh-keygen, or leave it out"
        elif not _is_private_key(_expanded(self.key)):
            # pyinfra ends the run for every box over it.
            yield (
                f"key {self.key} is no private key; name the file without .pub that ssh-keygen made"
            )

    def _host_keys(self) -> Check:
        known_hosts = self.known_hosts
        if "\0" in str(known_hosts) or known_hosts.is_dir():
            yield f"settings.ssh_known_hosts_file: {known_hosts} is no file"

    @property
    def known_hosts(self) -> Path:
        """Where the box's host key is kept."""
        default = "~/.ssh/known_hosts"
        return _expanded(str(self.settings.get("ssh_known_hosts_file", default)))

    def data(self) -> dict[str, Any]:
        """The host's data for pyinfra: how to reach it, and its own settings."""
        data: dict[str, Any] = {
            "ssh_hostname": self.address,
            "ssh_user": self.user,
            "ssh_port": self.port,
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
        """Members by group, in an order that every box's own list of its groups agrees with.

        Of two groups' data the later group's wins, as pyinfra merges it.

        Raises:
            CycleError: where two boxes name their groups in contradictory orders.
        """
        order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(self.group_order, ()))
        for before, after in pairwise(self.group_order):
            order.add(after, before)
        for entry in self.entries:
            for group in entry.groups:
                order.add(group)
            for before, after in pairwise(entry.groups):
                order.add(after, before)
        return {
            group: [entry.name for entry in self.entries if group in entry.groups]
            for group in order.static_order()
        }

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


def boxes_file() -> Path | None:
    """The file that lists the boxes; None where there is none, and the lab's boxes are meant.

    ``STRIXBOX_BOXES`` names another one than boxes.yaml, and then it has to be there.
    """
    named = os.environ.get("STRIXBOX_BOXES")
    path = Path(named) if named else ROOT / "boxes.yaml"
    return path if named or path.exists() else None


def checked_boxes(
    path: Path | None,
    group_data: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, Any] | None = None,
) -> Boxes:
    """Boxes of ``path``, or those of the running lab, with sound settings each.

    Raises:
        InventoryError: naming every mistake of the file and of all boxes' settings.
    """
    boxes, mistakes = _read(path) if path else _lab_boxes()
    try:
        boxes.groups()
    except CycleError as error:
        names = ", ".join(error.args[1])
        mistakes.append(
            f"{boxes.source}: boxes name the groups {names} in contradictory orders; the later"
            " group's settings win for all boxes alike, so name them in one order"
        )
        raise InventoryError(mistakes) from None
    try:
        check_settings(boxes, group_data, overrides)
    except InventoryError as error:
        mistakes += error.mistakes
    if mistakes:
        raise InventoryError(mistakes)
    return boxes


def _lab_boxes() -> tuple[Boxes, list[str]]:
    data = lab.load()
    if data is None or not data.boxes():
        raise InventoryError(
            [
                "boxes.yaml does not exist and no lab box runs; copy boxes.example.yaml to"
                " boxes.yaml and enter your box, or start a lab box with bin/lab up"
            ]
        )
    entries, mistakes = _entries(data.boxes(), "lab.json")
    return Boxes(entries, "the lab"), mistakes


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


def _read(path: Path) -> tuple[Boxes, list[str]]:
    """Boxes of a file, and what is wrong with them; a malformed one with what is right of it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InventoryError([f"{path} is not there; see STRIXBOX_BOXES, which names it"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError([f"{path} cannot be read: {error}; mend that"]) from None
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - safe
        json.dumps(content, default=str)  # refuses what holds itself
    except (yaml.YAMLError, *_UNCAUGHT_BY_YAML) as error:
        where = " ".join(str(error).split())
        raise InventoryError([f"{path.name} is not YAML: {where}"]) from None
    if not isinstance(content, dict) or set(content) != {"boxes"}:
        raise InventoryError(
            [f"{path.name} must hold one key, 'boxes', with a list; see boxes.example.yaml"]
        )
    if not isinstance(content["boxes"], list) or not content["boxes"]:
        raise InventoryError([f"{path.name}: 'boxes' must be a list with at least one box"])
    entries, mistakes = _entries(content["boxes"], path.name)
    return Boxes(entries, path.name), mistakes


def _entries(raw: list[Any], where: str) -> tuple[tuple[BoxEntry, ...], list[str]]:
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
            values = item if isinstance(item, dict) else {}
            found = mistakes_in(values, BoxEntry, error, _entry_mistake)
            mistakes += [f"{where}, box {label}: {mistake}" for mistake in found]
            if values:
                entries.append(_with_stand_ins(values, str(label)))
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
    return tuple(entries), mistakes


def _with_stand_ins(values: Mapping[str, Any], label: str) -> BoxEntry:
    """A malformed entry with its right values alone, for a look at its settings as well."""
    right = right_part(BoxEntry, values)
    stand_ins = {"name": label, "address": f"box-{label}", "user": "user"}
    return right.model_copy(update={k: v for k, v in stand_ins.items() if not hasattr(right, k)})


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
            several boxes share is named once.
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
