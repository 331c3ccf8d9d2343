"""The stack that AMD supports on gfx1151: ROCm 7.2.1 inside the wheels, no override, no apt ROCm.

Put a box into the group ``rocm_7_2`` (boxes.yaml) to move it here. Only what differs is named.
"""

stack = "rocm-7.2.1"

# The wheels bring ROCm's user space; the kernel's own amdgpu driver is all the box needs.
rocm_version = None

# Hashes from lock files in public repositories, where those had one.
_WHEELS = "https://repo.radeon.com/rocm/manylinux/rocm-rel-7.2.1"
python_wheels = [
    {
        "project": "torch",
        "version": "2.9.1+rocm7.2.1.lw.gitff65f5bc",
        "url": f"{_WHEELS}/torch-2.9.1%2Brocm7.2.1.lw.gitff65f5bc-cp312-cp312-linux_x86_64.whl",
        "sha256": "fb45ace0a27e9f0d0e3c4c6efd8932162743f8376f2aa4752a4d31ef5a1bd3d7",
    },
    {
        "project": "torchvision",
        "version": "0.24.0+rocm7.2.1.gitb919bd0c",
        "url": f"{_WHEELS}/torchvision-0.24.0%2Brocm7.2.1.gitb919bd0c-cp312-cp312-linux_x86_64.whl",
        "sha256": "d5fca8cda173235a3b7434baeebe04c3ebffec3c6fc191e79aa8aa300633f2c9",
    },
    {
        "project": "torchaudio",
        "version": "2.9.0+rocm7.2.1.gite3c6ee2b",
        "url": f"{_WHEELS}/torchaudio-2.9.0%2Brocm7.2.1.gite3c6ee2b-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
    {
        "project": "triton",
        "version": "3.5.1+rocm7.2.1.gita272dfa8",
        "url": f"{_WHEELS}/triton-3.5.1%2Brocm7.2.1.gita272dfa8-cp312-cp312-linux_x86_64.whl",
        "sha256": None,
    },
]
python_hip = "7.2"
python_requirements = "comfyui-0.3.64-torch-2.9"

# These wheels hold gfx1151 code: the override and its companion would only do harm.
_FLAGS = ["--use-pytorch-cross-attention", "--disable-mmap", "--bf16-vae"]
_TUNABLEOP = [
    "PYTORCH_TUNABLEOP_ENABLED",
    "PYTORCH_TUNABLEOP_FILENAME",
]
_THREADS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]

launch_variables = {
    "PYTORCH_TUNABLEOP_ENABLED": {
        "value": "1",
        "does": "Uses tuned kernels for matrix products, not convolutions. `strixbox warmup` tunes "
        "and switches tuning off at every start: a new shape would be slow once.",
    },
    "PYTORCH_TUNABLEOP_FILENAME": {
        "value": "/var/lib/strixbox/tunableop/rocm-7.2.1-torch-2.9.1-gfx1151-%d.csv",
        "does": "Where TunableOp keeps its results; the name holds what they are valid for.",
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
}

# --disable-mmap: loading through mmap is slow or fails on gfx1151 (kyuz0's toolboxes call it
# critical). --bf16-vae: half the memory of fp32 without fp16's black images.
launch_profiles = {
    "optimized": {
        "flags": ["--highvram", *_FLAGS],
        "variables": _TUNABLEOP,
        "preload": False,
    },
    "preload": {"flags": ["--highvram", *_FLAGS], "variables": [], "preload": True},
    "threads": {"flags": ["--highvram", *_FLAGS], "variables": _THREADS, "preload": False},
    # On unified memory --highvram only pins what a smaller job could use: no VRAM flag here.
    "production": {"flags": _FLAGS, "variables": [], "preload": True},
    "normalvram": {"flags": ["--normalvram", *_FLAGS], "variables": [], "preload": False},
    "lowvram": {"flags": ["--lowvram", *_FLAGS], "variables": [], "preload": False},
}
launch_shell: list[str] = []
