"""Saving in PNG, JPEG and WebP, with the workflow inside where the format can hold it."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

from .images import SUFFIXES, encode, metadata, place, to_pixels


class StrixboxSaveImage:
    """The node "Save Image (PNG, JPEG, WebP)"."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "strixbox"
    DESCRIPTION = "Saves images as PNG, JPEG or WebP, with the workflow as metadata."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Inputs in ComfyUI's form."""
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "ComfyUI",
                        "tooltip": "May hold a folder, %width%, %height%, %year%, %month%, %day%,"
                        " %hour%, %minute%, %second% and %batch_num%.",
                    },
                ),
                "format": (list(SUFFIXES), {"default": "PNG"}),
            },
            "optional": {
                "quality": (
                    "INT",
                    {"default": 90, "min": 1, "max": 100, "tooltip": "JPEG, and WebP with loss."},
                ),
                "lossless": ("BOOLEAN", {"default": False, "tooltip": "WebP without loss."}),
                "compress_level": (
                    "INT",
                    {"default": 4, "min": 0, "max": 9, "tooltip": "PNG: effort, not quality."},
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(
        self,
        images: Any,
        filename_prefix: str = "ComfyUI",
        format: str = "PNG",  # noqa: A002 - the input's name in workflows
        quality: int = 90,
        lossless: bool = False,
        compress_level: int = 4,
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        """Write every image of the batch; returns their names as ComfyUI's history lists them."""
        import folder_paths
        from comfy.cli_args import args

        height, width = images[0].shape[:2]
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        texts = {} if args.disable_metadata else metadata(prompt, extra_pnginfo)
        numbers = itertools.count(counter)
        saved = []
        for index, image in enumerate(images):
            content, left = encode(
                to_pixels(image.detach().cpu().float().numpy()),
                format,
                texts,
                quality=quality,
                lossless=lossless,
                compress_level=compress_level,
            )
            begin = stem.replace("%batch_num%", str(index))
            names = (f"{begin}_{number:05}_.{SUFFIXES[format]}" for number in numbers)
            name = place(Path(folder), names, content)
            saved.append({"filename": name, "subfolder": subfolder, "type": "output"})
            for key, text in left.items():
                self._beside(Path(folder), name, key, text)
        return {"ui": {"images": saved}}

    def _beside(self, folder: Path, name: str, key: str, text: str) -> None:
        """Metadata that the format could not hold, as a file that ComfyUI can open."""
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)
        tries = itertools.chain(
            [f"{name}.{safe}.json"], (f"{name}.{safe}.{n}.json" for n in range(2, 100))
        )
        other = place(folder, tries, text.encode())
        logging.warning(
            "strixbox: %s cannot hold its %s (%d bytes); it is in %s. PNG and WebP hold any size",
            name,
            key,
            len(text),
            other,
        )


NODES = {"Save Image (PNG, JPEG, WebP)": StrixboxSaveImage}
