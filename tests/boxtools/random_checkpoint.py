"""Writes a checkpoint of Stable Diffusion 1's kind with random weights; run by ComfyUI's Python.

    python random_checkpoint.py COMFYUI FILE [CONTROLNET]

Text encoder and VAE have their full shapes, which ComfyUI does not vary. Of the UNet two levels
of one block each are left, which ComfyUI reads from the weights: it makes noise, but all the way
that a real one takes, in a second instead of a minute. 244 million weights, 488 MB. CONTROLNET is
a second file to write: a ControlNet for that UNet.
"""

# mypy: ignore-errors
import sys

code, target, *more = sys.argv[1:]
sys.path.insert(0, code)
sys.argv = ["main.py", "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from comfy.cldm.cldm import ControlNet  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402

UNET = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "context_dim": 768},
    **{"model_channels": 320, "num_heads": 8, "num_res_blocks": [1, 1], "channel_mult": [1, 1]},
    **{"transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0]},
    **{"transformer_depth_middle": 1, "use_spatial_transformer": True, "legacy": False},
}
VAE = {
    **{"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3},
    **{"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": []},
    "dropout": 0.0,
}


def filled(name, value):
    """Random values of the size that keeps a signal's size through the layer."""
    if not value.is_floating_point():
        return value
    if value.dim() > 1:
        value = torch.randn(value.shape) / value[0].numel() ** 0.5
    else:
        value = torch.full(value.shape, float(name.endswith("norm.weight")))
    return value.half().contiguous()


def save(parts, path):
    """Write modules with random weights into one file, each with its prefix."""
    weights = {
        prefix + name: filled(name, value)
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }
    safetensors.torch.save_file(weights, path)


torch.manual_seed(0)
operations = comfy.ops.disable_weight_init
parts = {
    "model.diffusion_model.": UNetModel(**UNET, dtype=torch.float32, operations=operations),
    "first_stage_model.": AutoencoderKL(ddconfig=VAE, embed_dim=4),
    "cond_stage_model.": comfy.sd1_clip.SDClipModel(device="cpu", dtype=torch.float32),
}
save(parts, target)
if more:
    own = {name: UNET[name] for name in UNET.keys() - {"out_channels", "transformer_depth_output"}}
    net = ControlNet(**own, hint_channels=3, dtype=torch.float32, operations=operations)
    save({"control_model.": net}, more[0])
