"""What starts ComfyUI: the data of a profile, the program that reads it, the unit, the shell."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from strixbox import launch
from strixbox.config import MODEL_FOLDERS, Config
from strixbox.generation import Generation
from strixbox.layout import ETC
from strixbox.release import Release
from strixbox.tree import ROOT, render, rendered
from tests.unit.conftest import GROUPS


def program(name: str) -> ModuleType:
    """A program of files/opt/strixbox/lib as a module."""
    path = str(ROOT / "files/opt/strixbox/lib" / name)
    loader = importlib.machinery.SourceFileLoader(f"box_{name}", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def box(tmp_path: Path, cfg: Config) -> ModuleType:
    """The launch program over a release whose Python tells what it was started with."""
    release = tmp_path / "releases" / "one"
    (release / "ComfyUI").mkdir(parents=True)
    python = release / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]))\n"
    )
    python.chmod(0o755)
    (tmp_path / "current").symlink_to(release)
    profiles = tmp_path / "launch"
    profiles.mkdir()
    for name in cfg.launch.profiles:
        (profiles / f"{name}.json").write_bytes(launch.profile_file(cfg, name).content)
    module = program("launch")
    module.CURRENT = str(tmp_path / "current")  # type: ignore[attr-defined]
    module.PROFILES = str(profiles)  # type: ignore[attr-defined]
    module.PRELOAD = ("/bin/true",)  # type: ignore[attr-defined]
    return module


STARTER = """
import runpy, sys
launch, sys.argv = sys.argv[1], sys.argv[1:]
module = runpy.run_path(launch)
main = module["main"]
main.__globals__.update(eval(sys.argv.pop()))
main(sys.argv[1:])
"""


def started(module: ModuleType, *words: str) -> tuple[list[str], str, dict[str, str]]:
    """Command line, directory and environment of what a profile starts."""
    places = {name: getattr(module, name) for name in ("CURRENT", "PROFILES", "PRELOAD")}
    answer = subprocess.run(
        [sys.executable, "-c", STARTER, str(module.__file__), *words, repr(places)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    argv, directory, environment = json.loads(answer.stdout)
    return argv, directory, environment


@pytest.mark.parametrize("profile", ["optimized", "production", "lowvram"])
def test_a_profile_starts_what_verify_expects(
    box: ModuleType, cfg: Config, tmp_path: Path, profile: str
) -> None:
    argv, directory, environment = started(box, profile, "--verbose")
    release = tmp_path / "releases" / "one"
    nodes = ["--extra-model-paths-config", f"{release}/extra_model_paths.yaml"]
    flags = launch.argv(cfg, profile)
    assert argv[1:] == [f"{release}/ComfyUI/main.py", *nodes, *flags, "--verbose"]
    assert directory == f"{release}/ComfyUI"
    wanted = launch.variables(cfg, cfg.launch.profiles[profile].variables)
    assert wanted.items() <= environment.items()
    assert "PIP_CONSTRAINT" in environment


@pytest.mark.parametrize("words", [[], ["fast"], ["../../etc/passwd"]])
def test_an_unknown_profile_is_told_the_known_ones(
    box: ModuleType, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        box.main(words)
    assert ended.value.code == 2
    assert re.search(r"usage: launch PROFILE.*lowvram.*production", capsys.readouterr().err)


def test_words_set_variables_and_take_them_away(
    box: ModuleType, cfg: Config, tmp_path: Path
) -> None:
    argv, _, environment = started(box, "threads", "MINE=a=b", "OMP_NUM_THREADS=", "--cpu")
    assert argv[-1] == "--cpu"
    assert environment["MINE"] == "a=b"
    assert "OMP_NUM_THREADS" not in environment


def test_an_override_of_the_shell_does_not_reach_a_profile_without_it(
    box: ModuleType, cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    assert started(box, "production")[2]["HSA_OVERRIDE_GFX_VERSION"] == "11.0.0"
    path = tmp_path / "launch" / "production.json"
    profile = json.loads(path.read_text())
    del profile["variables"]["HSA_OVERRIDE_GFX_VERSION"]
    path.write_text(json.dumps(profile))
    assert "HSA_OVERRIDE_GFX_VERSION" not in started(box, "production")[2]
    # Asked for by name it is the user's will.
    wanted = started(box, "production", "HSA_OVERRIDE_GFX_VERSION=11.5.1")[2]
    assert wanted["HSA_OVERRIDE_GFX_VERSION"] == "11.5.1"


def test_a_release_on_a_larger_disk_is_run_by_the_path_that_the_deploy_knows(
    box: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "releases").rename(tmp_path / "large")
    (tmp_path / "releases").symlink_to("large")
    argv, _, _ = started(box, "production")
    assert argv[0].startswith(f"{tmp_path}/releases/one/")


def test_a_box_without_profiles_is_told(box: ModuleType, tmp_path: Path) -> None:
    box.PROFILES = str(tmp_path / "none")  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match=r"none: No such file or directory; run the deploy again"):
        box.main(["production"])


def test_what_harms_a_profile_is_the_same_for_the_unit_and_for_a_shell(box: ModuleType) -> None:
    assert set(launch.HARMFUL) == box.HARMFUL


def test_a_box_without_a_release_is_told(box: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "current").unlink()
    with pytest.raises(SystemExit, match="run the deploy again"):
        box.main(["production"])


def test_the_unit_names_user_mounts_and_its_own_digest(cfg: Config) -> None:
    unit = launch.service_unit(cfg)
    text = unit.content.decode()
    assert f"User={cfg.box.user}" in text
    assert "KillSignal=SIGINT" in text
    assert f'RequiresMountsFor="{cfg.comfyui.base_directory}" "{cfg.tmpfs.path}"' in text
    assert launch.unit_digest(cfg) in text


def test_models_are_preloaded_once_their_disk_is_mounted_and_without_the_archives(
    data: dict[str, Any],
) -> None:
    model = {"name": "a.safetensors", "folder": "vae", "url": "https://h/a"}
    manifest = [model | {"tier": "active"}, model | {"name": "b.safetensors", "tier": "archive"}]
    archive = {"models_archive": "/mnt/sata/models", "models_manifest": manifest}
    cfg = Config.load(data | archive)
    lines = launch.preload_unit(cfg).content.decode().splitlines()
    assert 'RequiresMountsFor=/opt/strixbox "/home/anna/ComfyUI/models"' in lines
    assert not any("/mnt/sata" in line for line in lines)
    assert launch.preloaded(cfg) == ["/home/anna/ComfyUI/models/vae/a.safetensors"]


def test_a_percent_sign_in_a_path_is_no_specifier(data: dict[str, Any]) -> None:
    cfg = Config.load(data | {"comfyui_base_directory": "/srv/100% comfy"})
    assert '"/srv/100%% comfy"' in launch.service_unit(cfg).content.decode()
    assert '"/srv/100%% comfy/models"' in launch.preload_unit(cfg).content.decode()


def test_the_unit_takes_away_the_override_where_the_profile_has_none(
    cfg: Config, data: dict[str, Any]
) -> None:
    line = "UnsetEnvironment=HSA_OVERRIDE_GFX_VERSION\n"
    assert line not in launch.service_unit(cfg).content.decode()
    new = Config.load(data | deepcopy(GROUPS["rocm_7_2"]))
    assert line in launch.service_unit(new).content.decode()


def test_the_unit_is_allowed_the_gpu_by_group_and_by_path(cfg: Config) -> None:
    allowed = re.findall(r"^DeviceAllow=(.*)$", launch.service_unit(cfg).content.decode(), re.M)
    assert allowed == ["char-kfd rw", "/dev/kfd rw", "char-drm rw"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/tmp/comfyui_cache", 'x "/tmp/comfyui_cache"'),
        ("/mnt/a b/100%", 'x "/mnt/a b/100%%"'),
        ("/mnt/a[1]*?", 'x "/mnt/a[[]1][*][?]"'),
    ],
)
def test_tmpfiles_reads_the_path_as_it_stands(path: str, line: str) -> None:
    assert render("/etc/tmpfiles.d/strixbox.conf", path=path).splitlines()[-1] == line


def test_a_variable_that_leaves_a_profile_changes_the_digest(
    cfg: Config, data: dict[str, Any]
) -> None:
    # A process that still has it would differ in nothing else: only wanted variables are compared.
    data["launch_profiles"] = deepcopy(data["launch_profiles"])
    data["launch_profiles"]["production"]["variables"].remove("OMP_NUM_THREADS")
    assert launch.unit_digest(Config.load(data)) != launch.unit_digest(cfg)


def test_a_change_of_the_unit_changes_its_digest(cfg: Config) -> None:
    other = cfg.model_copy(update={"box": cfg.box.model_copy(update={"user": "berta"})})
    assert launch.unit_digest(cfg) != launch.unit_digest(other)


def sourced(text: str, *variables: str) -> list[str]:
    """Values of variables after a shell has read the text."""
    script = text + "".join(f'\nprintf "%s\\n" "${name}"' for name in variables)
    answer = subprocess.run(
        ["sh", "-eu", "-c", script], capture_output=True, text=True, check=True, env={}
    )
    return answer.stdout.splitlines()


def test_the_shell_reads_every_value_as_it_stands(cfg: Config) -> None:
    values = {"A": "plain", "B": "two words", "C": '$HOME `id` "q" #x;&', "D": ""}
    meanings = dict.fromkeys(values, "A variable of this test.")
    text = render(f"{ETC}/shell.sh", values=values, meanings=meanings)
    assert sourced(text, *values) == list(values.values())


def test_systemd_reads_every_value_as_it_stands(cfg: Config) -> None:
    profile = cfg.launch.profiles["production"]
    values = launch.variables(cfg, profile.variables)
    meanings = {name: variable.does for name, variable in cfg.launch.variables.items()}
    text = render(f"{ETC}/comfyui.env", values=values, meanings=meanings)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(values)
    for name, value in values.items():
        assert any(line.startswith(f"{name}=") and value in line for line in lines)


def test_model_paths_are_yaml_with_the_archive_only_where_there_is_one() -> None:
    path = f"{ETC}/extra_model_paths.yaml"
    one = yaml.safe_load(
        render(path, active="/a b/models", archive=None, nodes="/n", folders=MODEL_FOLDERS)
    )
    two = yaml.safe_load(
        render(path, active="/a", archive="/mnt/sata", nodes="/n", folders=MODEL_FOLDERS)
    )
    assert "/mnt/sata" not in str(one)
    assert "/mnt/sata" in str(two)


def test_profiles_differ_as_the_chapter_says(cfg: Config) -> None:
    def told(name: str) -> dict[str, Any]:
        return dict(json.loads(launch.profile_file(cfg, name).content))

    assert "--highvram" in told("production")["argv"]
    assert "--normalvram" in told("normalvram")["argv"]
    assert "--lowvram" in told("lowvram")["argv"]
    assert told("preload")["preload"] is True
    assert told("threads")["variables"]["OMP_NUM_THREADS"] == "16"
    assert "OMP_NUM_THREADS" not in told("optimized")["variables"]


def test_listen_follows_access(cfg: Config) -> None:
    words = launch.argv(cfg, "production")
    assert words[words.index("--listen") + 1] == "127.0.0.1"


def test_every_image_of_a_box_file_renders_with_what_its_task_gives(cfg: Config) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    script = rendered(
        launch.script_path("lowvram"),
        image="/opt/strixbox/bin/launch_comfyui.sh",
        profile="lowvram",
    )
    assert script.content.startswith(b"#!/bin/sh\n")
    assert release.path in launch.running_argv(cfg, release)[0]


def test_another_launcher_is_another_generation_and_another_start(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(cfg.python, cfg.comfyui, {})
    before = Generation.of(cfg, release).id, launch.unit_digest(cfg)
    other = replace(launch.launcher(), content=b"#!/usr/bin/python3\n")
    monkeypatch.setattr(launch, "launcher", lambda: other)
    after = Generation.of(cfg, release).id, launch.unit_digest(cfg)
    assert all(one != two for one, two in zip(before, after, strict=True))
