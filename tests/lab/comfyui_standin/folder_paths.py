"""Where models, input and output are: what node packs call, under ComfyUI's names."""

import mimetypes
import os
import time

import yaml
from comfy.cli_args import args

SUFFIXES = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
# Folders below models/, in the order of /models; some are looked for in two places.
FOLDERS = {
    **{name: (name,) for name in ("checkpoints", "configs", "loras", "vae")},
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    **{name: (name,) for name in ("clip_vision", "style_models", "embeddings", "diffusers")},
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    **{name: (name,) for name in ("gligen", "upscale_models")},
}
LATER = ("hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders")
LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}

base_path = os.path.abspath(args.base_directory or os.path.dirname(os.path.abspath(__file__)))
models_dir = os.path.join(base_path, "models")
folder_names_and_paths = {
    **{
        name: ([os.path.join(models_dir, place) for place in places], SUFFIXES)
        for name, places in FOLDERS.items()
    },
    "custom_nodes": ([os.path.join(base_path, "custom_nodes")], set()),
    **{name: ([os.path.join(models_dir, name)], SUFFIXES) for name in LATER},
}
_directories = {
    "output": os.path.abspath(args.output_directory or os.path.join(base_path, "output")),
    "input": os.path.abspath(args.input_directory or os.path.join(base_path, "input")),
    "user": os.path.abspath(args.user_directory or os.path.join(base_path, "user")),
    # It is emptied at every start, so ComfyUI never takes the given directory itself.
    "temp": os.path.join(os.path.abspath(args.temp_directory or base_path), "temp"),
}


def get_output_directory():
    """Where SaveImage writes."""
    return _directories["output"]


def get_input_directory():
    """Where LoadImage reads."""
    return _directories["input"]


def get_temp_directory():
    """Where PreviewImage writes."""
    return _directories["temp"]


def get_user_directory():
    """Where the user's workflows and settings are."""
    return _directories["user"]


def get_directory_by_type(type_name):
    """Directory of ``output``, ``input`` or ``temp``; None for others."""
    return _directories[type_name] if type_name in ("output", "input", "temp") else None


def add_model_folder_path(folder_name, full_folder_path, is_default=False):
    """One more place for a folder's models."""
    name = LEGACY.get(folder_name, folder_name)
    places = folder_names_and_paths.setdefault(name, ([], set()))[0]
    if full_folder_path in places and is_default:
        places.remove(full_folder_path)
    if full_folder_path not in places:
        places.insert(0 if is_default else len(places), full_folder_path)


def load_extra_paths(file):
    """Add the places of an extra_model_paths.yaml."""
    with open(file, encoding="utf-8") as stream:
        sections = yaml.safe_load(stream)
    for section in sections.values():
        base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "") or ""))
        default = section.pop("is_default", False)
        for folder, text in section.items():
            for line in (text or "").split("\n"):
                if line:
                    add_model_folder_path(folder, os.path.join(base, line), default)


def get_folder_paths(folder_name):
    """Places of a folder's models, the first one first."""
    return list(folder_names_and_paths[LEGACY.get(folder_name, folder_name)][0])


def get_filename_list(folder_name):
    """A folder's models in all of its places, relative to them."""
    found = set()
    suffixes = folder_names_and_paths[LEGACY.get(folder_name, folder_name)][1]
    for place in get_folder_paths(folder_name):
        for directory, _, names in os.walk(place, followlinks=True):
            for name in names:
                if not suffixes or os.path.splitext(name)[1].lower() in suffixes:
                    found.add(os.path.relpath(os.path.join(directory, name), place))
    return sorted(found)


def get_full_path(folder_name, filename):
    """Path of a model; None where it is in none of the places."""
    if LEGACY.get(folder_name, folder_name) not in folder_names_and_paths:
        return None
    name = os.path.relpath(os.path.join("/", filename), "/")
    paths = (os.path.join(place, name) for place in get_folder_paths(folder_name))
    return next((path for path in paths if os.path.isfile(path)), None)


def get_full_path_or_raise(folder_name, filename):
    """Path of a model; FileNotFoundError where it is in none of the places."""
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(f"Model in folder '{folder_name}': no file '{filename}'.")
    return path


def annotated_filepath(name):
    """``name.png [output]`` as name and directory; the directory is None without a mark."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], _directories[kind]
    return name, None


def get_annotated_filepath(name, default_dir=None):
    """Path of an image that a node names."""
    name, directory = annotated_filepath(name)
    return os.path.join(directory or default_dir or get_input_directory(), name)


def exists_annotated_filepath(name):
    """Whether that image is there."""
    return os.path.exists(get_annotated_filepath(name))


def images():
    """Images of the input directory."""
    place = get_input_directory()
    return sorted(
        name
        for name in os.listdir(place)
        if os.path.isfile(os.path.join(place, name))
        and (mimetypes.guess_type(name, strict=False)[0] or "").startswith("image/")
    )


def get_save_image_path(filename_prefix, output_dir, image_width=0, image_height=0):
    """Directory, name, first free number, subfolder and prefix of an image to be saved."""
    now = time.localtime()
    words = {
        **{"width": image_width, "height": image_height, "year": now.tm_year},
        **{"month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}", "hour": f"{now.tm_hour:02}"},
        **{"minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}"},
    }
    for word, value in words.items():
        filename_prefix = filename_prefix.replace(f"%{word}%", str(value))
    subfolder, filename = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    if os.path.commonpath((output_dir, os.path.abspath(folder))) != output_dir:
        raise Exception(f"{os.path.abspath(folder)} is outside of the output folder {output_dir}")
    os.makedirs(folder, exist_ok=True)
    numbers = [0]
    for name in os.listdir(folder):
        rest = name.removeprefix(f"{filename}_").split("_")[0]
        if name.startswith(f"{filename}_") and rest.isdecimal():
            numbers.append(int(rest))
    return folder, filename, max(numbers) + 1, subfolder, filename_prefix
