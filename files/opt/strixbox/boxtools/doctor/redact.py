"""Takes out of a text what nobody else needs to know.

Two nets: what is known of this box (account, host name, serial numbers, the prompts and images that
the server remembers) is replaced wherever it stands, and what looks private (addresses, keys,
image names) is replaced by its shape. Rather too much is replaced than too little.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from boxtools.doctor.machine import read_account
from boxtools.doctor.models import MODELS
from boxtools.doctor.world import World, listed
from boxtools.settings import Settings

LONGEST = 2000  # characters of a line that are kept
IMAGES = "png|jpe?g|webp|gif|bmp|tiff?|avif|mp4|webm|mkv|mov|latent"
# Words that are a user's or host's name on many boxes and part of every other line.
COMMON = frozenset({"root", "user", "linux", "localhost", "ubuntu", "comfyui", "comfy", "box"})
MODEL_ENDS = "|".join(end[1:] for end in MODELS)

SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [^-]{0,60}PRIVATE KEY-----.*", re.DOTALL), "<private key>"),
    (re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@]{1,400}@"), r"\1<user>@"),
    (re.compile(r"(\b[a-z]{2,8}://[^\s?'\"]{1,500})\?[^\s'\"]*"), r"\1?<query>"),
    (re.compile(r"\b(bearer|basic|token)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE), r"\1 <key>"),
    (
        re.compile(
            r"([\w-]{0,40}(?:token|api[_-]?key|apikey|passw(?:or)?d|passwd|secret|credential|auth"
            r"orization|cookie|session[_-]?id|signature|access[_-]?key)[\w-]{0,40}"
            r"[\"']?\s{0,3}[=:]\s{0,3})[\"']?[^\s\"',;&]{1,400}",
            re.IGNORECASE,
        ),
        r"\1<key>",
    ),
    (re.compile(r"\b(?:hf|ghp|gho|ghs|pat|sk|pk|rk|xox[abp])[_-][A-Za-z0-9_-]{8,}"), "<key>"),
    (re.compile(r"\bgithub_pat_\w{8,}"), "<key>"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w.-]{8,}"), "<key>"),
    (re.compile(r"\bAKIA[A-Z0-9]{12,}"), "<key>"),
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}"), "<mail>"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.IGNORECASE), "<mac>"),
    (
        re.compile(r"(?<![\d.])(?<!==)(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\w)"),
        "<address>",
    ),
    (
        re.compile(r"\b(serial(?: ?number)?|s/n)\b(\W{1,3})[\w-]{4,}", re.IGNORECASE),
        r"\1\2<serial>",
    ),
    # The rest of a name with blanks goes too: better a word too many.
    (re.compile(rf"[^/\\'\"=:,;()<>\n]{{1,200}}\.(?:{IMAGES})\b", re.IGNORECASE), "<image>"),
    (re.compile(r"(/home/|/Users/|/media/|/run/user/)[^/\s'\"<>]{1,64}"), r"\1<user>"),
    # Mixed letters and digits of that length are keys; digests (hex only) are versions and stay.
    (
        re.compile(
            r"\b(?=[A-Za-z0-9_-]{0,40}\d)(?=[A-Za-z0-9_-]{0,40}[A-Z])(?=[A-Za-z0-9_-]{0,40}[g-z])"
            r"[A-Za-z0-9_-]{28,}\b"
        ),
        "<key>",
    ),
)

# Whatever may be an IPv6 address; times and PCI addresses look like one and are none.
IPV6 = re.compile(r"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,8}(?![\w:])", re.IGNORECASE)


@dataclass(frozen=True)
class Redactor:
    """Replaces; ``names`` are literal texts and what stands for them, the longest first."""

    names: tuple[tuple[str, str], ...]
    models: frozenset[str]  # model files of the deploy, which may be named

    def text(self, text: str) -> str:
        """One line or several, redacted."""
        return "\n".join(self._line(line) for line in text.split("\n"))

    def value(self, value: Any) -> Any:
        """A JSON value, redacted in every text and key."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(key)): "<key>" if _is_secret(str(key)) else self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            # --password x is two words of a command line.
            return [
                "<key>" if _is_secret_flag(before) else self.value(item)
                for before, item in zip((None, *value), value, strict=False)
            ]
        return value

    def _line(self, line: str) -> str:
        line = line[:LONGEST]
        for name, stand_in in self.names:
            line = _replaced(line, name, stand_in)
        for pattern, stand_in in SHAPES:
            line = pattern.sub(stand_in, line)
        line = IPV6.sub(_address, line)
        return re.sub(
            rf"[^/\\'\"=:,;()<>\n]{{1,200}}\.(?:{MODEL_ENDS})\b", self._model, line, flags=re.I
        )

    def _model(self, match: re.Match[str]) -> str:
        name = match[0].strip()
        known = next((model for model in self.models if name.endswith(model)), None)
        return f" {known}" if known else f" <model>.{name.rpartition('.')[2]}"


def _is_secret(key: str) -> bool:
    words = r"token|secret|passw|api[_-]?key|credential|cookie|authorization"
    return re.search(words, key[:LONGEST], re.IGNORECASE) is not None


def _is_secret_flag(word: object) -> bool:
    return isinstance(word, str) and re.fullmatch(r"-[\w-]+", word) is not None and _is_secret(word)


def _address(match: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return match[0] if address.is_loopback or address.is_unspecified else "<address>"


def _replaced(line: str, name: str, stand_in: str) -> str:
    if name.lower() not in line.lower():
        return line
    # Short names only as words: an account called "al" is not part of "manual".
    edge = r"(?<![A-Za-z0-9])" if len(name) < 8 else ""
    end = r"(?![A-Za-z0-9])" if len(name) < 8 else ""
    return re.sub(edge + re.escape(name) + end, lambda match: stand_in, line, flags=re.I)


def redactor(world: World, settings: Settings, graphs: Iterable[Any] = ()) -> Redactor:
    """What is known of this box; ``graphs`` are the server's answers to /history and /queue."""
    names: dict[str, str] = {}

    def learn(text: str, stand_in: str, least: int = 3) -> None:
        text = text.strip()
        if len(text) >= least and text.lower() not in COMMON:
            names.setdefault(text, stand_in)

    account = read_account(world, settings.user)
    if account.home not in ("", "/", "/root"):
        learn(account.home, "/home/<user>")
    for line in world.text("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdecimal() and 1000 <= int(fields[2]) < 65534:
            learn(fields[0], "<user>", 2)
            learn(fields[4].split(",")[0], "<user>")
            learn(fields[5], "/home/<user>")
    learn(settings.user, "<user>", 2)
    for path in ("/etc/hostname", "/proc/sys/kernel/hostname"):
        learn(world.text(path), "<host>", 2)
        learn(world.text(path).split(".")[0], "<host>", 2)
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        learn(world.text(path), "<id>")
        learn(world.text(path).strip().replace("-", ""), "<id>")
    for path in ("product_serial", "board_serial", "chassis_serial", "product_uuid"):
        learn(world.text(f"/sys/class/dmi/id/{path}"), "<serial>", 4)
    for place in listed(world.path("/sys/class/block")):
        learn(world.text(f"/sys/class/block/{place.name}/device/serial"), "<serial>", 4)
    for text in texts(list(graphs)):
        learn(text, "<prompt>", 4)
    longest = sorted(names.items(), key=lambda pair: -len(pair[0]))
    return Redactor(tuple(longest), frozenset(model.name for model in settings.models))


# Words that a workflow and every log have in common, and models, which have a rule of their own.
TECHNICAL = re.compile(
    rf"[a-z0-9_+.-]{{1,24}}|[A-Z][A-Za-z0-9]{{1,40}}|[\d\W]*|[^/\n]+\.(?:{MODEL_ENDS})"
)


def texts(value: Any, depth: int = 12) -> Iterable[str]:
    """Texts in an answer of the server that a person may have written: prompts and file names."""
    if isinstance(value, str):
        parts = [value, *value.splitlines()] if "\n" in value else [value]
        yield from (part for part in parts if not TECHNICAL.fullmatch(part))
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from texts(item, depth - 1)
    elif depth and isinstance(value, list):
        for item in value:
            yield from texts(item, depth - 1)
