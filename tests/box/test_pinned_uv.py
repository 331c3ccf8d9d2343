"""uv is installed by hash, whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from strixbox.box import pinned_uv
from tests.box.conftest import asked, started
from tests.lab.wheels import StandIn

VERSION = "0.9.18"


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    """An order for a wheel of an index on this disk."""
    index = tmp_path / "simple"
    (index / "uv").mkdir(parents=True)
    modules = {f"uv-{VERSION}.data/scripts/uv": "#!/bin/sh\necho uv\n", "uv/__init__.py": ""}
    wheel = StandIn("uv", VERSION, (), modules).write(index / "uv", "py3-none-any")
    (index / "uv" / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {
        "path": str(tmp_path / "opt" / VERSION),
        "requirement": f"uv=={VERSION} --hash=sha256:{digest}\n",
        "index": index.as_uri(),
        "host": "none",
        "mend": "mend it and run again",
    }


@pytest.fixture(autouse=True)
def _reachable(tmp_path: Path) -> None:
    if not any(Path(place).is_dir() for place in pinned_uv.WHEELS):
        pytest.skip("this Python has no wheel of pip")


def test_it_is_there_whole_and_nothing_beside_it(order: dict[str, Any]) -> None:
    path = Path(order["path"])
    path.mkdir(parents=True)
    (path / "half").touch()
    for _ in range(2):
        answer = started("pinned_uv", order)
        assert answer.returncode == 0, answer.stderr
    assert (path / "bin" / "uv").is_file()
    assert not (path / "half").exists()
    assert [entry.name for entry in path.parent.iterdir()] == [VERSION]
    found = asked("environments", {"paths": [str(path)]})[str(path)]
    assert (found["packages"], found["damaged"]) == ({"uv": VERSION}, {})


@pytest.mark.parametrize(
    "wrong", [{"requirement": f"uv=={VERSION} --hash=sha256:{'0' * 64}\n"}, {}]
)
def test_another_wheel_and_none_are_refused_with_pips_words(
    order: dict[str, Any], wrong: dict[str, str], tmp_path: Path
) -> None:
    assert started("pinned_uv", order).returncode == 0
    if not wrong:
        wrong = {"index": (tmp_path / "elsewhere").as_uri()}

    answer = started("pinned_uv", order | wrong)

    assert answer.returncode == 1
    assert answer.stderr.endswith("mend it and run again\n")
    assert "ERROR" in answer.stderr
    # What was there is there.
    assert Path(order["path"], "bin", "uv").is_file()


def test_pip_obeys_nothing_of_the_boxs(
    order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "pip.conf"
    ours.write_text("[install]\nuser = true\nindex-url = http://127.0.0.1:1/none\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(ours))
    answer = started("pinned_uv", order)
    assert answer.returncode == 0, answer.stderr
    assert Path(order["path"], "bin", "uv").is_file()


def test_without_pips_wheel_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_uv, "WHEELS", ("/none",))
    with pytest.raises(SystemExit, match="install python3-venv"):
        pinned_uv.pip_wheel()
