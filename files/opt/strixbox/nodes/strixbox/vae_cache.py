"""VAE encoding with a memory: an image that was encoded before costs a hash instead of a pass.

ComfyUI keeps the output of a node while its inputs stay the same, for the last prompt only
(``--cache-lru N`` keeps more). This cache goes by content: it still hits when the image comes by
another file name or from another workflow, or after others were encoded in between.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from typing import Any

import torch

MIB = 1024 * 1024


class ByteLRU:
    """Values by key, at most ``limit`` bytes; the least recently used go first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes) -> Any:
        """The value of ``key``, now the most recently used; None where it is not there."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: bytes, value: Any, size: int) -> None:
        """Keep a value of ``size`` bytes; one above the limit is not kept."""
        with self._lock:
            _, old = self._held.pop(key, (None, 0))
            self.bytes -= old
            if size <= self.limit:
                self._held[key] = (value, size)
                self.bytes += size
            self._trim()

    def resize(self, limit: int) -> None:
        """Change the limit, giving up what is above it."""
        with self._lock:
            self.limit = limit
            self._trim()

    def clear(self) -> None:
        """Give up everything."""
        with self._lock:
            self._held.clear()
            self.bytes = 0

    def _trim(self) -> None:
        while self.bytes > self.limit:
            _, (_, size) = self._held.popitem(last=False)
            self.bytes -= size


CACHE = ByteLRU(256 * MIB)
# By the VAE object: entries go when ComfyUI drops the VAE, and an id that is used again after that
# cannot be mistaken for it.
_DIGESTS: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def add_tensor(digest: Any, tensor: Any) -> None:
    """Put shape, dtype and every byte of a tensor into a hash."""
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{tuple(plain.shape)}{plain.dtype};".encode())
    if plain.numel():
        digest.update(plain.reshape(-1).view(torch.uint8).numpy())


def weights_digest(model: Any) -> bytes:
    """SHA-256 of all weights, with their names.

    All of them, not a sample: two VAEs may differ in a few values only, and a wrong hit is a wrong
    image that nobody notices. 335 MB take some tenths of a second, once for a loaded VAE.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}=".encode())
        add_tensor(digest, tensor)
    return digest.digest()


def identity(vae: Any) -> bytes:
    """What tells one VAE from another: its weights, its dtype, and patches that lie on it."""
    digest = hashlib.sha256()
    try:
        weights = _DIGESTS.get(vae)
        if weights is None:
            weights = _DIGESTS[vae] = weights_digest(vae.first_stage_model)
    except Exception as error:
        # Weights that cannot be read (a wrapper of another pack, tensors without storage): such a
        # VAE is like no other, so that it never hits with somebody else's latent.
        logging.debug("strixbox: this VAE cannot be told by its weights: %s", error)
        weights = os.urandom(32)
    patcher = getattr(vae, "patcher", None)
    patches = getattr(patcher, "patches_uuid", None) if getattr(patcher, "patches", None) else None
    kind = type(getattr(vae, "first_stage_model", vae)).__name__
    words = (kind, getattr(vae, "vae_dtype", None), getattr(vae, "device", None), patches)
    digest.update(weights + repr(words).encode())
    return digest.digest()


def key_of(pixels: Any, vae: Any, tile_size: int, overlap: int) -> bytes:
    """Key of a latent: the images' content, the VAE, and how it is tiled."""
    digest = hashlib.sha256(identity(vae))
    digest.update(f"{tile_size},{overlap};".encode())
    add_tensor(digest, pixels)
    return digest.digest()


class StrixboxVAEEncodeCached:
    """The node "VAE Encode (cached)"."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "strixbox"
    DESCRIPTION = "Encodes images as VAE Encode does and remembers the latents by content."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Inputs in ComfyUI's form."""
        return {
            "required": {"pixels": ("IMAGE",), "vae": ("VAE",)},
            "optional": {
                "tile_size": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 4096,
                        "step": 64,
                        "tooltip": "Encode in tiles of this many pixels; 0 encodes at once.",
                    },
                ),
                "overlap": ("INT", {"default": 64, "min": 0, "max": 1024, "step": 32}),
                "max_mib": (
                    "INT",
                    {
                        "default": 256,
                        "min": 0,
                        "max": 65536,
                        "tooltip": "Memory for all remembered latents; an SDXL latent of 1024x1024"
                        " has 0.25 MiB. 0 remembers nothing.",
                    },
                ),
                "clear": ("BOOLEAN", {"default": False, "tooltip": "Forget everything first."}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, clear: bool = False, **others: Any) -> float | int:
        """Not a number where it must run again: ``clear`` clears each time, not once."""
        return float("nan") if clear else 0

    def encode(
        self,
        pixels: Any,
        vae: Any,
        tile_size: int = 0,
        overlap: int = 64,
        max_mib: int = 256,
        clear: bool = False,
    ) -> dict[str, Any]:
        """Latent of ``pixels`` ([batch, height, width, channels], 0 to 1), alpha left out.

        The images of a batch are remembered together: encoding them one by one may differ in the
        last bits from encoding them at once.
        """
        if clear:
            CACHE.clear()
        CACHE.resize(max_mib * MIB)
        # ComfyUI's tiled encoding also uses tiles of half the size; its VAEDecodeTiled limits the
        # overlap in the same way.
        overlap = min(overlap, tile_size // 4) if tile_size else 0
        pixels = pixels[:, :, :, :3]
        begun = time.perf_counter()
        key = key_of(pixels, vae, tile_size, overlap)
        held = CACHE.get(key)
        if held is not None:
            kept, device = held
            # A copy: nodes further on may write into what they get.
            samples = kept.to(device, copy=True)
        elif tile_size:
            samples = vae.encode_tiled(pixels, tile_x=tile_size, tile_y=tile_size, overlap=overlap)
        else:
            samples = vae.encode(pixels)
        if held is None and isinstance(samples, torch.Tensor):
            kept = samples.detach().to("cpu", copy=True)
            CACHE.put(key, (kept, samples.device), kept.numel() * kept.element_size())
        text = (
            f"{'miss' if held is None else 'hit'} in {time.perf_counter() - begun:.3f} s;"
            f" {CACHE.hits} hits, {CACHE.misses} misses,"
            f" {len(CACHE)} latents in {CACHE.bytes / MIB:.1f} of {max_mib} MiB"
        )
        logging.info("VAE Encode (cached): %s", text)
        return {"ui": {"text": [text]}, "result": ({"samples": samples},)}


NODES = {"VAE Encode (cached)": StrixboxVAEEncodeCached}
