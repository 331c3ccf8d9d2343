"""A test box on the rocm_7_2 stack: the lab's wheels in place of AMD's. Goes after both groups."""

from strixbox import lab as _lab

_data = _lab.load()

if _data is not None:
    python_wheels = _data.wheels("7.2.1")
    python_requirements = "lab-standin"
