"""uv and the Python environment of a release.

What goes into a release's environment runs other people's code: setup.py of what a node of the
user's asks for, and every .pth file whenever the environment's interpreter is started, which uv
does. So an account that may do nothing else builds it (strixbox/box/hand_over.py), and root neither
builds nor starts what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name
from pyinfra.context import host

from strixbox.config import Python, Wheel
from strixbox.facts import Account, Environments, FileStates, FileText, VerifiedFiles
from strixbox.layout import BUILDER, LOCKS, OPT, RECORDS, UV_CACHE, WHEELS
from strixbox.locks import lock_text, pins
from strixbox.nodes import unmet
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.operations.files import compiled, removing
from strixbox.programs import UNWRITTEN, Run, write
from strixbox.release import Release, file_name, overrides

GECOS = "builds Python environments"  # of that account, and of nobody's else
# More than half of what the tools' packages bring: tests, fonts' tools, lexers of languages.
NEVER_LOADED = r"/(distutils|f2py|fontTools|lexers|styles|testing|tests)/"
# uv asks no file of the box's for settings, and never fetches an interpreter of its own.
UV_ENVIRONMENT = {
    "UV_CACHE_DIR": UV_CACHE,
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}


def uv_program(python: Python) -> str:
    """Path of the pinned uv."""
    return f"{uv_directory(python)}/bin/uv"


def uv_directory(python: Python) -> str:
    """The environment that holds the pinned uv."""
    return f"{OPT}/uv/{python.uv_version}"


@box_operation
def build_account(account: str) -> Steps:
    """Have the account that builds environments: no login, no home, no group but its own.

    + account: its name
    """
    now = ask(Account, user=account)
    if now["exists"] and not is_builder(now):
        raise BoxTrouble(
            f"The account {account} (uid {now['uid']}) is somebody's, and strixbox builds"
            " environments as an account of that name; rename yours (usermod --login), then run"
            " again."
        )
    if now["exists"]:
        host.noop(f"the account {account} exists")
        return
    say(f"{account}: create the account")
    yield Run(
        *("useradd", "--system", "--user-group", "--no-create-home"),
        *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"),
        *("--comment", GECOS, account),
        mend=f"The account {account} could not be made; useradd's words are above.",
    )


def is_builder(account: dict[str, Any]) -> bool:
    """Whether an account of the builder's name is the one that a deploy made.

    + account: what the fact Account tells of it
    """
    return bool(account["exists"] and 0 < account["uid"] < 1000 and account["gecos"] == GECOS)


@box_operation
def uv_tool(python: Python) -> Steps:
    """Have uv at its pinned version, installed by hash.

    + python: the version, its sha256 and the package index
    """
    directory = uv_directory(python)
    if uv_is_right(python):
        host.noop(f"uv {python.uv_version} is installed")
        return
    say(f"{directory}: uv {python.uv_version}")
    yield write(
        "pinned_uv",
        {
            "path": directory,
            "requirement": f"uv=={python.uv_version} --hash=sha256:{python.uv_sha256}\n",
            "index": python.index_url,
            "host": urlsplit(python.index_url).netloc,
            "mend": f"uv {python.uv_version} could not be installed from {python.index_url}; see"
            " that the box reaches it and that python_uv_sha256 is the wheel's, then run again.",
        },
    )


def uv_is_right(python: Python) -> bool:
    """Whether the pinned uv is there, whole, and root's alone."""
    directory, path = uv_directory(python), uv_program(python)
    program = ask(FileStates, paths=(path,), content=False)[path]
    now = ask(Environments, paths=(directory,))[directory]
    whole = _roots(now) and now["packages"].get("uv") == python.uv_version and not now["damaged"]
    return whole and program["kind"] == "file" and program["mode"] == "755"


@box_operation
def wheel_files(release: Release) -> Steps:
    """Have the stack's wheels on the box, checked; once they are installed they may be gone.

    + release: the release whose wheels they are
    """
    if environment_needs(release).wheels == ():
        host.noop(f"the wheels of release {release.id} are installed")
        return
    paths = {f"{WHEELS}/{file_name(wheel)}": wheel for wheel in release.python.wheels}
    known = ask(VerifiedFiles, paths=tuple(paths), records=RECORDS)
    missing = {
        path: wheel
        for path, wheel in paths.items()
        if known["files"][path]["sha256"] is None
        or known["files"][path]["sha256"] != (wheel.sha256 or known["urls"].get(wheel.url))
    }
    if not missing:
        host.noop(f"the wheels of release {release.id} are there")
        return
    for path in missing:
        say(f"{path}: download and check")
    yield write(
        "fetch_files",
        {
            "items": [
                {"url": wheel.url, "path": path, "sha256": wheel.sha256, "owner": None}
                for path, wheel in missing.items()
            ],
            "records": RECORDS,
        },
        live=True,
    )


@box_operation
def python_environment(release: Release) -> Steps:
    """Have the release's environment: interpreter, the stack's wheels, the hashed lock.

    + release: the release whose environment it is

    A marker stands in the release while packages are installed; found by the next run, it means
    that this one was cut short, and the environment is made anew. It is the builder's for as long,
    and root's at the end.
    """
    python, venv, builder = release.python, release.venv, as_builder(release)
    needs = environment_needs(release)
    if not needs:
        host.noop(f"{venv} holds {len(release.packages())} packages as pinned")
        return
    if needs.loose:
        say(f"{venv}: give it back to root")
    if not needs.anew and not needs.packages:
        yield handed_over(release, build=False)
        return
    say(f"{venv}: Python {python.version}, {len(needs.packages)} packages to install")
    if 0 < len(needs.packages) <= 5:
        say(", ".join(f"{name} {needs.now(name)}" for name in needs.packages))
    yield Run("mkdir", "-p", release.path, mend=UNWRITTEN)
    yield Run("touch", _marker(release), mend=UNWRITTEN)
    if needs.anew:
        # What was installed for the user's nodes goes with it, and so does the proof.
        yield Run("rm", "-f", node_record(release), release.seal, mend=UNWRITTEN)
        yield removing(venv)
    yield handed_over(release, build=True)
    if needs.anew:
        yield _new_venv(python, venv, builder)
    if needs.wheels:
        yield _uv(
            *(python, builder, "pip", "install", "--quiet", "--python", venv),
            *("--no-deps", "--no-index", "--reinstall", "--compile-bytecode"),
            *(f"{WHEELS}/{file_name(wheel)}" for wheel in needs.wheels),
            mend="The stack's wheels could not be installed; the lines above say why. Free disk"
            f" room or remove the damaged file in {WHEELS}, then run again.",
        )
    yield _install_lock(python, venv, python.requirements, builder, needs.damaged, byte_code=True)
    yield handed_over(release, build=False)
    yield write("note_sizes", {"environment": venv})
    yield Run("rm", _marker(release), mend=UNWRITTEN)
    left = environment_needs(release)
    if left:
        raise BoxTrouble(
            f"{venv} lacks {', '.join(sorted(left.packages))} after installing; remove"
            f" {release.path} and run again."
        )


@box_operation
def locked_environment(python: Python, path: str, lock: str) -> Steps:
    """Have an environment at ``path`` with the packages of a hashed lock.

    Root may build and start this one: it holds wheels with hashes in our lock, and nothing else.

    + python: interpreter, uv and package index
    + path: the environment
    + lock: name of the lock, whose file is on the box already
    """
    wanted = pins(lock_text(lock), python.version)
    marker = f"{path}/unfinished"
    anew, wrong, damaged = locked_needs(python, path, lock)
    if not anew and not wrong:
        host.noop(f"{path} holds {len(wanted)} packages as locked")
        return
    say(f"{path}: Python {python.version}, {len(wanted if anew else wrong)} packages to install")
    if anew:
        yield removing(path)
        yield _new_venv(python, path, ())
    yield Run("touch", marker, mend=UNWRITTEN)
    yield _install_lock(python, path, lock, (), damaged, byte_code=False)
    yield compiled(python.version, f"{path}/lib", without=NEVER_LOADED)
    yield write("note_sizes", {"environment": path})
    yield Run("rm", marker, mend=UNWRITTEN)


def locked_needs(python: Python, path: str, lock: str) -> tuple[bool, list[str], list[str]]:
    """Whether it is made anew, packages that are not as locked, and those that are damaged.

    + python: whose interpreter it shall have
    + path: the environment
    + lock: name of the lock
    """
    marker = f"{path}/unfinished"
    now = ask(Environments, paths=(path,))[path]
    begun = ask(FileStates, paths=(marker,))[marker]["kind"] != "absent"
    anew = now["python"] != python.version or begun or not _roots(now)
    wanted = pins(lock_text(lock), python.version)
    wrong = sorted(name for name, version in wanted.items() if now["packages"].get(name) != version)
    return anew, wrong, [] if anew else list(now["damaged"])


@dataclass(frozen=True)
class Needs:
    """What a release's environment lacks."""

    anew: bool
    packages: dict[str, str | None]  # version that is there, by name of a package that is wrong
    damaged: dict[str, str]  # a file that is wrong, by name of a pinned package
    wheels: tuple[Wheel, ...]
    loose: bool  # another account than root may write to it

    def __bool__(self) -> bool:
        return self.anew or bool(self.packages) or self.loose

    def now(self, name: str) -> str:
        """What there is of a package that is wrong."""
        if name in self.damaged:
            return f"damaged ({self.damaged[name]})"
        return self.packages[name] or "absent"


def environment_needs(release: Release) -> Needs:
    """What has to be installed: all of it anew, or the packages that are not as pinned.

    One lost package is no reason to unpack gigabytes of torch again.
    """
    marker = ask(FileStates, paths=(_marker(release),))[_marker(release)]
    now = ask(Environments, paths=(release.venv,))[release.venv]
    return lacking(release, now, begun=marker["kind"] != "absent")


def lacking(release: Release, now: dict[str, Any], *, begun: bool) -> Needs:
    """What an environment that is ``now`` like this lacks.

    + release: what it shall hold
    + now: what the fact Environments tells of it
    + begun: whether a run was cut short while it built it
    """
    anew = now["python"] != release.python.version or begun
    held = {} if anew else now["packages"]
    wrong = {n: held.get(n) for n, v in release.packages().items() if held.get(n) != v}
    damaged = {} if anew else {n: path for n, path in now["damaged"].items() if n in wrong}
    wheels = tuple(w for w in release.python.wheels if canonicalize_name(w.project) in wrong)
    loose = not anew and not _roots(now)
    return Needs(anew, wrong, damaged, wheels, loose)


def node_record(release: Release) -> str:
    """File that says of which nodes of the user's the requirements are installed."""
    return f"{release.path}/user-nodes.json"


@box_operation
def user_node_requirements(release: Release, user: str) -> Steps:
    """Install what the user's own nodes ask for, with the stack's packages held in place.

    + release: the release that is being built
    + user: the account that owns the nodes, and as which their files are read

    What could not be had is tried again by every deploy.
    """
    record = ask(FileText, path=node_record(release))
    anew = environment_needs(release).anew
    nodes = dict(release.user_nodes) if anew else unmet(record, release.user_nodes)
    if record and not nodes:
        host.noop("the user's nodes have their requirements")
        return
    say(f"{release.venv}: requirements of the user's nodes: {', '.join(nodes) or 'none'}")
    held = f"{release.path}/overrides.txt"
    yield Run("mkdir", "-p", release.path, mend=UNWRITTEN)
    if nodes:
        yield handed_over(release, build=True)
    yield write(
        "user_requirements",
        {
            "uv": [
                *(*as_builder(release), uv_program(release.python), "pip", "install", "--quiet"),
                *("--python", release.venv, "--default-index", release.python.index_url),
                *("--override", held, "--constraint", held),
            ],
            "user": user,
            "directory": f"{release.comfyui.base_directory}/custom_nodes",
            "nodes": nodes,
            "held": {"path": held, "text": overrides(release)},
            "record": node_record(release),
            "seal": release.seal,
        },
        live=True,
    )
    if nodes:
        yield handed_over(release, build=False)


def as_builder(release: Release) -> tuple[str, ...]:
    """Words before a command that runs as the builder, with a cache that goes with the build.

    What a build leaves in a cache would be trusted by the next one. And uv links files out of its
    cache: a kept one would share them with every release.
    """
    cache = _cache(release)
    own = {"HOME": cache, "TMPDIR": cache, "UV_CACHE_DIR": cache}
    return (
        *("setpriv", f"--reuid={BUILDER}", f"--regid={BUILDER}", "--clear-groups"),
        *("--no-new-privs", "env", "--chdir=/"),
        *(f"{name}={value}" for name, value in (UV_ENVIRONMENT | own).items()),
    )


def handed_over(release: Release, *, build: bool) -> Run:
    """The command that gives the environment to the builder, or back to root.

    + release: whose environment
    + build: whether building begins, or has ended
    """
    order = {
        "builder": BUILDER,
        "environment": release.venv,
        "cache": _cache(release),
        "build": build,
    }
    return write("hand_over", order)


def _roots(environment: dict[str, Any]) -> bool:
    """Whether there is an environment, and nobody but root may write to it."""
    return environment["python"] is not None and environment["owners"] == ["root"]


def _cache(release: Release) -> str:
    return f"{release.path}/cache"


def _marker(release: Release) -> str:
    return f"{release.path}/unfinished"


def _new_venv(python: Python, path: str, builder: tuple[str, ...]) -> Run:
    return _uv(
        *(python, builder, "venv", "--quiet", "--no-project"),
        *("--python", f"python{python.version}", path),
        mend=f"Python {python.version} is not on the box; install it, or set python_version"
        " and wheels for the one it has.",
    )


def _install_lock(
    python: Python,
    path: str,
    lock: str,
    builder: tuple[str, ...],
    damaged: Iterable[str],
    *,
    byte_code: bool,
) -> Run:
    # uv goes by names and versions, and would leave those that are damaged.
    return _uv(
        *(python, builder, "pip", "install", "--quiet", "--python", path),
        *(f"--reinstall-package={name}" for name in damaged),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *(["--compile-bytecode"] if byte_code else []),
        *("--default-index", python.index_url, "--requirements", f"{LOCKS}/{lock}.txt"),
        mend=f"The packages of {lock} could not be installed from {python.index_url}; see that the"
        " box reaches it and has disk room, then run again.",
    )


def _uv(python: Python, builder: tuple[str, ...], *words: str, mend: str) -> Run:
    """uv as the builder, or as root where there is none."""
    settings = (f"{name}={value}" for name, value in UV_ENVIRONMENT.items())
    before = builder or ("env", *settings)
    return Run(*before, uv_program(python), *words, mend=mend, live=True)
