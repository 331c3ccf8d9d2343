"""A test box on the rocm_7_2 stack: the lab's packages in place of AMD's. After both groups."""

from strixbox import lab as _lab

_data = _lab.load()

if _data is not None:
    rocm_repository = f"{_data.amd}/rocm/apt/7.2.1"
    rocm_disk_gib = 1

    python_wheels = _data.wheels("7.2.1")
    python_requirements = "lab-standin"
