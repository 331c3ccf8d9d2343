"""Reader: what apt would install, on the box as it is or as it would be without old packages.

With ``apart`` nothing of the box's own is read but what stays: apt gets a configuration, indexes
and a list of installed packages of its own below a temporary directory, with the new source in and
the old ones out. So the new ROCm is known to be installable before anything of the old one goes,
and a box where it is not is left as it was, its apt included.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from strixbox.box._output import ran

LISTS = "/var/lib/apt/lists"
STATUS = "/var/lib/dpkg/status"
ETC = "/etc/apt"
KEY_LIMIT = 256 * 1024
INSTALLED = re.compile(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+) ", re.MULTILINE)


class Trouble(Exception):
    """Why the new packages cannot be had."""


def run(words: list[str], config: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of apt's or dpkg's."""
    return ran(words, **({} if config is None else {"APT_CONFIG": config}))


def complaint(answer: subprocess.CompletedProcess[str]) -> str:
    """apt's words: its errors and what does not fit together."""
    unmet = re.findall(r"^ \S+ : .+|^ {10,}\S.+", answer.stdout, re.MULTILINE)
    errors = [x for x in answer.stderr.splitlines() if x.startswith(("E:", "W:", "dpkg"))]
    return " ".join(" ".join(line.split()) for line in (*errors[:4], *unmet[:4])) or "no reason"


def installations(output: str) -> dict[str, dict[str, str | None]]:
    """``old`` and ``new`` version by package, from the lines ``Inst`` of ``apt-get --simulate``."""
    found = INSTALLED.findall(output)
    return {name: {"old": old or None, "new": new} for name, old, new in found}


def is_older(new: str, old: str) -> bool:
    """Whether dpkg sorts ``new`` below ``old``."""
    return run(["dpkg", "--compare-versions", new, "lt", old]).returncode == 0


def without(status: str, packages: list[str], native: str) -> str:
    """The list of installed packages as it is once ``packages`` are purged."""
    gone = set(packages)
    kept = []
    for stanza in re.split(r"\n\n+", status.strip("\n")):
        name = re.search(r"^Package: (\S+)", stanza, re.MULTILINE)
        architecture = re.search(r"^Architecture: (\S+)", stanza, re.MULTILINE)
        own = not architecture or architecture.group(1) in (native, "all")
        full = name.group(1) if name else ""
        if architecture and not own:
            full += f":{architecture.group(1)}"
        if stanza and full not in gone:
            kept.append(stanza + "\n\n")
    return "".join(kept)


def settings(dump: str, root: str) -> str:
    """apt's configuration for a root of its own: the box's, without what runs programs."""
    # Hooks of an update refresh caches of other programs (appstream, command-not-found).
    kept = [x for x in dump.splitlines() if not re.match(r"(?i)(APT::Update|DPkg|Unattended)", x)]
    own = {
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": f"{root}/all",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": f"{root}/preferences",
        "Dir::State::Lists": f"{root}/lists",
        "Dir::State::Status": f"{root}/status",
        "Dir::Cache::Archives": f"{root}/archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        # The directory is root's alone.
        "APT::Sandbox::User": "root",
        "APT::Get::List-Cleanup": "false",
    }
    return "\n".join([*kept, *(f'{name} "{value}";' for name, value in own.items()), ""])


def copied(paths: list[str], left_out: list[str], folder: str) -> None:
    """Copy apt's files into one directory, which reads them in the order of their names."""
    for number, path in enumerate(paths):
        if path not in left_out and os.path.isfile(path):
            with open(path, "rb") as stream:
                content = stream.read()
            with open(f"{folder}/{number:03}-{os.path.basename(path)}", "wb") as stream:
                stream.write(content)


def fetched_key(key: dict[str, str], root: str) -> str:
    """Path of the key: the one in place, or the one that was offered and found right.

    Raises:
        Trouble: where it is not to be had a second time.
    """
    if "path" in key:
        return key["path"]
    try:
        with urllib.request.urlopen(key["url"], timeout=30) as answer:  # noqa: S310 - by schema
            content: bytes = answer.read(KEY_LIMIT)
    except (OSError, ValueError, HTTPException) as error:
        raise Trouble(
            f"the key {key['url']} could not be fetched ({getattr(error, 'reason', error)})"
        ) from None
    if hashlib.sha256(content).hexdigest() != key["sha256"]:
        raise Trouble(f"the key {key['url']} changed from one moment to the next")
    path = os.path.join(root, "key.gpg" if content[:1] and content[0] & 0x80 else "key.asc")
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def prepare(apart: dict[str, Any], root: str) -> str:
    """Make apt's own root and fetch the new source's index into it; path of its configuration.

    Raises:
        Trouble: where the index is not to be had.
    """
    for folder in ("ours", "all", "preferences", "lists/partial", "archives/partial"):
        os.makedirs(os.path.join(root, folder))
    key = fetched_key(apart["key"], root)
    source = f"deb [arch=amd64 signed-by={key}] {apart['uri']} {apart['suite']} main\n"
    for folder in ("ours", "all"):
        with open(os.path.join(root, folder, "zz-new.list"), "w", encoding="utf-8") as stream:
            stream.write(source)
    parts = sorted(glob.glob(f"{ETC}/sources.list.d/*"))
    sources = [p for p in parts if p.endswith((".list", ".sources"))]
    copied([f"{ETC}/sources.list", *sources], apart["without"], os.path.join(root, "all"))
    pins = [f"{ETC}/preferences", *sorted(glob.glob(f"{ETC}/preferences.d/*"))]
    copied(pins, apart["without"], os.path.join(root, "preferences"))
    with open(os.path.join(root, "preferences", "zz-new"), "w", encoding="utf-8") as stream:
        stream.write(apart["pin"])
    native = run(["dpkg", "--print-architecture"]).stdout.strip()
    with open(STATUS, encoding="utf-8", errors="surrogateescape") as stream:
        status = without(stream.read(), apart["purged"], native)
    path = os.path.join(root, "status")
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(status)
    config = os.path.join(root, "apt.conf")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(settings(run(["apt-config", "dump"]).stdout, root))
    fetch(apart, root, config)
    return config


def fetch(apart: dict[str, Any], root: str, config: str) -> None:
    """Fetch the new source's index; the others' are taken as the box has them.

    Raises:
        Trouble: where apt has no index of the new source afterwards.
    """
    only = ["-o", f"Dir::Etc::SourceParts={root}/ours"]
    answer = run(["apt-get", "--quiet", *only, "update"], config)
    parts = urlsplit(apart["uri"])
    name = f"{parts.netloc}{parts.path}".rstrip("/") + f"/dists/{apart['suite']}"
    start = glob.escape(f"{root}/lists/") + quote(name, safe="/:~._-").replace("/", "_")
    if answer.returncode or not glob.glob(start + "_*Packages*"):
        raise Trouble(f"apt cannot fetch the index of {apart['uri']}: {complaint(answer)}")
    known = [p for p in glob.glob(f"{LISTS}/*") if os.path.isfile(p) and not p.endswith("/lock")]
    for path in known:
        link = os.path.join(root, "lists", os.path.basename(path))
        if not os.path.lexists(link):
            os.symlink(path, link)
    if not any("Packages" in path for path in known):
        run(["apt-get", "--quiet", "update"], config)


def simulated(query: dict[str, Any], config: str | None) -> dict[str, Any]:
    """What ``apt-get install`` would do."""
    recommends = [] if query["recommends"] else ["--no-install-recommends"]
    allowed = ["--allow-downgrades", "--allow-change-held-packages"]
    words = ["apt-get", "--simulate", "--no-remove", *allowed, *recommends, "install"]
    answer = run([*words, *query["install"]], config)
    if answer.returncode:
        return {"refused": complaint(answer), "versions": {}, "downgraded": []}
    found = installations(answer.stdout)
    return {
        "refused": None,
        "versions": {name: change["new"] for name, change in found.items()},
        "downgraded": sorted(
            name
            for name, change in found.items()
            if change["old"] and is_older(str(change["new"]), change["old"])
        ),
    }


@contextmanager
def own_root() -> Iterator[str]:
    """A directory that goes again; held open, since leftovers.py takes away what nobody has open.

    A dry run takes no lock, so another run may look while this one is at it.
    """
    with tempfile.TemporaryDirectory(prefix="strixbox-apt-") as root:
        held = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield root
        finally:
            os.close(held)


def main(query: dict[str, Any]) -> dict[str, Any]:
    """``{"install", "recommends", "apart"}`` -> versions, downgrades, held ones, or apt's words."""
    held = run(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Package}\t"])
    names = {x[3:].strip() for x in held.stdout.split("\t") if x.startswith("h")}
    try:
        if query["apart"] is None:
            told = simulated(query, None)
        else:
            with own_root() as root:
                told = simulated(query, prepare(query["apart"], root))
                names -= set(query["apart"]["purged"])
    except Trouble as trouble:
        return {"refused": str(trouble), "versions": {}, "downgraded": [], "held": []}
    # apt does not say that it refuses for the sake of a hold; its words name the package.
    meant = (
        set(re.findall(r"[a-z0-9][a-z0-9+.-]+", told["refused"] or "")) | told["versions"].keys()
    )
    return told | {"held": sorted(names & meant)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
