"""Image files as far as their headers tell: kind, size, transparency. Nothing is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

SIDES = (16, 16384)  # pixels; the limits of ComfyUI's EmptyLatentImage


@dataclass(frozen=True)
class Picture:
    """What the header of an image file says."""

    suffix: str  # .png, .jpg or .webp
    width: int  # pixels as shown, that is, after the turn that EXIF asks for
    height: int
    transparent: bool


def look(content: bytes) -> Picture | None:
    """The header of a PNG, JPEG or WebP file; None for anything else, and for one cut short."""
    found = _png(content) or _webp(content) or _jpeg(content)
    return found if found and found.width and found.height else None


def fit(picture: Picture, area: int) -> tuple[int, int]:
    """Width and height of about ``area`` pixels in the picture's shape, multiples of 8."""
    shape = math.sqrt(picture.width / picture.height)
    side = math.sqrt(area)
    width, height = (
        min(max(8 * round(length / 8), SIDES[0]), SIDES[1])
        for length in (side * shape, side / shape)
    )
    return width, height


def _png(content: bytes) -> Picture | None:
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    # Colour types 4 and 6 have an alpha channel; a palette (3) may have transparent entries.
    return Picture(
        ".png",
        int.from_bytes(content[16:20], "big"),
        int.from_bytes(content[20:24], "big"),
        content[25] in (3, 4, 6),
    )


def _webp(content: bytes) -> Picture | None:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    chunk = content[12:16]
    if chunk == b"VP8X":
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        return Picture(".webp", width, height, bool(content[20] & 0x10))
    if chunk == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        alpha = bool(bits >> 28 & 1)
        return Picture(".webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), alpha)
    if chunk == b"VP8 ":
        width, height = (int.from_bytes(content[at : at + 2], "little") for at in (26, 28))
        return Picture(".webp", width & 0x3FFF, height & 0x3FFF, False)
    return None


def _jpeg(content: bytes) -> Picture | None:
    if content[:2] != b"\xff\xd8":
        return None
    at, turned = 2, False
    while at + 9 <= len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at] != 0xFF or length < 2:
            return None
        if marker == 0xE1:
            turned = turned or _turned(content[at + 4 : at + 2 + length])
        # SOF0 to SOF15 hold the size; C4, C8 and CC in that range are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (
                int.from_bytes(content[where : where + 2], "big") for where in (at + 5, at + 7)
            )
            return Picture(".jpg", *((height, width) if turned else (width, height)), False)
        at += 2 + length
    return None


def _turned(exif: bytes) -> bool:
    """Whether EXIF's orientation swaps width and height, as ComfyUI's LoadImage does then."""
    tiff = exif[6:] if exif[:6] == b"Exif\0\0" else b""
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return False

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    first = number(4, 4)
    # An entry is tag, type, count and value; 0x0112 is the orientation, 5 to 8 lie on their side.
    for at in range(first + 2, min(first + 2 + 12 * number(first, 2), len(tiff) - 11), 12):
        if number(at, 2) == 0x0112:
            return number(at + 8, 2) in (5, 6, 7, 8)
    return False
