"""uv and the Python environment of a release."""

from __future__ import annotations

from urllib.parse import urlsplit

from packaging.utils import canonicalize_name
from pyinfra.context import host

from strixbox.config import Python
from strixbox.facts import Environments, FileStates, VerifiedFiles
from strixbox.layout import LOCKS, OPT, RECORDS, WHEELS
from strixbox.operations.base import BoxTrouble, Steps, ask, box_operation, say
from strixbox.programs import Run, write
from strixbox.release import Release, file_name, overrides

# uv asks no file of the box's for settings, and never fetches an interpreter of its own.
UV_ENVIRONMENT = {
    "UV_CACHE_DIR": "/var/cache/strixbox/uv",
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}


def uv_program(python: Python) -> str:
    """Path of the pinned uv."""
    return f"{OPT}/uv/{python.uv_version}/bin/uv"


@box_operation
def uv_tool(python: Python) -> Steps:
    """Have uv at its pinned version, installed by hash.

    + python: the version, its sha256 and the package index
    """
    directory = f"{OPT}/uv/{python.uv_version}"
    packages = ask(Environments, paths=(directory,))[directory]["packages"]
    program = ask(FileStates, paths=(uv_program(python),))[uv_program(python)]
    if packages.get("uv") == python.uv_version and program["kind"] == "file":
        host.noop(f"uv {python.uv_version} is installed")
        return
    say(f"{directory}: uv {python.uv_version}")
    yield Run("rm", "-rf", directory, mend="")
    yield Run(
        *("python3", "-m", "venv", directory),
        mend="The environment for uv was not made; see that python3-venv is installed.",
    )
    yield Run(
        *(f"{directory}/bin/pip", "--disable-pip-version-check", "--no-cache-dir", "install"),
        *("--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--index-url", python.index_url, "--requirement", "/dev/stdin"),
        # A mirror on the LAN may be plain http: the hash says whether the wheel is the right one.
        *("--trusted-host", urlsplit(python.index_url).netloc),
        stdin=f"uv=={python.uv_version} --hash=sha256:{python.uv_sha256}\n",
        mend=f"uv {python.uv_version} could not be installed from {python.index_url}; see that the"
        " box reaches it and that python_uv_sha256 is the wheel's, then run again.",
    )


@box_operation
def wheel_files(release: Release) -> Steps:
    """Have the stack's wheels on the box, checked; a proved release needs them no more.

    + release: the release that is being built
    """
    seal = f"{release.path}/release.json"
    paths = {f"{WHEELS}/{file_name(wheel)}": wheel for wheel in release.python.wheels}
    known = ask(VerifiedFiles, paths=tuple(paths), records=RECORDS)
    missing = {
        path: wheel
        for path, wheel in paths.items()
        if known["files"][path]["sha256"] is None
        or known["files"][path]["sha256"] != (wheel.sha256 or known["urls"].get(wheel.url))
    }
    if not missing or ask(FileStates, paths=(seal,))[seal]["kind"] == "file":
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
    that this one was cut short, and the environment is made anew.
    """
    python, venv = release.python, release.venv
    unfinished = f"{release.path}/unfinished"
    now = ask(Environments, paths=(venv,))[venv]
    marker = ask(FileStates, paths=(unfinished,))[unfinished]
    missing = {
        name: version
        for name, version in release.packages().items()
        if now["packages"].get(name) != version
    }
    if now["python"] == python.version and not missing and marker["kind"] == "absent":
        host.noop(f"{venv} holds {len(now['packages'])} packages as pinned")
        return
    say(f"{venv}: Python {python.version}, {len(missing)} packages to install")
    if missing and len(missing) <= 5:
        say(", ".join(f"{n} {now['packages'].get(n, 'absent')} -> {v}" for n, v in missing.items()))
    anew = now["python"] != python.version or marker["kind"] != "absent"
    # One lost package is no reason to unpack gigabytes of torch again.
    wheels = [w for w in python.wheels if anew or canonicalize_name(w.project) in missing]
    yield Run("mkdir", "-p", release.path, mend="")
    yield Run("touch", unfinished, mend="")
    if anew:
        yield _uv(
            *(python, "venv", "--quiet", "--clear", "--no-project"),
            *("--python", f"python{python.version}", venv),
            mend=f"Python {python.version} is not on the box; install it, or set python_version"
            " and wheels for the one it has.",
        )
    if wheels:
        yield _uv(
            *(python, "pip", "install", "--quiet", "--python", venv),
            *("--no-deps", "--no-index", "--reinstall", "--compile-bytecode"),
            *(f"{WHEELS}/{file_name(wheel)}" for wheel in wheels),
            mend="The stack's wheels could not be installed; the lines above say why. Free disk"
            f" room or remove the damaged file in {WHEELS}, then run again.",
        )
    yield _uv(
        *(python, "pip", "install", "--quiet", "--python", venv),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode"),
        *("--default-index", python.index_url),
        *("--requirements", f"{LOCKS}/{python.requirements}.txt"),
        mend=f"ComfyUI's requirements could not be installed from {python.index_url}; see that the"
        " box reaches it and has disk room, then run again.",
    )
    yield Run("rm", unfinished, mend="")
    after = ask(Environments, paths=(venv,))[venv]["packages"]
    wrong = [n for n, version in release.packages().items() if after.get(n) != version]
    if wrong:
        raise BoxTrouble(
            f"{venv} lacks {', '.join(sorted(wrong))} after installing; remove {release.path}"
            " and run again."
        )


@box_operation
def user_node_requirements(release: Release) -> Steps:
    """Install what the user's own nodes ask for, with the stack's packages held in place.

    + release: the release that is being built
    """
    record = f"{release.path}/user-nodes.json"
    if ask(FileStates, paths=(record,))[record]["kind"] == "file":
        host.noop("the user's nodes have their requirements")
        return
    say(f"{release.venv}: requirements of {len(release.user_nodes)} nodes of the user's")
    held = f"{release.path}/overrides.txt"
    yield Run("mkdir", "-p", release.path, mend="")
    yield Run("tee", held, stdin=overrides(release), mend="")
    yield write(
        "user_requirements",
        {
            "uv": [
                *(uv_program(release.python), "pip", "install", "--quiet"),
                *("--python", release.venv, "--default-index", release.python.index_url),
                *("--override", held, "--constraint", held),
            ],
            "environment": UV_ENVIRONMENT,
            "directory": f"{release.comfyui.base_directory}/custom_nodes",
            "nodes": dict(release.user_nodes),
            "record": record,
        },
        live=True,
    )


def _uv(python: Python, *words: str, mend: str) -> Run:
    settings = [f"{name}={value}" for name, value in UV_ENVIRONMENT.items()]
    return Run("env", *settings, uv_program(python), *words, mend=mend, live=True)
