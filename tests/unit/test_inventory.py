"""boxes.yaml: what is refused, and whose settings win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from strixbox.groups import read_group_data
from strixbox.inventory import (
    ROOT,
    Boxes,
    InventoryError,
    boxes_file,
    check_settings,
    checked_boxes,
)
from tests.unit.conftest import GROUPS

BOX: dict[str, Any] = {"name": "halo1", "address": "192.0.2.1", "user": "anna"}

MALFORMED: dict[str, tuple[Any, str]] = {
    "no name": ([{"address": "h", "user": "anna"}], "box number 1: name is missing"),
    "no address": ([{"name": "halo1", "user": "anna"}], "box halo1: address is missing"),
    "no user": ([{"name": "halo1", "address": "h"}], "box halo1: user is missing"),
    "unknown key": ([BOX | {"adress": "h"}], "there is no key adress"),
    "setting outside settings": ([BOX | {"comfyui_port": 1}], "go under 'settings'"),
    "port as text": ([BOX | {"port": "22"}], "port: '22' is not valid; write it as a whole"),
    "address with a blank": ([BOX | {"address": "a b"}], "address 'a b' is not valid"),
    "address that is an option": ([BOX | {"address": "-oProxy=x"}], "is not valid"),
    "name with a slash": ([BOX | {"name": "a/b"}], "name 'a/b' is not valid"),
    "group as text": ([BOX | {"groups": "lab"}], "groups: 'lab' is not valid; write it as a list"),
    "unknown group": ([BOX | {"groups": ["rocm_8"]}], "there is no group rocm_8; take one of"),
    "key that is not there": ([BOX | {"key": "/no/key"}], "key /no/key is not there"),
    "password": ([BOX | {"settings": {"ssh_password": "hunter2"}}], "keep passwords out of files"),
    "sudo password": ([BOX | {"settings": {"_sudo_password": "x"}}], "keep passwords out"),
    "unknown ssh setting": ([BOX | {"settings": {"ssh_prot": 22}}], "settings.ssh_prot"),
    "key of nobody": ([BOX | {"key": "~nouser99/id"}], "key ~nouser99/id is not there"),
    "key that is none": ([BOX | {"key": str(ROOT / "README.md")}], "is no private key"),
    "port twice": ([BOX | {"settings": {"ssh_port": 99999}}], "write it as 'port:'"),
    "ssh setting of another type": (
        [BOX | {"settings": {"ssh_allow_agent": "maybe"}}],
        "settings.ssh_allow_agent",
    ),
    "known hosts that are a directory": (
        [BOX | {"settings": {"ssh_known_hosts_file": "/"}}],
        "/ is no file",
    ),
    "same name": ([BOX, BOX | {"address": "192.0.2.2"}], "two boxes are called halo1"),
    "same machine": ([BOX, BOX | {"name": "halo2"}], "halo1 and halo2 are the same machine"),
    "box as text": (["halo1"], "a box is 'name:', 'address:' and 'user:' lines"),
    "no boxes": ([], "must be a list with at least one box"),
    "boxes as a table": ({"halo1": {}}, "must be a list with at least one box"),
}


def written(folder: Path, boxes: Any) -> Path:
    """boxes.yaml of a test."""
    path = folder / "boxes.yaml"
    path.write_text(yaml.safe_dump({"boxes": boxes}), encoding="utf-8")
    return path


def load_boxes(path: Path) -> Boxes:
    """Boxes of a file, with the data of the groups as it stands."""
    return checked_boxes(path, GROUPS)


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_entry_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    boxes, words = MALFORMED[case]
    with pytest.raises(InventoryError) as caught:
        load_boxes(written(tmp_path, boxes))
    (sentence,) = caught.value.mistakes
    assert words in sentence
    assert "boxes.yaml" in sentence
    assert "hunter2" not in sentence


def test_a_wrong_entry_hides_no_mistake_of_its_settings_and_of_others(tmp_path: Path) -> None:
    boxes = [
        BOX | {"port": "x", "settings": {"comfyui_port": 1, "ssh_prot": 2, "ssh_password": "x"}},
        BOX | {"name": "halo2", "address": "h2", "settings": {"tmpfs_size_gib": 80}},
        {"name": "halo3", "settings": {"tmpfs_size_gib": 80, "webui": 1}},
    ]
    with pytest.raises(InventoryError) as caught:
        load_boxes(written(tmp_path, boxes))
    told = caught.value.mistakes
    words = [
        *("halo1: port", "halo1: settings.ssh_prot", "halo1: settings.ssh_password"),
        *("halo3: address is missing", "halo3: user is missing"),
        *("box halo1: comfyui_port", "boxes halo2, halo3: tmpfs_size_gib", "box halo3: webui"),
    ]
    assert len(told) == len(words), told
    for part in words:
        assert [line for line in told if part in line], part


def test_groups_in_contradictory_orders_are_refused(tmp_path: Path) -> None:
    boxes = [
        BOX | {"groups": ["canary", "rocm_7_2"]},
        BOX | {"name": "halo2", "address": "h2", "groups": ["rocm_7_2", "canary"]},
    ]
    with pytest.raises(InventoryError) as caught:
        load_boxes(written(tmp_path, boxes))
    (told,) = caught.value.mistakes
    assert "in contradictory orders" in told
    assert "canary" in told


def test_the_order_of_a_boxs_groups_holds_whoever_comes_first(tmp_path: Path) -> None:
    boxes = [
        BOX | {"groups": ["rocm_7_2"]},
        BOX | {"name": "halo2", "address": "h2", "groups": ["canary", "rocm_7_2"]},
    ]
    assert list(load_boxes(written(tmp_path, boxes)).groups()) == ["canary", "rocm_7_2"]


def test_a_file_that_is_named_and_not_there_is_no_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIXBOX_BOXES", "/no/boxes.yaml")
    with pytest.raises(InventoryError, match=r"/no/boxes.yaml is not there; see STRIXBOX_BOXES"):
        checked_boxes(boxes_file(), GROUPS)


def test_without_a_file_the_labs_boxes_are_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIXBOX_BOXES", "")
    monkeypatch.setattr("strixbox.inventory.ROOT", tmp_path)
    assert boxes_file() is None
    monkeypatch.setattr("strixbox.lab.load", lambda: None)
    with pytest.raises(InventoryError, match=r"no lab box runs; copy boxes\.example\.yaml"):
        checked_boxes(None, GROUPS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("comfyui_port = PORT", "group_data/mine.py does not run: NameError"),
        ("comfyui_port = ", "group_data/mine.py does not run: SyntaxError"),
        ("_sudo_password = 'x'", "group_data/mine.py: _sudo_password: keep passwords out"),
    ],
)
def test_a_groups_file_that_does_not_run_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InventoryError, match=words):
        read_group_data(tmp_path)


def test_what_a_groups_file_imports_is_no_setting(tmp_path: Path) -> None:
    text = "import os.path\nfrom pathlib import Path as P\n_HOME = P('/x')\nbox_home = str(_HOME)\n"
    (tmp_path / "mine.py").write_text(text)
    assert read_group_data(tmp_path) == {"mine": {"box_home": "/x"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("boxes: [", "is not YAML"),
        ("boxen: []", "must hold one key, 'boxes'"),
        ("", "must hold one key, 'boxes'"),
        ("boxes:\n- name: a\n  name: b\n", "the key 'name' is given twice"),
        ("boxes: [{settings: {comfyui_port: 2024-13-45}}]\n", "is not YAML"),
        ("boxes: [{port: 0b_}]\n", "is not YAML"),
        ("boxes: [{user: !!bool abc}]\n", "is not YAML"),
        ("boxes: &b [*b]\n", "is not YAML"),
        ("boxes: " + "[" * 400, "is not YAML"),
        ("boxes: !!python/object/apply:os.system [true]\n", "is not YAML"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "boxes.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InventoryError, match=words):
        load_boxes(path)


def test_alike_boxes_share_what_a_merge_key_brings(tmp_path: Path) -> None:
    path = tmp_path / "boxes.yaml"
    path.write_text(
        "boxes:\n- &one {name: a, address: '::1', user: anna, settings: }\n"
        "- {<<: *one, name: b, address: 192.0.2.7}\n"
    )
    one, two = load_boxes(path).entries
    assert (one.address, two.address, two.user) == ("::1", "192.0.2.7", "anna")
    assert one.settings == {}


def test_all_mistakes_of_all_boxes_are_told_at_once(tmp_path: Path) -> None:
    boxes = [BOX | {"port": "x"}, {"name": "halo2"}, BOX | {"name": "halo3", "groups": ["nope"]}]
    with pytest.raises(InventoryError) as caught:
        load_boxes(written(tmp_path, boxes))
    told = "\n".join(caught.value.mistakes)
    assert "halo1: port" in told
    assert "halo2: address is missing" in told
    assert "halo2: user is missing" in told


def test_a_shared_mistake_is_told_once_with_its_boxes(tmp_path: Path) -> None:
    boxes = load_boxes(written(tmp_path, [BOX, BOX | {"name": "halo2", "address": "h2"}]))
    with pytest.raises(InventoryError) as caught:
        check_settings(boxes, GROUPS, {"comfyui_port": 1})
    (sentence,) = caught.value.mistakes
    assert sentence.startswith("boxes halo1, halo2: comfyui_port")


def test_box_beats_group_beats_all_and_the_command_line_beats_them(tmp_path: Path) -> None:
    own = BOX | {"groups": ["rocm_7_2"], "settings": {"comfyui_port": 9000}}
    other = BOX | {"name": "halo2", "address": "h2"}
    boxes = load_boxes(written(tmp_path, [own, other]))

    configs = check_settings(boxes, GROUPS)
    assert configs["halo1"].comfyui.port == 9000
    assert configs["halo1"].stack == "rocm-7.2.1"
    assert configs["halo2"].comfyui.port == 8188
    assert configs["halo2"].stack == "rocm-6.4.2"

    configs = check_settings(boxes, GROUPS, {"comfyui_port": 7000})
    assert {cfg.comfyui.port for cfg in configs.values()} == {7000}


def test_the_users_directories_follow_from_the_user(tmp_path: Path) -> None:
    boxes = load_boxes(written(tmp_path, [BOX]))
    cfg = check_settings(boxes, GROUPS)["halo1"]
    assert cfg.box.user == "anna"
    assert cfg.comfyui.base_directory == "/home/anna/ComfyUI"
    cfg = check_settings(boxes, GROUPS, {"box_home": "/srv/anna"})["halo1"]
    assert cfg.comfyui.base_directory == "/srv/anna/ComfyUI"
    groups = GROUPS | {"all": GROUPS["all"] | {"box_user": "comfy"}}
    assert check_settings(boxes, groups)["halo1"].box.home == "/home/comfy"


def test_the_example_is_sound() -> None:
    boxes = load_boxes(ROOT / "boxes.example.yaml")
    assert check_settings(boxes, GROUPS)
    # What stands commented out has to work as well when it is switched on.
    text = (ROOT / "boxes.example.yaml").read_text(encoding="utf-8")
    switched = text.replace("\n  # - name", "\n  - name").replace("\n  #   ", "\n    ")
    switched = switched.replace("    # Any", "    #Any").replace("    # canary", "    #canary")
    assert len(yaml.safe_load(switched)["boxes"]) == 2
