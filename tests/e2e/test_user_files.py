"""What the user, or a node that runs as the user, may plant on a box gains nothing from root."""

from __future__ import annotations

import pytest

from strixbox.groups import read_group_data
from strixbox.layout import BUILDER, CURRENT
from tests.e2e.conftest import Fleet
from tests.lab import Box, difference

pytestmark = pytest.mark.lab

NODES = "/home/strix/ComfyUI/custom_nodes"
MODELS = "/home/strix/ComfyUI/models"
REQUIREMENTS = "Python | Install what the user's own nodes ask for"
INIT = "import {module}\n\nNODE_CLASS_MAPPINGS = {{}}\n"
# Tells who built it, and who started a Python that has it; needs nothing from any index.
BACKEND = """
import os, zipfile

with open("/srv/told/built", "a") as stream:
    stream.write(f"{os.getuid()}\\n")
try:
    open("/etc/planted", "w").close()
except OSError:
    pass
INFO = "planted-1.0.dist-info"
PTH = (
    "import os; d = os.open('/srv/told/started', os.O_WRONLY | os.O_APPEND);"
    " os.write(d, f'{os.getuid()}\\\\n'.encode()); os.close(d)\\n"
)
FILES = {
    "planted.py": "",
    "planted.pth": PTH,
    f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: planted\\nVersion: 1.0\\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}


def build_wheel(folder, settings=None, metadata=None):
    with zipfile.ZipFile(os.path.join(folder, "planted-1.0-py3-none-any.whl"), "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(name, text)
        record = "".join(f"{name},,\\n" for name in (*FILES, f"{INFO}/RECORD"))
        wheel.writestr(f"{INFO}/RECORD", record)
    return "planted-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "planted"
version = "1.0"
"""


def node(box: Box, module: str, requirements: str) -> None:
    """A node of the user's that imports ``module``."""
    box.write(f"{NODES}/Mine/__init__.py", INIT.format(module=module), owner="strix")
    box.write(f"{NODES}/Mine/requirements.txt", requirements, owner="strix")
    box.run(f"chown strix: {NODES}/Mine")


def uid(box: Box, account: str) -> str:
    """Number of an account."""
    return box.run(["id", "--user", account]).stdout.strip()


def test_what_a_node_asks_for_is_built_and_started_without_roots_rights(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    box.write("/srv/planted/backend.py", BACKEND)
    box.write("/srv/planted/pyproject.toml", PROJECT)
    box.write("/srv/told/built", "", mode="666")
    box.write("/srv/told/started", "", mode="666")
    node(box, "planted", "planted @ file:///srv/planted\n")

    first = fleet.run()

    assert first.code == 0, first.text
    assert set(box.read("/srv/told/built").split()) == {uid(box, BUILDER)}
    assert box.run(["test", "-e", "/etc/planted"], check=False).returncode == 1
    assert "planted" in box.run(f"ls {CURRENT}/venv/lib/python3*/site-packages").stdout
    assert box.run(f"find {CURRENT}/venv/ ! -user root").stdout == ""
    assert box.run(f"find {CURRENT}/venv/ ! -type l -perm /022").stdout == ""
    assert box.run(f"ls {CURRENT}/").stdout.split().count("cache") == 0
    state = box.state()
    assert fleet.run().changed("e2e") == []
    assert difference(state, box.state()) == []

    # uv starts the environment's Python to mend it, and with it what the node brought along.
    box.run(f"rm -rf {CURRENT}/venv/lib/python3*/site-packages/aiohttp-*")
    mended = fleet.run()
    assert mended.code == 0, mended.text
    assert set(box.read("/srv/told/started").split()) == {uid(box, BUILDER), uid(box, "strix")}


def test_an_environment_that_changed_hands_is_taken_back(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    before = box.state()
    box.run(f"chown -R strix $(readlink {CURRENT})/venv")

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert outcome.changed("e2e") == ["Python | Install torch and ComfyUI's requirements"]
    assert difference(before, box.state()) == []


@pytest.mark.fault("a user's node asks for what cannot be had")
def test_requirements_that_could_not_be_had_are_tried_again(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    node(box, "comfy_extra_dep", "comfy-extra-dep\n")
    with fleet.lab.faults({"path_prefix": "/simple/comfy-extra-dep", "kind": "status:404"}):
        first = fleet.run()
    assert first.code == 0, first.text
    assert "warning  your own nodes" in first.text
    assert "Mine: did not load" in first.text

    plan, second = fleet.run(dry=True), fleet.run()

    assert second.code == 0, second.text
    assert REQUIREMENTS in second.changed("e2e")
    assert "Mine: installed now" in second.text
    assert REQUIREMENTS in plan.changed("e2e")
    assert "right    your own nodes" in second.text
    assert fleet.run().changed("e2e") == []


@pytest.mark.parametrize("kind", ["ln -s", "ln"])
def test_a_link_in_a_parts_place_leads_root_nowhere(fleet: Fleet, kind: str) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    model = read_group_data()["lab"]["models_manifest"][0]
    path = f"{MODELS}/checkpoints/{model['name']}"
    box.write("/home/roots", "root's\n", mode="600")
    before = box.state()["/home/roots"]
    box.run(["rm", path])
    box.run([*kind.split(), "/home/roots", f"{path}.strixbox-part"])
    box.run([*kind.split(), "/home/roots", f"{path}.strixbox-part.etag"])

    outcome = fleet.run()

    assert outcome.code == 0, outcome.text
    assert box.state()["/home/roots"] == before
    assert box.run(["stat", "--format=%U", path]).stdout.strip() == "strix"
    assert fleet.run().changed("e2e") == []


def test_a_folder_of_models_that_leads_to_roots_is_refused(fleet: Fleet) -> None:
    box = fleet.add("e2e", "converged")
    assert fleet.run().code == 0
    name = read_group_data()["lab"]["models_manifest"][0]["name"]
    box.run(f"rm -r {MODELS}/checkpoints && ln -s /etc/strixbox {MODELS}/checkpoints")

    outcome = fleet.run()

    assert "could not be read or written by strix: Permission denied" in outcome.trouble("e2e")
    assert box.run(["test", "-e", f"/etc/strixbox/{name}"], check=False).returncode == 1
