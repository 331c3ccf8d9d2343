"""To which release a rollback goes, judged by what is on the box and not by the settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from strixbox import facts
from strixbox.config import Config
from strixbox.layout import GENERATIONS
from strixbox.operations import base, release
from strixbox.programs import Refusal
from tests.unit.conftest import GROUPS, StandInBox, commands, told

OLD, NEW = "0123456789ab-00000000", "cdef01234567-00000000"


def generation(name: str, answered: int, stack: str, rocm: str | None) -> dict[str, Any]:
    """One of those that are kept on the box."""
    about = {"stack": stack, "rocm": rocm, "url": "http://127.0.0.1:8188/system_stats"}
    return {"id": name, "release": name.partition("-")[0], "answered": answered} | about


def gone_back(
    monkeypatch: pytest.MonkeyPatch, cfg: Config, core: str | None, needs: str | None
) -> list[str]:
    """What a rollback of a box with this ROCm would run, or the sentence that refuses it."""
    service = {
        "generations": [
            generation(OLD, 1, "rocm-6.4.2", needs),
            generation(NEW, 2, "rocm-7.2.1", "7.2.1"),
        ],
        "generation": f"{GENERATIONS}/{NEW}",
        "current": "/opt/strixbox/releases/cdef01234567",
        "answers": True,
    }
    box = StandInBox(
        {
            facts.Service: service,
            facts.Installed: {"rocm-core": {"version": core, "held": True}},
        }
    )
    monkeypatch.setattr(base, "host", box)
    monkeypatch.setattr(base, "state", SimpleNamespace(is_executing=True))
    return [
        one.sentence if isinstance(one, Refusal) else told(one)
        for one in commands(release.rolled_back, cfg=cfg, wanted=None)
    ]


@pytest.mark.parametrize("group", ["all", "rocm_7_2"])
@pytest.mark.parametrize(
    ("core", "needs", "refused"),
    [
        ("6.4.2.60402-120~24.04", "6.4.2", None),
        ("7.2.1.70201-81~24.04", "6.4.2", "uses ROCm 6.4.2 from apt, of which this box has 7.2.1"),
        (None, "6.4.2", "of which this box has none"),
        ("7.2.1.70201-81~24.04", None, None),  # its wheels bring all that it needs
    ],
)
def test_the_boxs_own_rocm_decides_whatever_the_settings_say(
    monkeypatch: pytest.MonkeyPatch,
    data: dict[str, Any],
    group: str,
    core: str | None,
    needs: str | None,
    refused: str | None,
) -> None:
    cfg = Config.load(data | GROUPS[group])
    (line,) = gone_back(monkeypatch, cfg, core, needs)
    if refused is None:
        assert f"{GENERATIONS}/{OLD}" in line
    else:
        assert refused in line
        assert "change the box's groups in boxes.yaml" in line
