"""A test box that runs the real ComfyUI on the CPU: STRIXBOX_COMFYUI_SRC named a checkout of it."""

from strixbox import lab as _lab

_data = _lab.load()

if _data is not None and _data.real_comfyui is not None:
    comfyui_url = _data.real_comfyui["url"]
    comfyui_commit = _data.real_comfyui["commit"]
    comfyui_nodes = _data.nodes(real=True)
    python_wheels = _data.wheels("cpu")
    python_hip = None
    python_requirements = "comfyui-0.3.64-torch-2.9"
    comfyui_release_disk_gib = 4
    # It loads hundreds of modules, on two cores and a cold disk.
    comfyui_start_timeout = 300

    launch_variables: dict[str, dict[str, str]] = {}
    launch_profiles = {
        name: {"flags": ["--cpu"], "variables": [], "preload": name == "preload"}
        for name in ("optimized", "preload", "threads", "production", "normalvram", "lowvram")
    }
    launch_shell: list[str] = []
