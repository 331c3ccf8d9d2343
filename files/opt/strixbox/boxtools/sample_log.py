"""Samples appended to a file, a line each: JSON lines or CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path
from typing import Literal

from boxtools.errors import Trouble, WrongUse
from boxtools.sample import Sample

Format = Literal["jsonl", "csv"]
FORMATS = {"jsonl": "JSON lines", "csv": "CSV"}
COLUMNS = tuple(Sample.model_fields)


class SampleLog:
    """A file that samples are appended to.

    Every line is one write, so that a kill leaves whole lines, and goes to the file of that name:
    where the old one was renamed or removed, a new one is begun. What is in the file stays.
    """

    def __init__(self, path: Path, format_: Format) -> None:
        self.path = path
        self.format = format_
        self.lines = 0
        self._file: io.FileIO | None = None

    def append(self, sample: Sample) -> None:
        """Add a line.

        Raises:
            Trouble: where it cannot be written, or the CSV file there has other columns.
            WrongUse: where the file there is of the other format.
        """
        try:
            self._reopen()
            self._write(line(sample, self.format))
        except OSError as error:
            reason = error.strerror or str(error)
            raise Trouble(
                f"{self.path} takes no more samples ({reason}; {self.lines} of this run are in it):"
                " free room, or name a file elsewhere"
            ) from None
        self.lines += 1

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _reopen(self) -> None:
        if self._file is not None and not self._renamed(self._file):
            if self.format == "csv" and os.fstat(self._file.fileno()).st_size == 0:
                self._write(header())  # truncated by whoever rotates it
            return
        self.close()
        self._file = io.FileIO(self.path, "a+")
        size = os.fstat(self._file.fileno()).st_size
        if size:
            self._check(self._file, size)
        elif self.format == "csv":
            self._write(header())

    def _renamed(self, file: io.FileIO) -> bool:
        try:
            now, then = self.path.stat(), os.fstat(file.fileno())
        except FileNotFoundError:
            return True
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)

    def _check(self, file: io.FileIO, size: int) -> None:
        """See that our lines continue what is there."""
        first = os.pread(file.fileno(), len(header()), 0)
        held = "jsonl" if first.startswith(b"{") else "csv"
        if held != self.format:
            self.close()
            raise WrongUse(
                f"{self.path} holds {FORMATS[held]}, and {FORMATS[self.format]} would be appended;"
                f" name another file, or say --format {held}"
            )
        if self.format == "csv" and first != header():
            self.close()
            raise Trouble(
                f"{self.path} has other columns than the samples of this version; name another file"
            )
        if os.pread(file.fileno(), 1, size - 1) != b"\n":
            self._write(b"\n")  # half a line of somebody who was killed

    def _write(self, content: bytes) -> None:
        assert self._file is not None  # noqa: S101 - for mypy: every caller has opened it
        descriptor = self._file.fileno()
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, content)
            if written < len(content):
                # A disk that is nearly full takes a part first and says so at the next write.
                os.write(descriptor, content[written:])
        except OSError:
            with contextlib.suppress(OSError):  # a device has no size
                os.truncate(descriptor, before)
            raise


def header() -> bytes:
    """First line of a CSV file."""
    return _csv(list(COLUMNS))


def line(sample: Sample, format_: Format) -> bytes:
    """A sample as a line."""
    if format_ == "jsonl":
        return sample.model_dump_json().encode() + b"\n"
    return _csv(list(sample.model_dump(mode="json").values()))


def _csv(values: list[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
