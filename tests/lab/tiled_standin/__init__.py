"""Stands in for ComfyUI-TiledDiffusion: the two Tiled VAE nodes by name."""


class VAEDecodeTiled:
    """Has the shape of a node; tests never run it."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "process"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",), "tile_size": ("INT",)}}


class VAEEncodeTiled(VAEDecodeTiled):
    """The other way round."""

    RETURN_TYPES = ("LATENT",)


NODE_CLASS_MAPPINGS = {
    "VAEDecodeTiled_TiledDiffusion": VAEDecodeTiled,
    "VAEEncodeTiled_TiledDiffusion": VAEEncodeTiled,
}
