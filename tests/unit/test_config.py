"""Settings: what is refused, in which words, and what the stacks say."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from strixbox.config import Config, ConfigError, settings
from tests.unit.conftest import GROUPS

Data = dict[str, Any]
Change = Callable[[Data], object]


def put(key: str, value: object) -> Change:
    """Set one setting."""
    return lambda data: data.update({key: value})


def inner(key: str, *path: str | int, value: object) -> Change:
    """Set a value inside of a setting."""

    def change(data: Data) -> None:
        place = data[key]
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return change


def drop(key: str) -> Change:
    """Leave a setting out."""
    return lambda data: data.pop(key)


def flags(*words: str) -> Change:
    """Give the production profile other flags."""
    return inner("launch_profiles", "production", "flags", value=list(words))


MODEL = {"name": "a.safetensors", "folder": "loras", "tier": "active"}
# What somebody may write, and what the one sentence has to name.
MALFORMED: dict[str, tuple[Change, str]] = {
    "unknown setting": (put("comfyui_prot", 1), "did you mean comfyui_port?"),
    "unknown section": (put("webui_port", 1), "webui_port: there is no such setting"),
    "setting left out": (drop("comfyui_port"), "comfyui_port: it is required"),
    "port as text": (put("comfyui_port", "8188"), "comfyui_port: '8188' is not valid; write it as"),
    "port below 1024": (put("comfyui_port", 80), "comfyui_port: 80"),
    "port above 65535": (put("comfyui_port", 70000), "comfyui_port: 70000"),
    "port as true": (put("comfyui_port", True), "comfyui_port"),
    "short commit": (put("comfyui_commit", "6372219"), "40 characters of 0-9 a-f"),
    "branch for a commit": (put("comfyui_commit", "master"), "comfyui_commit: 'master'"),
    "upper-case commit": (put("comfyui_commit", "A" * 40), "comfyui_commit"),
    "git over ssh": (put("comfyui_url", "git@github.com:x/y"), "starts with http"),
    "password in a URL": (put("comfyui_url", "https://me:pw@h/x"), "passwords out of URLs"),
    "file URL": (put("python_index_url", "file:///wheels"), "python_index_url"),
    "access lan": (put("comfyui_access", "lan"), "comfyui_access: 'lan'"),
    "unknown profile": (put("comfyui_profile", "fast"), "'fast' is not a launch profile"),
    "unknown preview": (put("comfyui_preview", "best"), "comfyui_preview"),
    "relative directory": (put("comfyui_base_directory", "ComfyUI"), "write an absolute path"),
    "tilde": (put("comfyui_base_directory", "~/ComfyUI"), "write an absolute path"),
    "dots in a path": (put("comfyui_base_directory", "/home/../x"), "without '..'"),
    "trailing slash": (put("tmpfs_path", "/tmp/cache/"), "trailing slash"),
    "root directory": (put("comfyui_base_directory", "/"), "not /"),
    "newline in a path": (put("tmpfs_path", "/tmp/a\nb"), "tmpfs_path"),
    "quote in a path": (put("tmpfs_path", '/tmp/a"b'), "without quotes or backslashes"),
    "user's files in a release": (
        put("comfyui_base_directory", "/opt/strixbox/x"),
        "inside /opt/strixbox",
    ),
    "RAM disk over /etc": (put("tmpfs_path", "/etc"), "inside /etc"),
    "RAM disk over /tmp": (put("tmpfs_path", "/tmp"), "shared with others"),
    "RAM disk over apt's state": (put("tmpfs_path", "/var/lib"), "holds /"),
    "RAM disk over the logs": (put("tmpfs_path", "/var/log"), "holds /var/log"),
    "user's files over the toolkit's": (put("comfyui_base_directory", "/var/lib"), "holds /"),
    "RAM disk over the models": (
        put("tmpfs_path", "/home/anna/ComfyUI/models"),
        "gone after a reboot",
    ),
    "RAM disk over home": (put("tmpfs_path", "/home/anna"), "gone after a reboot"),
    "archive in the active tier": (
        put("models_archive", "/home/anna/ComfyUI/models/old"),
        "must not hold each other",
    ),
    "archive over all": (put("models_archive", "/home/anna"), "must not hold each other"),
    "RAM disk too large": (put("tmpfs_size_gib", 80), "more than half of box_ram_gib 128"),
    "RAM disk of nothing": (put("tmpfs_size_gib", 0), "tmpfs_size_gib: 0"),
    "RAM disk in a fraction": (put("tmpfs_size_gib", 1.5), "tmpfs_size_gib: 1.5"),
    "fingerprint with blanks": (
        put("rocm_key_fingerprint", "CA8B B472"),
        "40 characters of 0-9 A-F",
    ),
    "another release's repository": (
        put("rocm_repository", "https://repo.radeon.com/rocm/apt/6.4.1"),
        "not the repository of rocm_version 6.4.2",
    ),
    "ROCm of another release than torch's": (
        lambda data: data.update(
            rocm_version="6.4.1", rocm_repository="https://repo.radeon.com/rocm/apt/6.4.1"
        ),
        "is built for ROCm 6.4.2, and rocm_version is 6.4.1",
    ),
    "lightweight wheel without ROCm": (
        lambda data: data.update(GROUPS["rocm_7_2"] | {"rocm_version": None}),
        "set rocm_version to 7.2.1",
    ),
    "package pattern of two lines": (put("rocm_pinned", ["a\nPin: x"]), "rocm_pinned[0]"),
    "no packages": (put("rocm_packages", []), "rocm_packages is empty"),
    "package as a shell word": (put("rocm_packages", ["a; reboot"]), "rocm_packages[0]"),
    "one package as text": (put("rocm_packages", "rocm-libs"), "rocm_packages"),
    "no torch": (put("python_wheels", []), "python_wheels has no torch"),
    "torch twice": (
        lambda data: data["python_wheels"].append(data["python_wheels"][0]),
        "names torch twice",
    ),
    "short sha256": (inner("python_wheels", 0, "sha256", value="abc"), "64 characters"),
    "wheel's URL of another version": (
        inner("python_wheels", 0, "version", value="2.7.0+rocm6.4.2"),
        "names another file",
    ),
    "wheels of another Python": (put("python_version", "3.11"), "not built for Python 3.11"),
    "wheels of another ROCm": (put("python_hip", "7.2"), "not built for ROCm 7.2"),
    "CUDA torch": (
        inner(
            "python_wheels",
            0,
            value={
                "project": "torch",
                "version": "2.6.0",
                "url": "https://h/torch-2.6.0-cp312-cp312-linux_x86_64.whl",
                "sha256": None,
            },
        ),
        "not built for ROCm 6.4",
    ),
    "numpy 2": (put("python_numpy", "2.2.0"), "has numpy 1.26.4"),
    "lock that is not there": (put("python_requirements", "mine"), "take one of comfyui-0.3.64"),
    "uv without hash": (put("python_uv_sha256", None), "python_uv_sha256"),
    "two VRAM flags": (flags("--highvram", "--lowvram"), "exclude each other"),
    "two attentions": (
        flags("--use-split-cross-attention", "--use-pytorch-cross-attention"),
        "exclude each other",
    ),
    "two caches, one with a value": (flags("--cache-lru=10", "--cache-none"), "exclude each other"),
    "two types of the model": (flags("--fp16-unet", "--bf16-unet"), "exclude each other"),
    "two types of text encoders": (
        flags("--fp16-text-enc", "--fp8_e5m2-text-enc"),
        "exclude each other",
    ),
    "beginning of another setting's flag": (flags("--list", "::"), "is set by comfyui_access"),
    "flag of the proof": (flags("--quick-test-for-ci"), "is set by the proof"),
    "flag of another setting": (flags("--port", "1"), "is set by comfyui_port"),
    "listen by flag": (flags("--listen=0.0.0.0"), "is set by comfyui_access"),
    "flag with a quote": (flags("--a'b"), "holds a character that no flag needs"),
    "profile with an unknown variable": (
        inner("launch_profiles", "lowvram", "variables", value=["HSA_ENABLE"]),
        "names the variable HSA_ENABLE",
    ),
    "shell with an unknown variable": (put("launch_shell", ["NOPE"]), "launch_shell names"),
    "variable with a newline": (
        inner("launch_variables", "AMD_DIRECT_DISPATCH", "value", value="1\nX=2"),
        "launch_variables[AMD_DIRECT_DISPATCH][value]",
    ),
    "variable as a number": (
        inner("launch_variables", "AMD_DIRECT_DISPATCH", "value", value=1),
        "write it as text, in quotes",
    ),
    "variable without a meaning": (
        inner("launch_variables", "AMD_DIRECT_DISPATCH", "does", value=""),
        "launch_variables[AMD_DIRECT_DISPATCH][does]",
    ),
    "variable with a meaning of two lines": (
        inner("launch_variables", "AMD_DIRECT_DISPATCH", "does", value="A comment\nPATH=/tmp"),
        "in one line",
    ),
    "model twice": (put("models_manifest", [MODEL, MODEL]), "names loras/a.safetensors twice"),
    "model in an unknown folder": (
        put("models_manifest", [MODEL | {"folder": "lora"}]),
        "models_manifest[0][folder]",
    ),
    "model outside its folder": (
        put("models_manifest", [MODEL | {"name": "../a"}]),
        "models_manifest[0][name]",
    ),
    "archive tier without archive": (
        put("models_manifest", [MODEL | {"tier": "archive"}]),
        "models_archive is None",
    ),
    "model with an unknown key": (
        put("models_manifest", [MODEL | {"sha": "0"}]),
        "models_manifest[0][sha]: there is no such setting",
    ),
    "node twice": (
        lambda data: data["comfyui_nodes"].append(data["comfyui_nodes"][0]),
        "names ComfyUI-TiledDiffusion twice",
    ),
    "node with a path for a name": (
        inner("comfyui_nodes", 0, "name", value="../x"),
        "comfyui_nodes[0][name]",
    ),
    "one release kept": (put("comfyui_keep_releases", 1), "comfyui_keep_releases: 1"),
    "accepted without a reason": (put("box_accept", {"CPU.MODEL": " "}), "needs a reason"),
    "accepted by a code that is none": (put("box_accept", {"CPU.NONE": "x"}), "which no check has"),
    "user as a number": (put("box_user", 7), "box_user: 7"),
    "user with a blank": (put("box_user", "anna b"), "box_user: 'anna b'"),
    "user that is an option": (put("box_user", "-anna"), "box_user: '-anna'"),
    "user that builds": (put("box_user", "strixbox"), "is not a person's account"),
    "root": (put("box_user", "root"), "is not a person's account"),
    "models where uninstall clears": (
        put("models_archive", "/var/cache/strixbox/models"),
        "inside /var/cache/strixbox",
    ),
    "RAM disk over the backups": (put("tmpfs_path", "/var/backups"), "inside /var/backups"),
    "variable of the toolkit": (
        inner("launch_variables", "PIP_CONSTRAINT", value={"value": "/x", "does": "A constraint."}),
        "PIP_CONSTRAINT is set by the toolkit",
    ),
    "memory of a phone": (put("box_ram_gib", 4), "box_ram_gib: 4"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_setting_is_refused_in_one_sentence(data: Data, case: str) -> None:
    change, words = MALFORMED[case]
    change(data)
    with pytest.raises(ConfigError) as caught:
        Config.load(data)
    assert len(caught.value.mistakes) == 1, caught.value.mistakes
    (sentence,) = caught.value.mistakes
    assert words in sentence
    assert "\n" not in sentence


def test_all_mistakes_are_told_at_once(data: Data) -> None:
    data |= {"comfyui_port": "x", "tmpfs_path": "cache", "webui_x": 1, "box_ram_gib": 1}
    with pytest.raises(ConfigError) as caught:
        Config.load(data)
    told = "\n".join(caught.value.mistakes)
    for setting in ("comfyui_port", "tmpfs_path", "webui_x", "box_ram_gib"):
        assert setting in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # Two of one section.
        (
            [put("python_numpy", "2.2.0"), put("python_hip", "7.2"), put("python_version", "3.11")],
            ["has numpy 1.26.4", "not built for ROCm 7.2", "not built for Python 3.11"],
        ),
        ([put("box_accept", {"A.B": "x", "C.D": "x"})], ["names A.B", "names C.D"]),
        ([flags("--port", "1", "--highvram", "--lowvram")], ["by comfyui_port", "exclude"]),
        # Two sections with each other.
        (
            [put("comfyui_profile", "fast"), put("tmpfs_size_gib", 80)],
            ["'fast' is not a launch profile", "more than half"],
        ),
        (
            [put("tmpfs_path", "/etc"), put("comfyui_base_directory", "/opt/strixbox/x")],
            ["tmpfs_path /etc is inside", "comfyui_base_directory /opt/strixbox/x is inside"],
        ),
        # One wrong by itself, others with each other, in its section and in others.
        (
            [
                *(put("tmpfs_size_gib", 0), put("tmpfs_path", "/etc")),
                *(put("rocm_suite", "a b"), put("rocm_packages", [])),
                *(put("comfyui_port", 1), put("comfyui_profile", "fast"), put("webui", 1)),
            ],
            [
                *("tmpfs_size_gib: 0", "tmpfs_path /etc is inside"),
                *("rocm_suite", "rocm_packages is empty"),
                *("comfyui_port: 1", "'fast' is not", "webui: there is no such setting"),
            ],
        ),
    ],
)
def test_mistakes_of_every_kind_are_told_at_once(
    data: Data, changes: list[Change], words: list[str]
) -> None:
    for change in changes:
        change(data)
    with pytest.raises(ConfigError) as caught:
        Config.load(data)
    told = caught.value.mistakes
    assert len(told) == len(words), told
    for part in words:
        assert [line for line in told if part in line], (part, told)


def test_both_stacks_are_sound_and_differ_where_they_should(data: Data) -> None:
    old = Config.load(data)
    new = Config.load(data | deepcopy(GROUPS["rocm_7_2"]))
    assert old.rocm.version == "6.4.2"
    assert new.rocm.version == "7.2.1"
    assert old.launch.variables["HSA_OVERRIDE_GFX_VERSION"].value == "11.0.0"
    assert "HSA_OVERRIDE_GFX_VERSION" not in new.launch.variables
    assert set(old.launch.profiles) == set(new.launch.profiles)
    assert old.digest() != new.digest()


@pytest.mark.parametrize("group", ["all", "rocm_7_2"])
def test_a_lightweight_wheel_finds_its_rocm(data: Data, group: str) -> None:
    # AMD's ".lw." wheels bring none of ROCm's libraries: apt does, and the loader must find them.
    cfg = Config.load(data | deepcopy(GROUPS[group]))
    torch = next(wheel for wheel in cfg.python.wheels if wheel.project == "torch")
    if ".lw." not in torch.version:
        return
    assert f"+rocm{cfg.rocm.version}.lw." in torch.version
    path = cfg.launch.variables["LD_LIBRARY_PATH"].value
    assert path == f"/opt/rocm-{cfg.rocm.version}/lib"
    assert all("LD_LIBRARY_PATH" in one.variables for one in cfg.launch.profiles.values())
    patterns = cfg.rocm.pinned
    assert all(any(fnmatchcase(p, pattern) for pattern in patterns) for p in cfg.rocm.packages)


# The tuning chapter's 7.1.1, 7.7.1 and 7.12, as it has them.
CHAPTER = {
    "HSA_OVERRIDE_GFX_VERSION": "11.0.0",
    "PYTORCH_ROCM_ARCH": "gfx1100",
    "PYTORCH_TUNABLEOP_ENABLED": "1",
    "MIGRAPHX_MLIR_USE_SPECIFIC_OPS": "attention",
    "GPU_MAX_ALLOC_PERCENT": "95",
    "GPU_MAX_HEAP_SIZE": "99",
    "RADV_PERFTEST": "gpl,nggc",
    "AMD_DIRECT_DISPATCH": "1",
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "1",
    "OMP_NUM_THREADS": "16",
    "MKL_NUM_THREADS": "16",
    "OPENBLAS_NUM_THREADS": "16",
    "ROCM_VISIBLE_DEVICES": "0",
    "HIP_VISIBLE_DEVICES": "0",
}
_OVERRIDE = {"HSA_OVERRIDE_GFX_VERSION", "PYTORCH_ROCM_ARCH"}
_PERCENT = _OVERRIDE | {"GPU_MAX_ALLOC_PERCENT"}
_THREADS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
_DEVICES = {"ROCM_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
# Its launch scripts, and the section that each is in.
SCRIPTS = {
    "optimized": _PERCENT  # 7.2.1
    | {
        *("PYTORCH_TUNABLEOP_ENABLED", "MIGRAPHX_MLIR_USE_SPECIFIC_OPS"),
        "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
    },
    "preload": _PERCENT,  # 7.4.2
    "threads": _PERCENT | _THREADS | _DEVICES,  # 7.7.1
    "production": CHAPTER.keys() - _DEVICES,  # 7.12
    "normalvram": _PERCENT,  # 7.2.2
    "lowvram": _PERCENT,
}
# TunableOp's results would lie in the current directory without it (reference of TunableOp).
OURS = {"PYTORCH_TUNABLEOP_FILENAME"}


def test_the_chapters_variables_and_scripts_are_all_there(cfg: Config) -> None:
    variables = {name: one.value for name, one in cfg.launch.variables.items()}
    assert {name: v for name, v in variables.items() if name not in OURS} == CHAPTER
    profiles = cfg.launch.profiles
    assert {name: {*one.variables} - OURS for name, one in profiles.items()} == SCRIPTS
    shell = CHAPTER.keys() - _THREADS - _DEVICES  # 7.1.1
    assert {*cfg.launch.shell} - OURS == shell
    for name, profile in profiles.items():
        vram = name if name in ("normalvram", "lowvram") else "highvram"
        flags = {f"--{vram}", "--use-pytorch-cross-attention", "--disable-xformers"}
        assert {*profile.flags} == flags
    assert {name for name, one in profiles.items() if one.preload} == {"preload", "production"}


@pytest.mark.parametrize("name", ["anna.maier", "AnnaMaier", "_svc-1"])
def test_names_of_directory_accounts_are_taken(data: Data, name: str) -> None:
    assert Config.load(data | {"box_user": name}).box.user == name


def test_no_ram_disk_over_a_home_whose_models_are_elsewhere(data: Data) -> None:
    data |= {"comfyui_base_directory": "/srv/comfy", "tmpfs_path": "/home/anna"}
    with pytest.raises(ConfigError, match="holds /home/anna"):
        Config.load(data)


def test_a_config_cannot_be_changed(cfg: Config) -> None:
    with pytest.raises(ValidationError):
        cfg.comfyui.port = 1  # type: ignore[misc]


def test_pyinfras_own_keys_are_left_alone(data: Data) -> None:
    assert Config.load(data | {"ssh_user": "x", "_sudo": True}) == Config.load(data)


def test_every_setting_is_described() -> None:
    rows = settings()
    assert {key for key, _, _ in rows} >= set(GROUPS["all"])
    for key, kind, meaning in rows:
        assert re.fullmatch(r"[a-z_0-9]+", key)
        assert kind
        assert meaning, key


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(GROUPS["all"])), value=JUNK)
def test_no_value_of_any_setting_is_a_traceback(key: str, value: object) -> None:
    own = {"box_user": "anna", "box_home": "/home/anna", "comfyui_base_directory": "/srv/comfy"}
    try:
        Config.load(GROUPS["all"] | own | {key: value})
    except ConfigError as error:
        assert all(isinstance(mistake, str) for mistake in error.mistakes)
