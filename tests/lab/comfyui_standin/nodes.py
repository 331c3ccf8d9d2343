"""The core nodes that the tools use, and what the stand-in does in a node's place.

What goes from node to node is a ``Value``: its kind, the size of the picture it will become, and a
mark that depends on everything upstream. The nodes' inputs and outputs are in core_nodes.json.
"""

import hashlib
import json
import math
import os
import random
import time
import zlib
from dataclasses import dataclass

import faults
import folder_paths
import gpu
from comfy import model_management
from comfy.cli_args import args
from comfy.utils import ProgressBar
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MAX_RESOLUTION = 16384
STEP = float(os.environ.get("STRIXBOX_STANDIN_STEP", "0.002"))  # seconds of a sampler's step
CHUNK = 4 << 20

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "core_nodes.json")) as _stream:
    TABLE = json.load(_stream)
NODE_CLASS_MAPPINGS = {}
NODE_DISPLAY_NAME_MAPPINGS = {}


@dataclass(frozen=True)
class Value:
    """What a node gives in place of a tensor or a model."""

    kind: str
    width: int = 0  # pixels, also of a latent
    height: int = 0
    batch: int = 1
    steps: int = 0  # of SIGMAS
    mark: int = 0


class OutOfMemoryError(RuntimeError):
    """torch's error of that name."""


OutOfMemoryError.__module__ = "torch"


def vae_names():
    """VAELoader's list: files, the TAESD models that are whole, and no VAE at all."""
    approximate = folder_paths.get_filename_list("vae_approx")
    whole = [
        name
        for name in ("taesd", "taesdxl", "taesd3", "taef1")
        if all(
            any(file.startswith(f"{name}_{half}.") for file in approximate)
            for half in ("decoder", "encoder")
        )
    ]
    return [*folder_paths.get_filename_list("vae"), *whole, "pixel_space"]


def choices(name):
    """The list that an ``@name`` of the table stands for."""
    if name in TABLE["lists"]:
        return list(TABLE["lists"][name])
    if name == "@input":
        return folder_paths.images()
    return vae_names() if name == "@vae" else folder_paths.get_filename_list(name[1:])


def size_of(inputs):
    """Size of the first value that has one: (width, height, batch)."""
    for value in inputs.values():
        if isinstance(value, Value) and value.width:
            return {"width": value.width, "height": value.height, "batch": value.batch}
    return {}


def mark_of(name, inputs):
    """A number that tells this node and everything upstream from others."""
    told = sorted((k, v.mark if isinstance(v, Value) else v) for k, v in inputs.items())
    return zlib.crc32(repr((name, told)).encode())


def passed(node, inputs, **size):
    """What a node gives that computes nothing: values of its types and its inputs' size."""
    common = {**size_of(inputs), "mark": mark_of(type(node).__name__, inputs), **size}
    return tuple(Value(str(kind), **common) for kind in node.RETURN_TYPES)


class CoreNode:
    """A node of the table; ``run`` is what the functions below do in its place."""

    FUNCTION = "run"
    OUTPUT_NODE = False

    @classmethod
    def INPUT_TYPES(cls):
        """Inputs as ComfyUI tells them, with the lists that are on disk now."""
        told = {}
        for category in ("required", "optional", "hidden"):
            if category in cls.ROW:
                told[category] = {
                    name: choice if category == "hidden" else cls.filled(choice)
                    for name, choice in cls.ROW[category].items()
                }
        return told

    @staticmethod
    def filled(row):
        """One input, its list filled in."""
        kind, *options = row
        known = isinstance(kind, str) and kind.startswith("@")
        return (choices(kind) if known else kind, *options)

    def run(self, **inputs):
        """Give what the node's function gives."""
        return RUN.get(type(self).__name__, passed)(self, inputs)


class ImageFile(CoreNode):
    """A node that reads a file of the input directory."""

    @classmethod
    def IS_CHANGED(cls, image, **others):
        """Changes with the file's content."""
        with open(folder_paths.get_annotated_filepath(image), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image):
        """In place of the list: names like ``x.png [output]`` are good too."""
        there = folder_paths.exists_annotated_filepath(image)
        return True if there else f"Invalid image file: {image}"


def load_model(node, inputs):
    """Read the model's file, as loading it would."""
    for name, row in node.ROW["required"].items():
        path = folder_paths.get_full_path(str(row[0])[1:], inputs[name]) if name in inputs else None
        if str(row[0]).startswith("@") and path:
            with open(path, "rb") as stream:
                while stream.read(CHUNK):
                    pass
            model_management.loaded[path] = os.path.getsize(path)
    return passed(node, inputs)


def empty(node, inputs):
    """A latent or picture of the given size."""
    grid = 8 if node.RETURN_TYPES == ("LATENT",) else 1
    width, height = (inputs[name] // grid * grid for name in ("width", "height"))
    return passed(node, inputs, width=width, height=height, batch=inputs["batch_size"])


def scale(node, inputs):
    """A picture of another size; 0 keeps the proportions."""
    had = size_of(inputs)
    width, height = inputs["width"], inputs["height"]
    width = width or max(1, round(had["width"] * height / had["height"]))
    height = height or max(1, round(had["height"] * width / had["width"]))
    return passed(node, inputs, width=width, height=height)


def repeat(node, inputs):
    """More of the same."""
    return passed(node, inputs, batch=inputs["samples"].batch * inputs["amount"])


def load_image(node, inputs):
    """Size of a picture in the input directory."""
    path = folder_paths.get_annotated_filepath(inputs["image"])
    with Image.open(path) as image:
        width, height = image.size
    return passed(node, {"content": node.IS_CHANGED(inputs["image"])}, width=width, height=height)


def schedule(node, inputs):
    """As many steps as asked for."""
    return passed(node, inputs, steps=inputs["steps"])


def encode(node, inputs):
    """A latent of the picture, cut to what a latent can hold."""
    had = size_of(inputs)
    cut = {name: had[name] // 8 * 8 for name in ("width", "height")}
    if "tile_size" in inputs:
        tiles(had | cut, inputs["tile_size"], inputs["overlap"])
    return passed(node, inputs, **cut)


def decode(node, inputs):
    """A picture of the latent."""
    if "tile_size" in inputs:
        side, size = inputs["tile_size"] // 8, size_of(inputs)
        overlap = min(inputs["overlap"], inputs["tile_size"] // 4) // 8
        tiles(size | {name: size[name] // 8 for name in ("width", "height")}, side, overlap)
    return passed(node, inputs)


def tiles(size, side, overlap):
    """Progress of a tiled VAE: ComfyUI goes over each picture with three shapes of tiles."""

    def along(length, tile):
        return 1 if length <= tile else math.ceil((length - overlap) / (tile - overlap))

    shapes = ((side, side), (side // 2, side * 2), (side * 2, side // 2))
    steps = sum(along(size["width"], x) * along(size["height"], y) for x, y in shapes)
    bar = ProgressBar(steps * size["batch"])
    for _ in range(bar.total):
        time.sleep(STEP / 4)
        bar.update(1)


def sample(node, inputs):
    """Steps of a sampler; nothing is computed."""
    latent = inputs["latent_image"]
    steps = inputs["sigmas"].steps if "sigmas" in inputs else inputs["steps"]
    if "start_at_step" in inputs:
        steps = max(0, min(steps, inputs["end_at_step"]) - inputs["start_at_step"])
    if inputs.get("denoise", 1.0) <= 0:
        steps = 0
    if faults.asked("node-error"):
        raise OutOfMemoryError(
            "HIP out of memory. Tried to allocate 2.34 GiB. GPU 0 has a total capacity of 96.00"
            " GiB of which 1.21 GiB is free."
        )
    if gpu.tunableop.render(latent.width, latent.height, latent.batch):
        time.sleep(STEP * 10)
    given = passed(node, inputs)
    bar = ProgressBar(steps)
    for step in range(1, steps + 1):
        time.sleep(STEP)
        if faults.asked("crash-while-rendering") and step > steps / 2:
            os._exit(1)
        preview = None
        if args.preview_method != "none":
            side = (max(1, latent.width // 8), max(1, latent.height // 8))
            preview = ("JPEG", Image.new("RGB", side, colour(given[0].mark + step)), 512)
        bar.update_absolute(step, steps, preview)
    return given


def colour(number):
    """A colour that is never black."""
    return tuple((number >> shift & 0xFF) | 0x20 for shift in (0, 8, 16))


def save(node, inputs, directory=None, kind="output", mark=""):
    """Write PNG files of the picture's size, with the workflow in them."""
    images = next(v for v in inputs.values() if isinstance(v, Value) and v.kind == "IMAGE")
    prefix = str(inputs.get("filename_prefix", "ComfyUI")) + mark
    folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
        prefix, directory or folder_paths.get_output_directory(), images.width, images.height
    )
    written = []
    for index in range(images.batch):
        told = None
        if not args.disable_metadata:
            told = PngInfo()
            told.add_text("prompt", json.dumps(inputs.get("prompt")))
            for key, value in (inputs.get("extra_pnginfo") or {}).items():
                told.add_text(key, json.dumps(value))
        file = f"{name.replace('%batch_num%', str(index))}_{number + index:05}_.png"
        picture = Image.new("RGB", (images.width, images.height), colour(images.mark + index))
        picture.save(os.path.join(folder, file), pnginfo=told, compress_level=1)
        written.append({"filename": file, "subfolder": subfolder, "type": kind})
    return {"ui": {"images": written}}


def preview(node, inputs):
    """The same for a moment, into the temporary directory."""
    letters = "".join(random.choices("abcdefghijklmnop", k=5))  # noqa: S311 - a name
    temporary = folder_paths.get_temp_directory()
    return save(node, inputs, temporary, "temp", f"_temp_{letters}")


RUN = {
    **dict.fromkeys(("CheckpointLoaderSimple", "VAELoader", "ControlNetLoader"), load_model),
    **dict.fromkeys(("LoraLoader", "LoraLoaderModelOnly"), load_model),
    **dict.fromkeys(("EmptyLatentImage", "EmptyImage"), empty),
    **dict.fromkeys(("ImageScale", "LatentUpscale"), scale),
    **dict.fromkeys(("LoadImage", "LoadImageMask"), load_image),
    **dict.fromkeys(("SDTurboScheduler", "BasicScheduler"), schedule),
    **dict.fromkeys(("VAEEncode", "VAEEncodeTiled", "VAEEncodeForInpaint"), encode),
    **dict.fromkeys(("VAEDecode", "VAEDecodeTiled"), decode),
    **dict.fromkeys(("KSampler", "KSamplerAdvanced", "SamplerCustom"), sample),
    **{"RepeatLatentBatch": repeat, "SaveImage": save, "PreviewImage": preview},
}


def run(node, inputs):
    """Run a node. One of a pack that takes values of ours is passed over: it wants tensors."""
    values = any(isinstance(value, Value) for value in inputs.values())
    if isinstance(node, CoreNode) or not values:
        return getattr(node, node.FUNCTION)(**inputs)
    if getattr(node, "OUTPUT_NODE", False):
        pictures = any(isinstance(v, Value) and v.kind == "IMAGE" for v in inputs.values())
        return save(node, inputs) if pictures else ()
    return passed(node, inputs)


def info(name):
    """What /object_info tells of a node."""
    node = NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    returned = list(node.RETURN_TYPES)
    told = {
        "input": inputs,
        "input_order": {category: list(names) for category, names in inputs.items()},
        "output": returned,
        "output_is_list": list(getattr(node, "OUTPUT_IS_LIST", [False] * len(returned))),
        "output_name": list(getattr(node, "RETURN_NAMES", returned)),
        "name": name,
        "display_name": NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(node, "DESCRIPTION", ""),
        "python_module": getattr(node, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node, "CATEGORY", "sd"),
        "output_node": getattr(node, "OUTPUT_NODE", False) is True,
    }
    return told


def register_core():
    """Make the table's rows nodes."""
    for name, row in TABLE["nodes"].items():
        base = ImageFile if name in ("LoadImage", "LoadImageMask") else CoreNode
        own = {
            "ROW": row,
            "CATEGORY": row["category"],
            "RETURN_TYPES": tuple(row["output"]),
            "RETURN_NAMES": tuple(row.get("output_name", row["output"])),
            "OUTPUT_NODE": row.get("output_node", False),
            "RELATIVE_PYTHON_MODULE": row.get("module", "nodes"),
        }
        NODE_CLASS_MAPPINGS[name] = type(name, (base,), own)


register_core()
