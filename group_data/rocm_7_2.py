"""The stack that AMD supports on gfx1151: ROCm 7.2.1 and wheels built against it, no override.

Put a box into the group ``rocm_7_2`` (boxes.yaml) to move it here. Only what differs is named.
"""

stack = "rocm-7.2.1"

# torch's wheel is a lightweight one (".lw."): of ROCm it brings MAGMA alone (do_lightweight_build
# in AMD's manywheel/build_rocm.sh) and takes the rest from the box; without it, `import torch` ends
# at libroctx64.so.4 (ROCm issue 6053). AMD: "not including ROCm libraries that are already
# installed" (ROCm issue 4224).
rocm_version = "7.2.1"
rocm_repository = "https://repo.radeon.com/rocm/apt/7.2.1"
# The packages of the libraries that the full wheel of the same script bundles; what these need
# themselves (rocm-core, comgr, rocprofiler-register) comes with them.
rocm_packages = [
    "hip-runtime-amd",
    "hipblas",
    "hipblaslt",
    "hipfft",
    "hiprand",
    "hipsolver",
    "hipsparse",
    "hipsparselt",
    "hsa-rocr",
    "miopen-hip",
    "rccl",
    "rocblas",
    "rocfft",
    "rocm-smi-lib",
    "rocprofiler-sdk",
    "rocrand",
    "rocsolver",
    "rocsparse",
    "roctracer",
]
# An upper bound: all of `rocm` 7.1.1 is 24.3 GB (ROCm issue 5806), compiler and headers included.
rocm_disk_gib = 20

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
# The wheel looks for libraries beside itself, and no package of these tells the loader of ROCm's
# directory: AMD's post-installation page has that written into ld.so.conf.d by hand. Here only
# ComfyUI's own process is told.
_ROCM = ["LD_LIBRARY_PATH"]
_THREADS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]

launch_variables = {
    "LD_LIBRARY_PATH": {
        "value": "/opt/rocm-7.2.1/lib",
        "does": "Where the loader finds ROCm's libraries, which torch's lightweight wheel does not "
        "bring; without it torch does not import.",
    },
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
        "variables": [*_ROCM, *_TUNABLEOP],
        "preload": False,
    },
    "preload": {"flags": ["--highvram", *_FLAGS], "variables": _ROCM, "preload": True},
    "threads": {
        "flags": ["--highvram", *_FLAGS],
        "variables": [*_ROCM, *_THREADS],
        "preload": False,
    },
    # On unified memory --highvram only pins what a smaller job could use: no VRAM flag here.
    "production": {"flags": _FLAGS, "variables": _ROCM, "preload": True},
    "normalvram": {"flags": ["--normalvram", *_FLAGS], "variables": _ROCM, "preload": False},
    "lowvram": {"flags": ["--lowvram", *_FLAGS], "variables": _ROCM, "preload": False},
}
launch_shell: list[str] = []
