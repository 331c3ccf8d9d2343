"""Test boxes: containers on this machine, and stand-ins for the network beyond it.

``python -m tests.lab up`` writes ``.lab/lab.json``; without it there is no lab and nothing to set.
"""

from strixbox import lab as _lab

_data = _lab.load()

if _data is not None:
    rocm_repository = f"{_data.amd}/rocm/apt/6.4.2"
    rocm_key_url = f"{_data.amd}/rocm/rocm.gpg.key"
    rocm_key_fingerprint = _data.rocm_key_fingerprint
    rocm_disk_gib = 1

    python_version = _data.python
    python_index_url = _data.index_url
    python_wheels = _data.wheels("6.4.2")
    python_requirements = "lab-standin"

    comfyui_url = _data.comfyui_url
    comfyui_commit = _data.comfyui_commit
    comfyui_nodes = _data.nodes()
    # The boxes' network ends at this machine, so the page can be opened from here.
    comfyui_access = "open"
    comfyui_start_timeout = 60
    comfyui_release_disk_gib = 1

    tmpfs_size_gib = 1
    models_manifest = _data.models()

    box_ram_gib = _data.ram_gib
    box_distribution = _data.distribution
    # A lab box differs from a real one in what a container cannot have. The checks stay as they
    # are; these findings are accepted, with the reason, and shown in every report.
    box_accept = _lab.ACCEPTED
