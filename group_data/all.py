"""Every pin and every default: ROCm 6.4.2 with torch 2.6, as the tuning chapter asks for.

The keys are ``section_field`` of strixbox/config.py, which says what each means. A box or a group
overrides single keys (boxes.yaml, group_data/<group>.py).
"""

# --- Pins -------------------------------------------------------------------------------------

stack = "rocm-6.4.2"

# AMD lists no 6.4.x as supported on this chip (rdna3-5 table of the ROCm documentation); it is
# the stack that was asked for. The group rocm_7_2 is the one that AMD supports.
rocm_version = "6.4.2"
rocm_repository = "https://repo.radeon.com/rocm/apt/6.4.2"
rocm_key_url = "https://repo.radeon.com/rocm/rocm.gpg.key"
# AMD says that the key file may change, so the fingerprint is the pin, not a hash of the file.
# uid "AMD MLSE DevOps", expires 2028-08-21.
rocm_key_fingerprint = "CA8BB4727A47B4D09B4EE8969386B48A1A693C5C"

# renovate: datasource=pypi depName=uv
python_uv_version = "0.9.18"
# The manylinux x86_64 wheel: pip download --no-deps uv==0.9.18 && sha256sum uv-*.whl
python_uv_sha256 = "3332188fd8d96a68e5001409a52156dced910bf1bc41ec3066534cffcd46eb68"

# AMD's own wheels for exactly this pair; `torch==2.6.0+rocm6.4` of the chapter was never published.
# AMD publishes no hashes for them: None is recorded at first use and checked ever after.
_WHEELS = "https://repo.radeon.com/rocm/manylinux/rocm-rel-6.4.2"
python_wheels = [
    {
        "project": "torch",
        "version": "2.6.0+rocm6.4.2.git76481f7c",
        "url": f"{_WHEELS}/torch-2.6.0%2Brocm6.4.2.git76481f7c-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
    {
        "project": "torchvision",
        "version": "0.21.0+rocm6.4.2.git4040d51f",
        "url": f"{_WHEELS}/torchvision-0.21.0%2Brocm6.4.2.git4040d51f-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
    {
        "project": "torchaudio",
        "version": "2.6.0+rocm6.4.2.gitd8831425",
        "url": f"{_WHEELS}/torchaudio-2.6.0%2Brocm6.4.2.gitd8831425-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
    {
        "project": "pytorch-triton-rocm",
        "version": "3.2.0+rocm6.4.2.git7e948ebf",
        "url": f"{_WHEELS}/pytorch_triton_rocm-3.2.0%2Brocm6.4.2.git7e948ebf"
        "-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
]
python_version = "3.12"  # what Ubuntu 24.04 has and the wheels are built for
python_numpy = "1.26.4"  # AMD: numpy 2 is incompatible with the torch 2.6 wheels
python_hip = "6.4"
python_requirements = "comfyui-0.3.64-torch-2.6"

# renovate: datasource=github-tags depName=comfyanonymous/ComfyUI
comfyui_commit = "637221995f7424a561bd825de3e61ea117dfe1e3"  # v0.3.64
comfyui_nodes = [
    {
        # ComfyUI-TiledVAE of the chapter cannot be obtained; this is the same author's node pack
        # with the Tiled VAE nodes. Its licence is CC BY-NC-SA 4.0 (not for commercial use): set
        # comfyui_nodes to [] to leave it out, core ComfyUI has tiled VAE nodes of its own.
        "name": "ComfyUI-TiledDiffusion",
        "url": "https://github.com/shiimizu/ComfyUI-TiledDiffusion",
        "commit": "a155b1bac39147381aeaa52b9be42e545626a44f",
    },
]

# --- The box ----------------------------------------------------------------------------------

box_ram_gib = 128
box_distribution = "ubuntu-24.04"
box_accept: dict[str, str] = {}

# --- ROCm -------------------------------------------------------------------------------------

rocm_packages = ["rocm-hip-sdk", "rocm-libs"]
rocm_suite = "noble"
# An upper bound: 3.95 GB of download and 24.2 GB installed are those of all of `rocm` 6.4.2, 101
# packages, of which these two bring a part.
rocm_disk_gib = 26
# noble's universe has ROCm parts of its own (rocminfo 5.7.1) that sort above AMD's 1.0.0.60402;
# AMD's documented pin of `Package: *` would let their repository replace anything.
rocm_pinned = [
    "amd-smi-lib",
    "comgr",
    "composablekernel-dev",
    "half",
    "hip-*",
    "hipblas*",
    "hipcc",
    "hipcub-dev",
    "hipfft*",
    "hipfort-dev",
    "hipify-clang",
    "hiprand*",
    "hipsolver*",
    "hipsparse*",
    "hiptensor*",
    "hsa-*",
    "migraphx*",
    "miopen-hip*",
    "mivisionx*",
    "openmp-extras-*",
    "rccl*",
    "rocalution*",
    "rocblas*",
    "rocfft*",
    "rocm-*",
    "rocminfo",
    "rocprim-dev",
    "rocprofiler*",
    "rocrand*",
    "rocsolver*",
    "rocsparse*",
    "rocthrust-dev",
    "roctracer*",
    "rocwmma-dev",
    "rpp*",
]

# --- Python -----------------------------------------------------------------------------------

python_index_url = "https://pypi.org/simple"

# --- ComfyUI ----------------------------------------------------------------------------------

comfyui_url = "https://github.com/comfyanonymous/ComfyUI"
comfyui_access = "local"
comfyui_port = 8188
comfyui_profile = "production"
comfyui_preview = "auto"  # auto is latent2rgb in ComfyUI's code; TAESD needs its model files
comfyui_start_timeout = 180
comfyui_keep_releases = 2
comfyui_release_disk_gib = 16

# --- Launch -----------------------------------------------------------------------------------

# Every variable of the chapter's 7.1.1, 7.7.1 and 7.12, and what it really does.
launch_variables = {
    "HSA_OVERRIDE_GFX_VERSION": {
        "value": "11.0.0",
        "does": "Makes ROCm take the GPU for gfx1100. Needed only by wheels without gfx1151 code, "
        "such as torch 2.6 for ROCm 6.4.2; harmful with any other (ROCm issues 5824, 5853).",
    },
    "PYTORCH_ROCM_ARCH": {
        "value": "gfx1100",
        "does": "Target of C++ extensions that torch compiles on the box; nothing reads it when "
        "images are made.",
    },
    "PYTORCH_TUNABLEOP_ENABLED": {
        "value": "1",
        "does": "Uses tuned kernels for matrix products, not convolutions. `strixbox warmup` tunes "
        "and switches tuning off at every start: a new shape would be slow once.",
    },
    "PYTORCH_TUNABLEOP_FILENAME": {
        "value": "/var/lib/strixbox/tunableop/rocm-6.4.2-torch-2.6.0-gfx1100-%d.csv",
        "does": "Where TunableOp keeps its results; without it they land in the current directory. "
        "The name holds ROCm, torch and GPU, as results of others are rejected.",
    },
    "MIGRAPHX_MLIR_USE_SPECIFIC_OPS": {
        "value": "attention",
        "does": "Read by MIGraphX, which ComfyUI and torch never call: no effect here.",
    },
    "GPU_MAX_ALLOC_PERCENT": {
        "value": "95",
        "does": "Not read by ROCm's runtime (absent in clr's flags.hpp): no effect.",
    },
    "GPU_MAX_HEAP_SIZE": {
        "value": "99",
        "does": "Upper bound of the GPU heap in percent; the default is 100, so 99 only lowers it.",
    },
    "RADV_PERFTEST": {
        "value": "gpl,nggc",
        "does": "Switches of Mesa's Vulkan driver: no effect on ROCm.",
    },
    "AMD_DIRECT_DISPATCH": {
        "value": "1",
        "does": "Already the default on Linux.",
    },
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": {
        "value": "1",
        "does": "Lets torch use AOTriton's attention on this chip; ComfyUI's main.py sets it to 1 "
        "itself, whatever it was.",
    },
    "OMP_NUM_THREADS": {
        "value": "16",
        "does": "Threads of torch's CPU work; torch takes the physical cores by itself.",
    },
    "MKL_NUM_THREADS": {
        "value": "16",
        "does": "Threads of MKL, where a package brings MKL; little effect.",
    },
    "OPENBLAS_NUM_THREADS": {
        "value": "16",
        "does": "Threads of OpenBLAS in numpy; little effect.",
    },
    "ROCM_VISIBLE_DEVICES": {
        "value": "0",
        "does": "Not a variable of ROCm; nothing reads it (ROCR_VISIBLE_DEVICES is the one).",
    },
    "HIP_VISIBLE_DEVICES": {
        "value": "0",
        "does": "GPUs that HIP shows; the box has one, so nothing changes.",
    },
}

_BASE = [
    "HSA_OVERRIDE_GFX_VERSION",
    "PYTORCH_ROCM_ARCH",
]
_FLAGS = [
    # torch's own attention. With it ComfyUI takes xformers for absent (comfy/model_management.py).
    "--use-pytorch-cross-attention",
    # Does nothing beside it, and xformers is not installed; the chapter's scripts have it.
    "--disable-xformers",
]

# The chapter's launch scripts as data. Flags of paths, port and preview come from other settings.
# GPU and CPU share the box's memory, so that "moving a model to the CPU" is a copy within it:
# - --highvram keeps models where they are after an image. It saves the copies, and holds all that
#   was ever loaded: with several large models at once the box can run out of memory;
# - --normalvram only undoes a --lowvram that ComfyUI chose by itself, which it does not here;
# - --lowvram loads the model in parts: less memory at once, slower.
# `strixbox bench flags` measures them on the box.
launch_profiles = {
    # 7.2.1
    "optimized": {
        "flags": ["--highvram", *_FLAGS],
        "variables": [
            *_BASE,
            "PYTORCH_TUNABLEOP_ENABLED",
            "PYTORCH_TUNABLEOP_FILENAME",
            "MIGRAPHX_MLIR_USE_SPECIFIC_OPS",
            "GPU_MAX_ALLOC_PERCENT",
            "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
        ],
        "preload": False,
    },
    # 7.4.2, the chapter's v2
    "preload": {
        "flags": ["--highvram", *_FLAGS],
        "variables": [*_BASE, "GPU_MAX_ALLOC_PERCENT"],
        "preload": True,
    },
    # 7.7.1, the chapter's v3
    "threads": {
        "flags": ["--highvram", *_FLAGS],
        "variables": [
            *_BASE,
            "GPU_MAX_ALLOC_PERCENT",
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "ROCM_VISIBLE_DEVICES",
            "HIP_VISIBLE_DEVICES",
        ],
        "preload": False,
    },
    # 7.12
    "production": {
        "flags": ["--highvram", *_FLAGS],
        "variables": [
            *_BASE,
            "GPU_MAX_ALLOC_PERCENT",
            "GPU_MAX_HEAP_SIZE",
            "PYTORCH_TUNABLEOP_ENABLED",
            "PYTORCH_TUNABLEOP_FILENAME",
            "MIGRAPHX_MLIR_USE_SPECIFIC_OPS",
            "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
            "RADV_PERFTEST",
            "AMD_DIRECT_DISPATCH",
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
        ],
        "preload": True,
    },
    # 7.2.2
    "normalvram": {
        "flags": ["--normalvram", *_FLAGS],
        "variables": [*_BASE, "GPU_MAX_ALLOC_PERCENT"],
        "preload": False,
    },
    "lowvram": {
        "flags": ["--lowvram", *_FLAGS],
        "variables": [*_BASE, "GPU_MAX_ALLOC_PERCENT"],
        "preload": False,
    },
}

# The block in ~/.bashrc: the chapter's 7.1.1.
launch_shell = [
    *_BASE,
    "PYTORCH_TUNABLEOP_ENABLED",
    "PYTORCH_TUNABLEOP_FILENAME",
    "MIGRAPHX_MLIR_USE_SPECIFIC_OPS",
    "GPU_MAX_ALLOC_PERCENT",
    "GPU_MAX_HEAP_SIZE",
    "RADV_PERFTEST",
    "AMD_DIRECT_DISPATCH",
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
]

# --- The strixbox command on the box ------------------------------------------------------------

tools_profiler = False  # a profiler that anybody who reaches the server could start

# --- RAM disk ---------------------------------------------------------------------------------

tmpfs_path = "/tmp/comfyui_cache"  # noqa: S108 - the chapter's mount point; mode and owner are private
tmpfs_size_gib = 32

# --- Models -----------------------------------------------------------------------------------

models_archive = None
models_manifest: list[dict[str, object]] = []
