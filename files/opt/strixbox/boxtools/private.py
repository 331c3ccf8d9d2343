"""A second ComfyUI beside the service, for measuring what only a start can change.

It has a port, a temporary directory and a database of its own: ComfyUI deletes its temporary
directory at start, and two servers on one database stop each other. Models, nodes and input are
those of the box. It ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from boxtools.errors import Trouble
from boxtools.server import Server
from boxtools.settings import Settings

START = 300.0  # seconds until it answers; the real one takes 20 on two cores, more from a cold disk
END = 30.0  # seconds after SIGINT, in which it writes TunableOp's results and removes its files
LINES = 3  # of its log, in the sentence that tells why it did not start

# Where its parent is killed without a chance to end it, the kernel kills it too: nobody reads its
# results any more, and SIGKILL is the only signal that cannot be ignored. SIGINT is in what a
# script starts with & (POSIX, XCU 2.11), and so would be in ComfyUI, which is ended in order by it.
WITH_PARENT = ("env", "--default-signal=INT", "setpriv", "--pdeathsig", "KILL", "--")
TUNABLEOP = "PYTORCH_TUNABLEOP_FILENAME"


@contextlib.contextmanager
def private_server(
    settings: Settings,
    profile: str | None = None,
    flags: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    *,
    without: Sequence[str] = (),
    start: float = START,
) -> Iterator[Server]:
    """Run a ComfyUI of its own while the context lasts.

    The service's models are unloaded first, so that both find room. ``flags`` come after those of
    the profile (``settings.profile`` where none is named), so they win, except against a flag that
    argparse has in an exclusive group: a profile's ``--highvram`` is not undone by ``--lowvram``.
    Such flags are named in ``without``; the server is then started past the launch program, which
    only adds. ``variables`` are set beside the profile's; an empty value takes one away.

    Raises:
        Trouble: where it ends or does not answer within ``start`` seconds, with its last words.
    """
    chosen = settings.profile if profile is None else profile
    if chosen not in settings.profiles:
        known = ", ".join(sorted(settings.profiles))
        raise Trouble(f"there is no launch profile {chosen}; this box has {known}")
    if os.geteuid() == 0 and settings.user != "root":
        # Node packs are anybody's code, and their files would be root's in the user's directories.
        raise Trouble(
            f"a private ComfyUI does not run as root; run this as {settings.user}:"
            f" sudo -u {settings.user} strixbox ..."
        )
    with contextlib.suppress(Trouble):  # a service that does not run holds no memory
        Server(settings.url).free()
    home = _home(settings)
    try:
        port = _free_port()
        own = [
            *("--listen", "127.0.0.1", "--port", str(port)),
            *("--temp-directory", str(home)),
            *("--database-url", f"sqlite:///{home}/comfyui.db"),
            *flags,
        ]
        wanted = _apart(settings, chosen, dict(variables or {}), home)
        if without:
            argv, environment = direct(settings, chosen, without, wanted)
        else:
            words = [f"{name}={value}" for name, value in wanted.items()]
            argv, environment = [str(settings.launch), chosen, *words], dict(os.environ)
        with _process([*argv, *own], environment, home / "log") as process:
            server = Server(f"http://127.0.0.1:{port}")
            _await(server, process, home / "log", start)
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


def direct(
    settings: Settings, profile: str, without: Sequence[str], variables: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a profile that lacks some of its flags.

    The same as the launch program makes, from the same settings; only flags of the whole box, such
    as the preview's, are left at ComfyUI's defaults.
    """
    try:
        release = settings.current.resolve(strict=True)
    except OSError:
        raise Trouble(f"{settings.current} names no release; run the deploy again") from None
    known = settings.profiles[profile]
    argv = [
        *(f"{release}/venv/bin/python", f"{release}/ComfyUI/main.py"),
        *("--extra-model-paths-config", f"{release}/extra_model_paths.yaml"),
        *("--base-directory", str(settings.base_directory)),
        *words_without(known.flags, without),
    ]
    environment = dict(os.environ)
    environment |= {name: settings.variables[name].value for name in known.variables}
    environment |= variables
    taken = {name for name, value in variables.items() if not value}
    return argv, {name: value for name, value in environment.items() if name not in taken}


def words_without(flags: Sequence[str], without: Sequence[str]) -> list[str]:
    """Flags without some of them, and without the values that follow those."""
    kept: list[str] = []
    dropping = False
    for word in flags:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in without
        if not dropping:
            kept.append(word)
    return kept


def _home(settings: Settings) -> Path:
    """A directory of its own, on the RAM disk where there is one, as with the service."""
    for parent in (settings.temp_directory, settings.state):
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="private-", dir=parent))
    raise Trouble(
        f"neither {settings.temp_directory} nor {settings.state} takes files of"
        f" {os.environ.get('USER', 'this account')}; run this as {settings.user}"
    )


def _apart(
    settings: Settings, profile: str, variables: dict[str, str], home: Path
) -> dict[str, str]:
    """The variables, with TunableOp's results as a copy: at its end a process replaces the file."""
    there = TUNABLEOP in settings.profiles[profile].variables
    if settings.tunableop is None or not variables.get(TUNABLEOP, "file" if there else ""):
        return variables
    pattern = settings.tunableop.name
    for result in settings.tunableop.parent.glob(pattern.replace("%d", "*")):
        with contextlib.suppress(OSError):
            shutil.copy(result, home)
    return variables | {TUNABLEOP: str(home / pattern)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _process(
    argv: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [*WITH_PARENT, *argv]
    with _ended_in_order(), log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                # What it writes without being told where, such as TunableOp's results, goes too.
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C reaches this program, which ends it in order
            )
        except OSError as error:
            raise Trouble(
                f"{argv[0]} does not start ({error.strerror}); run the deploy on this box again"
            ) from None
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, as systemd ends the service; SIGKILL to all of it where that is not enough."""
    try:
        process.send_signal(signal.SIGINT)
        process.wait(END)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP (an ssh connection that broke) into what Ctrl-C is."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may: others have a parent that can
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await(server: Server, process: subprocess.Popen[bytes], log: Path, start: float) -> None:
    until = time.monotonic() + start
    while time.monotonic() < until:
        if process.poll() is not None:
            words = last_words(log)
            raise Trouble(
                f"the private ComfyUI ended with {process.returncode}: {words}; for what it means:"
                f' strixbox doctor "{words[-80:]}"'
            )
        with contextlib.suppress(Trouble):
            server.system_stats()
            return
        time.sleep(0.1)
    raise Trouble(
        f"the private ComfyUI did not answer within {start:.0f} s: {last_words(log)}; see whether"
        " the service starts: journalctl -u comfyui"
    )


def last_words(log: Path) -> str:
    """The last lines of a log, as one; whatever bytes are in it."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4096))
            lines = stream.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    told = ["".join(filter(str.isprintable, line)).strip() for line in lines]
    return " / ".join([line for line in told if line][-LINES:])[:400] or "it wrote nothing"
