"""The kernel's page cache: what of a file is in it, bringing files in, reading files past it.

Nothing here holds a file's content: the page cache is the kernel's memory, given back when programs
need it, which on this APU includes the GPU's GTT.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE = mmap.PAGESIZE
WINDOW = 64 << 20  # bytes that are looked at together
CHUNK = 8 << 20  # bytes that are read at once
# The kernel caps one request for readahead (mm/readahead.c, force_page_cache_ra) at the larger of
# the device's read_ahead_kb and its largest transfer, and silently drops the rest; 128 KiB is the
# smallest cap, a device's default. One request for 64 MiB brings in little more than that.
ASK = 128 << 10
PATIENCE = 1.0  # seconds without a new page, after which what was asked for is read instead
CACHESTAT = 451  # its number on every architecture; since Linux 6.5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_FAILED = ctypes.c_void_p(-1).value
_LOWEST_BIT = bytes(byte & 1 for byte in range(256))  # the other bits mean nothing yet (mincore(2))


def open_quietly(path: Path) -> int:
    """A descriptor for reading; reads through it leave the time of last use alone.

    O_NOATIME is for a file's owner and root only (open(2)): others change that time, at most once
    a day where the mount is relatime.

    Raises:
        OSError: where the file cannot be opened.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def resident(path: Path) -> int | None:
    """Bytes of a file that are in the page cache; None where the kernel does not tell."""
    try:
        descriptor = open_quietly(path)
    except OSError:
        return None
    try:
        length = os.fstat(descriptor).st_size
        if not may_ask(descriptor):
            return None
        pages = _cachestat(descriptor)
        if pages is None:
            spans = _spans(length, WINDOW)
            pages = sum(in_cache(descriptor, *span).count(1) for span in spans)
        return min(pages * PAGE, length)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def may_ask(descriptor: int) -> bool:
    """Whether the kernel tells the truth about this file.

    Since Linux 5.2 mincore shows all pages as resident to those who are neither a file's owner nor
    allowed to write it; cachestat refuses since 6.14.
    """
    owner = os.fstat(descriptor).st_uid
    return os.geteuid() in (0, owner) or os.access(f"/proc/self/fd/{descriptor}", os.W_OK)


def in_cache(descriptor: int, offset: int, length: int) -> bytes:
    """One byte a page: 1 where the page is in the page cache and up to date.

    ``offset`` is a multiple of the page size. The file is mapped for the question, never read.

    Raises:
        OSError: where the file cannot be mapped (mmap(2), mincore(2)).
    """
    count = -(-length // PAGE)
    address = _libc.mmap(
        None, ctypes.c_size_t(length), mmap.PROT_READ, mmap.MAP_SHARED, descriptor,
        ctypes.c_int64(offset),
    )  # fmt: skip
    if address == _FAILED:
        raise _error()
    try:
        vector = ctypes.create_string_buffer(count)
        span = (ctypes.c_void_p(address), ctypes.c_size_t(length))
        if _libc.mincore(*span, vector) != 0:
            raise _error()
        return vector.raw.translate(_LOWEST_BIT)
    finally:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))


def _cachestat(descriptor: int) -> int | None:
    """Pages of a file in the page cache, those on their way in counted too; None without it."""
    whole = (ctypes.c_uint64 * 2)(0, 0)  # offset, length; a length of 0 is up to the end
    told = (ctypes.c_uint64 * 5)()  # nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_...
    number, flags = ctypes.c_long(CACHESTAT), ctypes.c_uint(0)
    failed = _libc.syscall(number, descriptor, whole, told, flags)
    return None if failed else int(told[0])


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    for offset in range(0, length, step):
        yield offset, min(step, length - offset)


def drop(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Have clean pages of a file leave the page cache; 0, 0 is the whole file.

    Pages that are dirty or that a program has mapped stay (posix_fadvise(2)).
    """
    os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def pass_through(descriptor: int, length: int) -> Iterator[memoryview]:
    """A file's content in chunks of 8 MiB, leaving the page cache as it was.

    Chunks of which nothing was in the cache before leave it again: hashing an archive of models
    does not push out those that are in use. Every chunk is in one of two buffers that are used
    again: what is made of it must be done when the next but one is asked for. Ends early where the
    file does.

    Raises:
        OSError: where it cannot be read.
    """
    before = in_cache(descriptor, 0, length) if length and may_ask(descriptor) else None
    buffers = [memoryview(bytearray(min(CHUNK, length) or 1)) for _ in range(2)]
    for number, (offset, wanted) in enumerate(_spans(length, CHUNK)):
        view = buffers[number % 2][:wanted]
        done = 0
        while done < wanted:
            got = os.preadv(descriptor, [view[done:]], offset + done)
            if got == 0:
                break
            done += got
        if before and 1 not in before[offset // PAGE : -(-(offset + wanted) // PAGE)]:
            drop(descriptor, offset, wanted)
        if done:
            yield view[:done]
        if done < wanted:
            return


class Loader:
    """Brings files into the page cache.

    The kernel is asked for readahead, which starts the transfer and returns, one window ahead of
    the one that is waited for: the device always has work and nothing is copied to this process.
    Pages that are there already are not asked for again. Where asking has no effect (some network
    and FUSE file systems), and where the kernel does not tell what is there, the rest is read into
    one small buffer, as ``cat`` would.
    """

    def __init__(self, descriptor: int, patience: float = PATIENCE) -> None:
        self.descriptor = descriptor
        self.patience = patience
        self.asks = may_ask(descriptor)
        self.buffer = memoryview(bytearray(ASK))

    def load(self, length: int, seen: Callable[[int], None], go_on: Callable[[], bool]) -> int:
        """Have the first ``length`` bytes in the page cache; returns how far it came.

        ``seen`` is told how many bytes from the start are there; ``go_on`` is asked before every
        window of 64 MiB.

        Raises:
            OSError: where the file cannot be read.
        """
        done = 0
        asked: tuple[int, int] | None = None
        for span in _spans(length, WINDOW):
            if not go_on():
                break
            self._ask(*span)
            if asked:
                done = self._settle(*asked)
                seen(done)
            asked = span
        if asked:
            done = self._settle(*asked)
            seen(done)
        return done

    def _ask(self, offset: int, length: int) -> None:
        if not self.asks:
            return
        there = in_cache(self.descriptor, offset, length)
        for begin, size in _spans(length, ASK):
            if 0 in there[begin // PAGE : -(-(begin + size) // PAGE)]:
                os.posix_fadvise(self.descriptor, offset + begin, size, os.POSIX_FADV_WILLNEED)

    def _settle(self, offset: int, length: int) -> int:
        """Wait until a window is there, reading what does not come by itself."""
        missing, pause = -1, 0.001
        patient_until = 0.0
        while self.asks:
            there = in_cache(self.descriptor, offset, length)
            now = time.monotonic()
            if there.count(0) != missing:
                missing, patient_until = there.count(0), now + self.patience
            if missing == 0:
                return offset + length
            if now > patient_until:
                # Nothing came at all: the device takes no advice, so none is given to it again.
                self.asks = missing < len(there)
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        there = in_cache(self.descriptor, offset, length) if may_ask(self.descriptor) else b""
        for begin, size in _spans(length, ASK):
            if not there or 0 in there[begin // PAGE : -(-(begin + size) // PAGE)]:
                os.preadv(self.descriptor, [self.buffer[:size]], offset + begin)
        return offset + length
