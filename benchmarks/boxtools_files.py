"""``strixbox preload`` and model moves beside cat, cp, sha256sum and dd, in alternation.

    python benchmarks/boxtools_files.py [--active DIR] [--archive DIR] [--size 1G] [--rounds 5]

Every way starts with the file out of the page cache (posix_fadvise DONTNEED), does the same work on
the same file, and takes its turn in every round, so that a disk that gets slower or a neighbour on
the machine hits all of them. Where both directories are on one file system, moves are made to copy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1] / "files/opt/strixbox"
sys.path.insert(0, str(ROOT))

from boxtools import pagecache  # noqa: E402
from boxtools.commands.models import amount  # noqa: E402
from boxtools.tiers import Move, move_file  # noqa: E402

Way = tuple[str, Callable[[], object]]
COMMAND = "import sys; from boxtools.cli import main; sys.exit(main())"


def main() -> None:
    """Make a file, measure, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--active", type=Path, default=Path.cwd(), help="directory on the NVMe")
    parser.add_argument("--archive", type=Path, help="directory on the archive's disk")
    parser.add_argument("--size", type=amount, default="1G", help="of the file")
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=words.active) as active,
        tempfile.TemporaryDirectory(dir=words.archive or words.active) as archive,
    ):
        source = Path(active) / "x.safetensors"
        target = Path(archive) / "x.safetensors"
        fill(source, words.size)
        compare("Into the page cache", reads(source), [source], words.size, words.rounds)
        compare("To the other tier", moves(source, target), [source, target], words.size,
                words.rounds)  # fmt: skip


def fill(path: Path, size: int) -> None:
    """Random bytes: nothing on the way can make them fewer."""
    with path.open("wb") as stream:
        for begin in range(0, size, 1 << 20):
            stream.write(os.urandom(min(1 << 20, size - begin)))
        os.fsync(stream.fileno())


def reads(path: Path) -> list[Way]:
    """Ways to read a file once."""
    length = path.stat().st_size

    def library() -> None:
        descriptor = pagecache.open_quietly(path)
        pagecache.Loader(descriptor).load(length, lambda _: None, lambda: True)
        os.close(descriptor)
        # A machine that is busy may have reclaimed some pages again by now.
        if (pagecache.resident(path) or 0) < 0.95 * length:
            raise SystemExit("preload left some of the file on the disk")

    def whole(*words: str) -> Callable[[], object]:
        return lambda: run(*words)

    return [
        ("the disk: dd iflag=direct", whole("dd", f"if={path}", "of=/dev/null", "bs=8M",
                                           "iflag=direct", "status=none")),
        ("cat FILE > /dev/null", whole("cat", str(path))),
        ("strixbox preload, the command", whole(sys.executable, "-c", COMMAND, "preload",
                                               "--share", "1", str(path))),
        ("strixbox preload, its work alone", library),
    ]  # fmt: skip


def moves(source: Path, target: Path) -> list[Way]:
    """Ways to copy a file, with proof that the copy is on the disk and the same."""
    one_disk = source.parent.stat().st_dev == target.parent.stat().st_dev
    aside = source.with_name("kept")

    def disk() -> None:
        run("dd", f"if={source}", f"of={target}", "bs=8M", "iflag=direct", "oflag=direct",
            "status=none")  # fmt: skip
        run("dd", f"if={target}", "of=/dev/null", "bs=8M", "iflag=direct", "status=none")

    def careful(cold: bool, *hash_program: str) -> None:
        run("cp", str(source), str(target))
        run("sync", str(target))
        for path in (source, target):
            if cold:  # else the second check reads what cp left in memory, not the disk
                drop(path)
            run(*hash_program, str(path))

    def move() -> None:
        os.link(source, aside)  # the same file again for the next way
        move_file(Move(source=source, target=target, link=True), copy_only=one_disk)
        aside.replace(source)

    return [
        ("the disk: dd there, dd back (direct)", disk),
        ("cp; sync; sha256sum of both, in memory", lambda: careful(False, "sha256sum")),
        # sha256sum of coreutils may lack the processor's SHA instructions, which Python's has.
        ("cp; sync; openssl sha256, from the disk", lambda: careful(True, "openssl", "sha256")),
        ("strixbox models archive, its work alone", move),
    ]


def run(*words: str) -> None:
    """A program, its output away."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env=environment)  # fmt: skip


def drop(path: Path) -> None:
    """Have a file leave the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    pagecache.drop(descriptor)
    os.close(descriptor)


def compare(title: str, ways: list[Way], files: list[Path], size: int, rounds: int) -> None:
    """Medians of all ways, beside the first."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
    for _ in range(rounds):
        for name, work in ways:
            for path in files[1:]:
                path.unlink(missing_ok=True)
            drop(files[0])
            begun = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begun)
    table = Table("", "median s", "min", "max", "GB/s", f"x {ways[0][0].split(':')[0]}",
                  title=f"{title}: {size / 1e9:.2f} GB, {rounds} rounds", title_justify="left",
                  box=None)  # fmt: skip
    first = statistics.median(seconds[ways[0][0]])
    for name, _ in ways:
        median = statistics.median(seconds[name])
        table.add_row(name, f"{median:.2f}", f"{min(seconds[name]):.2f}",
                      f"{max(seconds[name]):.2f}", f"{size / median / 1e9:.2f}",
                      f"{median / first:.2f}")  # fmt: skip
    Console(width=max(100, shutil.get_terminal_size().columns)).print(table)


if __name__ == "__main__":
    main()
