"""TunableOp's routes over every torch.cuda.tunable that there was."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.nodes.conftest import PACK, Comfyless, fake

PATH = "/strixbox/tunableop"


class Tunable:
    """What torch keeps; ``environment`` is PYTORCH_TUNABLEOP_TUNING."""

    def __init__(self, enabled: bool = True, environment: str | None = None) -> None:
        self.enabled = enabled
        self.tuning = True
        self.environment = environment
        self.written = 0
        self.room = True

    def module(self, *without: str) -> Any:
        """torch.cuda.tunable, without some of its functions."""

        def tuning_enable(value: bool) -> None:
            self.tuning = value

        def write_file() -> bool:
            self.written += self.room
            return self.room

        functions = {
            "is_enabled": lambda: self.enabled,
            "tuning_is_enabled": lambda: self.tuning and self.environment != "0",
            "tuning_enable": tuning_enable,
            "get_filename": lambda: "/state/tune0.csv",
            "get_results": lambda: (("Gemm", "nt_1_2_3", "Rocblas_1", 0.1),) * 3,
            "get_validators": lambda: (("PT_VERSION", "2.6.0"), ("GCN_ARCH_NAME", "gfx1151")),
            "write_file": write_file,
        }
        return fake(
            "torch.cuda.tunable", **{k: v for k, v in functions.items() if k not in without}
        )


def rocm(comfyless: Comfyless, module: Any) -> None:
    """A ROCm torch that sees its GPU."""
    cuda = fake("torch.cuda", is_available=lambda: True)
    if module is not None:
        cuda.tunable = module  # type: ignore[attr-defined]
        comfyless.patch.setitem(sys.modules, "torch.cuda.tunable", module)
    comfyless.torch.cuda = cuda  # type: ignore[attr-defined]
    comfyless.torch.version = fake("torch.version", hip="6.4")  # type: ignore[attr-defined]
    comfyless.patch.setitem(sys.modules, "torch.cuda", cuda)
    comfyless.load(PACK)


ON = {
    "supported": True,
    "reason": None,
    "enabled": True,
    "tuning": True,
    "filename": "/state/tune0.csv",
    "results": 3,
    "validators": {"PT_VERSION": "2.6.0", "GCN_ARCH_NAME": "gfx1151"},
}


def test_the_switch(comfyless: Comfyless) -> None:
    state = Tunable()
    rocm(comfyless, state.module())
    ask = comfyless.routes.ask
    assert ask("GET", PATH) == (200, ON)
    assert ask("POST", PATH, b'{"tuning": false}') == (200, {**ON, "tuning": False})
    assert not state.tuning
    assert ask("POST", PATH, b'{"tuning": true, "write": true}') == (200, ON)
    assert state.written == 1
    assert ask("POST", PATH, b'{"write": false}') == (200, ON)
    assert state.written == 1


def test_the_environment_wins_and_the_answer_says_so(comfyless: Comfyless) -> None:
    rocm(comfyless, Tunable(environment="0").module())
    told = comfyless.routes.ask("POST", PATH, b'{"tuning": true}')[1]
    assert told["tuning"] is False


def test_switched_off_altogether(comfyless: Comfyless) -> None:
    state = Tunable(enabled=False)
    rocm(comfyless, state.module())
    told = comfyless.routes.ask("POST", PATH, b'{"write": true}')[1]
    assert (told["supported"], told["enabled"], told["tuning"]) == (True, False, False)
    assert (told["results"], told["validators"], state.written) == (0, {}, 0)


def test_a_torch_that_writes_by_itself(comfyless: Comfyless) -> None:
    rocm(comfyless, Tunable().module("write_file"))
    assert comfyless.routes.ask("POST", PATH, b'{"write": true}') == (200, ON)


def test_a_file_that_cannot_be_written(comfyless: Comfyless) -> None:
    state = Tunable()
    state.room = False
    rocm(comfyless, state.module())
    status, told = comfyless.routes.ask("POST", PATH, b'{"write": true}')
    assert status == 409 and "/state/tune0.csv" in told["error"]


@pytest.mark.parametrize("missing", ["get_filename", "get_results", "get_validators"])
def test_what_this_torch_does_not_tell_is_left_open(comfyless: Comfyless, missing: str) -> None:
    rocm(comfyless, Tunable().module(missing))
    status, told = comfyless.routes.ask("GET", PATH)
    assert status == 200 and told["supported"]


@pytest.mark.parametrize("odd", [3, None, [1, 2], [("a",)], "ab"])
def test_odd_answers_of_torch(comfyless: Comfyless, odd: Any) -> None:
    module = Tunable().module()
    module.get_validators = module.get_results = lambda: odd
    rocm(comfyless, module)
    status, told = comfyless.routes.ask("GET", PATH)
    assert status == 200 and isinstance(told["results"], int)
    assert isinstance(told["validators"], dict)


def test_no_tunable(comfyless: Comfyless) -> None:
    rocm(comfyless, None)
    comfyless.patch.delitem(sys.modules, "torch.cuda.tunable", raising=False)
    told = comfyless.routes.ask("POST", PATH, b'{"tuning": true}')[1]
    assert not told["supported"] and "has no torch.cuda.tunable" in told["reason"]


def test_no_switch(comfyless: Comfyless) -> None:
    rocm(comfyless, Tunable().module("tuning_enable"))
    told = comfyless.routes.ask("GET", PATH)[1]
    assert "torch.cuda.tunable.tuning_enable" in told["reason"]


def test_no_gpu_and_no_rocm(comfyless: Comfyless) -> None:
    comfyless.load(PACK)
    assert comfyless.routes.ask("GET", PATH)[1]["reason"] == "torch sees no GPU"
    comfyless.torch.cuda.is_available = lambda: True
    assert "ROCm" in comfyless.routes.ask("GET", PATH)[1]["reason"]
