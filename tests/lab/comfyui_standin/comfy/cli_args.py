"""The flags of ComfyUI v0.3.64, as data: names, kinds, choices and what excludes what."""

import argparse
import os

import comfy.options

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SWITCHES = """
auto-launch disable-auto-launch cpu-vae force-channels-last disable-ipex-optimize
supports-fp8-compute disable-xformers async-offload force-non-blocking disable-smart-memory
deterministic mmap-torch-files disable-mmap dont-print-server quick-test-for-ci
windows-standalone-build disable-metadata disable-all-custom-nodes disable-api-nodes multi-user
log-stdout enable-compress-response-body
""".split()
GROUPS = [
    "cuda-malloc disable-cuda-malloc",
    "force-fp32 force-fp16",
    "fp32-unet fp64-unet bf16-unet fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet",
    "fp16-vae fp32-vae bf16-vae",
    "fp8_e4m3fn-text-enc fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc",
    "use-split-cross-attention use-quad-cross-attention use-pytorch-cross-attention "
    "use-sage-attention use-flash-attention",
    "force-upcast-attention dont-upcast-attention",
    "gpu-only highvram normalvram lowvram novram cpu",
]
TEXTS = """
tls-keyfile tls-certfile base-directory output-directory temp-directory input-directory
oneapi-device-selector front-end-root
""".split()
DEFAULTS = {
    "front-end-version": "comfyanonymous/ComfyUI@latest",
    "comfy-api-base": "https://api.comfy.org",
    "database-url": f"sqlite:///{os.path.join(HERE, 'user', 'comfyui.db')}",
}
NUMBERS = {"port": 8188, "cuda-device": None, "default-device": None, "preview-size": 512}
LOG_LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _directory(path: str) -> str:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is not a directory.")
    return path


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    for name in SWITCHES:
        made.add_argument(f"--{name}", action="store_true")
    for names in GROUPS:
        group = made.add_mutually_exclusive_group()
        for name in names.split():
            group.add_argument(f"--{name}", action="store_true")
    caches = made.add_mutually_exclusive_group()
    caches.add_argument("--cache-classic", action="store_true")
    caches.add_argument("--cache-lru", type=int, default=0)
    caches.add_argument("--cache-none", action="store_true")
    for name in TEXTS:
        made.add_argument(f"--{name}", type=str)
    for name, default in DEFAULTS.items():
        made.add_argument(f"--{name}", type=str, default=default)
    for name, default in NUMBERS.items():
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--listen", type=str, default="127.0.0.1", nargs="?", const="0.0.0.0,::")
    made.add_argument("--enable-cors-header", type=str, nargs="?", const="*")
    made.add_argument("--max-upload-size", type=float, default=100)
    made.add_argument("--reserve-vram", type=float)
    made.add_argument("--directml", type=int, nargs="?", const=-1)
    made.add_argument("--extra-model-paths-config", nargs="+", action="append")
    made.add_argument(
        "--preview-method", choices=["none", "auto", "latent2rgb", "taesd"], default="none"
    )
    made.add_argument(
        "--default-hashing-function", choices=["md5", "sha1", "sha256", "sha512"], default="sha256"
    )
    made.add_argument("--fast", nargs="*")
    made.add_argument("--whitelist-custom-nodes", nargs="+", default=[])
    made.add_argument("--verbose", choices=LOG_LEVELS, default="INFO", const="DEBUG", nargs="?")
    made.add_argument("--user-directory", type=_directory)
    return made


parser = _parser()
args = parser.parse_args() if comfy.options.args_parsing else parser.parse_args([])
