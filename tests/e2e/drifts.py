"""What somebody may do by hand to one managed thing of a box, chosen at random by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from strixbox.layout import (
    BIN,
    BOXTOOLS,
    CURRENT,
    ETC,
    IN_USE,
    LIB,
    LOCKS,
    NODES,
    OPT,
    SERVICE,
    TOOLS,
)
from tests.lab import Box

HOME = "/home/strix"
CACHE = "/tmp/comfyui_cache"
MODELS = f"{HOME}/ComfyUI/models"
ARCHIVE = "/srv/models"
MOVED = "/root/moved"
FIND = "find \"$@\" -type f ! -name '*.pyc'"
KEY = "/etc/apt/keyrings/strixbox-rocm.asc"
# Files of ours that stand in a directory of others'.
AMONG_OTHERS = (
    "/etc/apt/preferences.d/strixbox-rocm",
    "/etc/apt/sources.list.d/strixbox-rocm.sources",
    "/etc/systemd/system/comfyui.service",
    "/etc/systemd/system/strixbox-preload.service",
    "/etc/systemd/system/strixbox-warmup.service",
    "/etc/tmpfiles.d/strixbox.conf",
    "/usr/local/bin/strixbox",
)
PACKAGES = ("htop", "tmux", "rocm-libs", "rocm-hip-sdk")
CHECKOUTS = (f"{CURRENT}/ComfyUI", f"{CURRENT}/nodes/ComfyUI-TiledDiffusion")
COMMIT = "git -C {} -c user.name=me -c user.email=me@lab.invalid commit -q --allow-empty -m mine"

HIDDEN = (
    'cd "$1"; f=$(git ls-files | head -n 1); echo x >> $f; git update-index --assume-unchanged $f'
)


@dataclass(frozen=True)
class Drift:
    """A shell command, and what ``"$1"`` is in it. It may put things to ``MOVED``."""

    command: str
    thing: str = ""

    def happen(self, box: Box) -> None:
        """Do it."""
        box.run(["sh", "-ec", self.command, "sh", self.thing])


def kinds(box: Box) -> dict[str, list[Drift]]:
    """All that may happen to a converged box, by the kind of thing that it happens to."""
    files = (*found(box, ETC, BIN, LIB, LOCKS, BOXTOOLS, NODES), *AMONG_OTHERS)
    edits = ('rm "$1"', 'echo x >> "$1"', ': > "$1"', 'chmod a+w "$1"', 'chown strix "$1"')
    environments = (f"{CURRENT}/venv", TOOLS, *box.run(f"ls -d {OPT}/uv/*").stdout.split())
    installed = found(box, *(f"{path}/lib" for path in environments))
    inside = [path for path in installed if ".dist-info/" not in path and "/_virtual" not in path]
    records = [path for path in installed if path.endswith(".dist-info/RECORD")]
    (uv_program,) = box.run(f"ls {OPT}/uv/*/bin/uv").stdout.split()
    links = box.run(f"find {MODELS} -type l -lname '{ARCHIVE}/*'").stdout.splitlines()
    tracked = [p for c in CHECKOUTS for p in found(box, c) if "/.git/" not in p]
    return {
        "file": every(
            files,
            *edits,
            'chmod 600 "$1"',
            'rm "$1" && mkdir "$1" && touch "$1/mine"',
            f'mv "$1" {MOVED} && ln -s {MOVED} "$1"',
        )
        + every((KEY,), *edits),
        "directory": every(
            (ETC, BIN, LIB, LOCKS, BOXTOOLS, NODES), 'rm -r "$1"', f'mv "$1" {MOVED}'
        )
        + every((ETC, BIN, LIB, LOCKS), 'chmod 777 "$1"', 'chown strix "$1"'),
        "package": every(PACKAGES, 'dpkg --purge --force-depends "$1"')
        + every(PACKAGES[2:], 'apt-mark unhold "$1"'),
        "Python package": every(inside, 'rm "$1"', 'echo x >> "$1"')
        + every(records, 'rm -r "$(dirname "$1")"', 'rm "$1"'),
        "Python environment": every(
            [f"{path}/pyvenv.cfg" for path in environments],
            'rm "$1"',
            ': > "$1"',
            'sed -i s/false/true/ "$1"',
            'chmod a+w "$1"',
            'chown -R strix "$(dirname "$1")"',
            'rm "$(dirname "$1")/bin/python"',
        )
        + every((uv_program,), 'rm "$1"', 'chmod a+w "$1"'),
        # In a model's place a link that leads elsewhere is its owner's: that is refused.
        "link": every((CURRENT, IN_USE, *links), 'rm "$1"')
        + every((CURRENT, IN_USE), 'ln -sfn /tmp "$1"'),
        "unit": every(
            (SERVICE, "strixbox-preload.service", "strixbox-warmup.service"),
            'systemctl disable "$1"',
        )
        + every((SERVICE,), 'systemctl stop "$1"', 'systemctl kill --signal=KILL "$1"; sleep 0.5'),
        "mount": every(
            (CACHE,),
            'umount --lazy "$1"',
            'mount -o remount,size=512M "$1"',
            'mount -o remount,suid "$1"',
            'chmod 755 "$1"',
            'chown root "$1"',
            "sed -i /comfyui_cache/d /etc/fstab",
            "sed -i '/comfyui_cache/s/nodev,//' /etc/fstab",
        ),
        "checkout": every(
            tracked, 'rm "$1"', 'echo x >> "$1"', 'chown strix "$1"', 'chmod 600 "$1"'
        )
        + every(
            CHECKOUTS,
            'rm -rf "$1"',
            'rm -rf "$1/.git"',
            'git -C "$1" config core.fsmonitor "touch /root/pwned"',
            HIDDEN,
            COMMIT.format('"$1"'),
        ),
        "account": every(("render", "video"), 'gpasswd --delete strix "$1"'),
        "login shell": every(
            (f"{HOME}/.bashrc",), "sed -i '/strixbox/d' \"$1\"", "sed -i '/shell.sh/d' \"$1\""
        ),
        "model": every(found(box, MODELS, ARCHIVE), 'rm "$1"'),
    }


def one_of_each(box: Box, seed: int) -> dict[str, Drift]:
    """One drift of every kind; the same for the same seed."""
    return {
        kind: random.Random(f"{seed} {kind}").choice(drifts)  # noqa: S311 - no secret
        for kind, drifts in kinds(box).items()
    }


def every(things: tuple[str, ...] | list[str], *commands: str) -> list[Drift]:
    """Each command for each thing."""
    return [Drift(command, thing) for thing in things for command in commands]


def found(box: Box, *places: str) -> list[str]:
    """Files below some places, links at their heads followed."""
    words = (f"{place}/" for place in places)
    return sorted(box.run(["sh", "-c", FIND, "sh", *words]).stdout.splitlines())
