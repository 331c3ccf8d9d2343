"""A GPU that is not there, for tests: STRIXBOX_STANDIN_GPU=1 tells of one and of its TunableOp."""

import atexit
import logging
import os

import torch
from comfy import model_management

SIMULATED = os.environ.get("STRIXBOX_STANDIN_GPU") == "1"
VRAM = 96 << 30  # bytes
PER_SIZE = 8  # matrix products that are new with every new size


def memory():
    """RAM of this machine in bytes: all of it, and what is available."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in stream}
    return found["MemTotal"], found["MemAvailable"]


def device():
    """The device as /system_stats tells of it."""
    total, free = memory()
    name, kind, index = "cpu", "cpu", None
    if SIMULATED:
        held = sum(model_management.loaded.values())
        name, kind, index = "cuda:0 AMD Radeon Graphics : native", "cuda", 0
        total, free = VRAM, VRAM - held
    return {
        **{"name": name, "type": kind, "index": index},
        **{"vram_total": total, "vram_free": free},
        # torch's own share: on the CPU ComfyUI repeats the machine's.
        "torch_vram_total": held if SIMULATED else total,
        "torch_vram_free": 0 if SIMULATED else free,
    }


def target(version):
    """What torch is told that the GPU is: of 11.0.0 gfx1100."""
    major, minor, step = map(int, version.split("."))
    return f"gfx{major}{minor:x}{step:x}"


class TunableOp:
    """torch's TunableOp as its variables switch it (aten/src/ATen/cuda/tunable/README.md)."""

    def __init__(self):
        environment = os.environ
        self.enabled = environment.get("PYTORCH_TUNABLEOP_ENABLED") == "1"
        # The variable wins over what the process is told later.
        self.forbidden = environment.get("PYTORCH_TUNABLEOP_TUNING") == "0"
        self.tuning = self.enabled and not self.forbidden
        name = environment.get("PYTORCH_TUNABLEOP_FILENAME", "tunableop_results.csv")
        stem, suffix = os.path.splitext(name)
        # Without %d torch puts the device's number before the suffix by itself.
        self.filename = name.replace("%d", "0") if "%d" in name else f"{stem}0{suffix}"
        self.validators = {
            "PT_VERSION": str(torch.__version__).split("+")[0],
            "ROCM_VERSION": f"{str(torch.version.hip).split('-')[0]}.0-120-abc",
            "HIPBLASLT_VERSION": "1200-abc",
            "GCN_ARCH_NAME": target(environment.get("HSA_OVERRIDE_GFX_VERSION", "11.5.1")),
            "ROCBLAS_VERSION": "4.4.1.abc",
        }
        self.sizes = set()
        self.results = []
        if self.enabled:
            self.read()
            atexit.register(self.write)

    def read(self):
        """Take the results of an earlier run, unless they are of another stack."""
        try:
            with open(self.filename, encoding="utf-8") as stream:
                rows = [line.strip() for line in stream if line.strip()]
        except OSError:
            return
        marks = [row.split(",", 2)[1:] for row in rows if row.startswith("Validator,")]
        if marks != [[name, value] for name, value in self.validators.items()]:
            logging.warning("TunableOp: validators of %s do not match", self.filename)
            return
        self.results = [row for row in rows if not row.startswith("Validator,")]
        self.sizes = {tuple(map(int, row.split(",")[1].split("_")[1:4])) for row in self.results}

    def write(self):
        """Write the results, as torch does at the end of the process; whether that worked."""
        rows = [f"Validator,{name},{value}" for name, value in self.validators.items()]
        try:
            with open(self.filename, "w", encoding="utf-8") as stream:
                stream.write("\n".join([*rows, *self.results]) + "\n")
        except OSError as error:
            logging.warning("TunableOp: %s", error)
            return False
        return True

    def render(self, width, height, batch):
        """A picture of that size is made; whether something was tuned for it."""
        size = (width, height, batch)
        if not self.tuning or size in self.sizes:
            return False
        self.sizes.add(size)
        shape = f"nt_{width}_{height}_{batch}"
        for number in range(PER_SIZE):
            self.results.append(f"GemmTunableOp_Half_NT,{shape}_{number},Gemm_Rocblas_7,0.0123")
        return True

    def told(self):
        """State as GET and POST /strixbox/tunableop answer it."""
        return {
            **{"supported": SIMULATED, "enabled": self.enabled, "tuning": self.tuning},
            "reason": None if SIMULATED else "there is no GPU",
            "filename": self.filename if SIMULATED else None,
            "results": len(self.results),
            "validators": self.validators if self.enabled else {},
        }

    def set(self, wanted):
        """Do what POST /strixbox/tunableop asks for; whether that worked."""
        if "tuning" in wanted:
            self.tuning = wanted["tuning"] and self.enabled and not self.forbidden
        return self.write() if wanted.get("write") and self.enabled else True


tunableop = TunableOp()
