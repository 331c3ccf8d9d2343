"""Every check fires on its own fault, and on nothing else."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from boxtools.doctor import symptoms
from boxtools.doctor.checks import examine
from boxtools.doctor.checks.gpu import kernel_is_fixed
from boxtools.doctor.checks.installed import covers, override_target
from boxtools.doctor.checks.variables import hides
from boxtools.doctor.finding import CODES
from boxtools.doctor.world import Answer, Said
from boxtools.settings import Variable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.boxtools.doctor_box import FLAGS, GIB, HOME, NOW, PID, STARTED, USER, Box, Spoil, put

ROOT = Path(__file__).parents[2]
PT = "Validator,PT_VERSION,2.9.1\nValidator,ROCM_VERSION,7.2.1.0-81\n"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A healthy box."""
    return Box(tmp_path)


def tune(
    box: Box, results: str = f"{PT}GemmTunableOp_float_NN,nn_1_2_3,x,0.1\n", **own: str
) -> None:
    assert box.settings.tunableop is not None
    put(Path(str(box.settings.tunableop).replace("%d", "0")), results)
    box.variables |= {
        "PYTORCH_TUNABLEOP_ENABLED": "1",
        "PYTORCH_TUNABLEOP_TUNING": "0",
        "PYTORCH_TUNABLEOP_FILENAME": str(box.settings.tunableop),
        **own,
    }


def tuning_on(box: Box) -> None:
    # torch begins so; the environment says nothing of it.
    tune(box, PYTORCH_TUNABLEOP_TUNING="1")
    box.answer = replace(box.answer, tuning=True)


def test_tuning_that_was_switched_off_inside_the_server_is_fine(box: Box) -> None:
    tune(box, PYTORCH_TUNABLEOP_TUNING="1")
    box.answer = replace(box.answer, tuning=False)
    assert box.findings()["TUNABLEOP.TUNING"].verdict == "ok"


def take_port(box: Box) -> None:
    box.listen("0100007F", 888)
    put(box.root / "proc/99/comm", "nginx\n")
    (box.root / "proc/99/fd").mkdir()
    (box.root / "proc/99/fd/3").symlink_to("socket:[888]")


def archs(box: Box, *names: str) -> None:
    seal = {"id": "x", "proof": {"torch": {"archs": list(names)}}}
    put(box.release / "release.json", json.dumps(seal))


def no_torch_build(box: Box) -> None:
    site = box.release / "venv/lib/python3.12/site-packages"
    text = "__version__ = '2.9.1+cu128'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
    put(site / "torch/version.py", text)


def stop(box: Box) -> None:
    box.unit |= {"ActiveState": "failed", "MainPID": "0", "Result": "exit-code"}
    put(box.root / "proc/net/tcp", "")


def part(box: Box) -> None:
    model = box.models / "checkpoints/sd_xl_base_1.0.safetensors"
    put(model.with_name(f"{model.name}.strixbox-part"), b"half")


def dpm(box: Box) -> None:
    put(box.card / "power_dpm_force_performance_level", "low\n")


def gtt(box: Box) -> None:
    put(box.card / "mem_info_gtt_total", f"{16 * GIB}\n")


def close_devices(box: Box) -> None:
    (box.root / "dev/kfd").chmod(0)


# code -> (how bad, what spoils it, other findings that cannot but follow)
FAULTS: dict[str, tuple[str, Spoil, set[str]]] = {
    "USER.ACCOUNT": ("wrong", lambda box: box.groups.pop(USER), {"SERVICE.GROUPS"}),
    "USER.GROUPS": ("wrong", lambda box: box.groups.pop("video"), set()),
    "STATE.OWNER": ("warn", lambda box: box.settings.state.rmdir(), set()),
    "OS.CLOCK": ("warn", lambda box: setattr(box, "synchronised", "no"), set()),
    "OS.PORT_TAKEN": (
        "wrong",
        take_port,
        set(),
    ),
    "GPU.PRESENT": ("warn", lambda box: put(box.card / "device", "0x744c\n"), set()),
    "GPU.KFD": (
        "wrong",
        lambda box: (box.root / "sys/class/kfd/kfd/topology/nodes/1/properties").unlink(),
        set(),
    ),
    "GPU.NODES": ("wrong", lambda box: (box.root / "dev/dri/renderD128").unlink(), set()),
    "GPU.ACCESS": ("wrong", close_devices, set()),
    "GPU.CARVE_OUT": (
        "warn",
        lambda box: put(box.card / "mem_info_vram_total", f"{16 * GIB}\n"),
        set(),
    ),
    "GPU.GTT": ("warn", gtt, set()),
    "GPU.TEMPERATURE": (
        "warn",
        lambda box: put(box.card / "hwmon/hwmon3/temp1_input", "96000\n"),
        set(),
    ),
    "GPU.POWER": ("warn", dpm, set()),
    "KERNEL.ROCM": (
        "warn",
        lambda box: put(box.root / "proc/sys/kernel/osrelease", "6.14.0-37-generic\n"),
        set(),
    ),
    "DRIVER.DKMS": (
        "warn",
        lambda box: box.packages.update({"amdgpu-dkms": "iF  1:6.12.12.60402"}),
        set(),
    ),
    "FIRMWARE.BROKEN": (
        "wrong",
        lambda box: box.packages.update({"linux-firmware": "ii  20251125.git1-1"}),
        set(),
    ),
    "RELEASE.CURRENT": ("wrong", lambda box: (box.release / "release.json").unlink(), set()),
    "TORCH.BUILD": ("wrong", no_torch_build, set()),
    "TORCH.PINS": (
        "wrong",
        lambda box: put(box.release / "constraints.txt", "numpy==2.4.6\n"),
        set(),
    ),
    "TORCH.ARCH": ("wrong", lambda box: archs(box, "gfx1100", "gfx90a"), set()),
    "XFORMERS.INSTALLED": (
        "warn",
        lambda box: put(
            box.release / "venv/lib/python3.12/site-packages/xformers-0.0.30.dist-info/RECORD", ""
        ),
        set(),
    ),
    "ENV.OVERRIDE": ("wrong", lambda box: box.set(HSA_OVERRIDE_GFX_VERSION="11.0.0"), set()),
    "ENV.LEFTOVER": (
        "warn",
        lambda box: put(
            box.root / "etc/profile.d/rocm.sh", "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n"
        ),
        set(),
    ),
    "ENV.HIDDEN": ("wrong", lambda box: box.set(HIP_VISIBLE_DEVICES="-1"), set()),
    "ENV.DEBUG": ("warn", lambda box: box.set(HIP_LAUNCH_BLOCKING="1"), set()),
    "ENV.LIBRARIES": ("warn", lambda box: box.set(LD_LIBRARY_PATH="/opt/rocm-6.4.2/lib"), set()),
    "TUNABLEOP.TUNING": (
        "warn",
        tuning_on,
        set(),
    ),
    "TUNABLEOP.RESULTS": ("warn", lambda box: tune(box, ""), set()),
    "TUNABLEOP.STALE": (
        "warn",
        lambda box: tune(box, PT.replace("2.9.1", "2.6.0") + "a,b,c\n"),
        set(),
    ),
    "TUNABLEOP.PLACE": (
        "warn",
        lambda box: tune(box, PYTORCH_TUNABLEOP_FILENAME="results.csv"),
        set(),
    ),
    "FLAGS.REFUSED": (
        "wrong",
        lambda box: setattr(
            box, "refused", {"production": "main.py: error: unrecognized arguments: --normalvram"}
        ),
        set(),
    ),
    "FLAGS.SLOW": ("warn", lambda box: box.argv.append("--lowvram"), set()),
    "SERVICE.STATE": ("wrong", stop, set()),
    "SERVICE.GROUPS": (
        "wrong",
        lambda box: put(box.root / f"proc/{PID}/status", "Groups:\t44\n"),
        set(),
    ),
    "SERVICE.RESTARTS": ("warn", lambda box: box.unit.update(NRestarts="7"), set()),
    "SERVICE.ANSWER": (
        "wrong",
        lambda box: setattr(box, "answer", Answer(10, None, "no answer within 10 s")),
        set(),
    ),
    "SERVICE.DEVICE": (
        "wrong",
        lambda box: setattr(
            box, "answer", Answer(0.1, {"devices": [{"type": "cpu", "name": "cpu"}]})
        ),
        set(),
    ),
    "SERVICE.DRIFT": ("warn", lambda box: box.argv.remove(FLAGS[0]), set()),
    "SERVICE.EXPOSED": ("warn", lambda box: box.listen("00000000"), set()),
    "SERVICE.LOG": (
        "warn",
        lambda box: box.log.append("torch.OutOfMemoryError: HIP out of memory. Tried to allocate"),
        set(),
    ),
    "DISK.ROOM": ("wrong", lambda box: setattr(box, "free", GIB // 2), set()),
    "DISK.TEMP": (
        "warn",
        lambda box: put(box.root / "proc/self/mounts", "/dev/nvme0n1p2 / ext4 rw 0 0\n"),
        set(),
    ),
    "MEMORY.SWAP": (
        "warn",
        lambda box: put(
            box.root / "proc/meminfo", "MemTotal: 131072000 kB\nMemAvailable: 2000000 kB\n"
        ),
        set(),
    ),
    "MODELS.NONE": (
        "warn",
        lambda box: (box.models / "checkpoints/sd_xl_base_1.0.safetensors").unlink(),
        set(),
    ),
    "MODELS.LINKS": (
        "warn",
        lambda box: (box.models / "checkpoints/gone.safetensors").symlink_to("/nowhere/x"),
        set(),
    ),
    "MODELS.PARTS": ("warn", part, set()),
    "MODELS.BROKEN": (
        "wrong",
        lambda box: put(box.models / "vae/page.safetensors", "<!DOCTYPE html><html>login"),
        set(),
    ),
    "LOG.PAGE_FAULT": (
        "warn",
        lambda box: box.kernel_log.append(
            "amdgpu 0000:c5:00.0: amdgpu: [gfxhub] page fault (src_id:0 ring:24 vmid:8 pasid:32773)"
        ),
        set(),
    ),
    "LOG.GPU_HANG": (
        "warn",
        lambda box: box.kernel_log.append("amdgpu 0000:c5:00.0: amdgpu: GPU reset begin!"),
        set(),
    ),
    "LOG.MES": (
        "warn",
        lambda box: box.kernel_log.append(
            "amdgpu 0000:c5:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE"
        ),
        set(),
    ),
    "LOG.OOM": (
        "warn",
        lambda box: box.kernel_log.append("Out of memory: Killed process 4242 (python)"),
        set(),
    ),
    "LOG.THERMAL": (
        "warn",
        lambda box: box.kernel_log.append("thermal thermal_zone0: critical temperature reached"),
        set(),
    ),
    "LOG.DISK": (
        "wrong",
        lambda box: box.kernel_log.append("I/O error, dev nvme0n1, sector 5 op 0x0:(READ)"),
        set(),
    ),
}


def bad(box: Box) -> dict[str, str]:
    return {c: f.verdict for c, f in box.findings().items() if f.verdict in ("wrong", "warn")}


def test_nothing_is_wrong_with_a_healthy_box(box: Box) -> None:
    found = box.findings()
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert set(found) <= CODES


@pytest.mark.parametrize("code", FAULTS)
def test_a_check_fires_on_its_fault_and_only_it(box: Box, code: str) -> None:
    verdict, spoil, others = FAULTS[code]
    spoil(box)
    found = bad(box)
    assert found.pop(code) == verdict
    assert set(found) == others if code != "USER.ACCOUNT" else set(found) <= others
    finding = box.findings()[code]
    assert finding.meaning
    assert finding.mend


def test_access_to_what_is_not_there_is_unknown(box: Box) -> None:
    (box.root / "dev/dri/renderD128").unlink()
    assert box.findings()["GPU.ACCESS"].verdict == "unknown"
    close_devices(box)  # of what is there it can be told
    assert box.findings()["GPU.ACCESS"].verdict == "wrong"


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("cpu", "cpu", "works on cpu"),
        ("cuda", "cuda:0 AMD Radeon : native", "works on cuda:0 AMD Radeon : native"),
        ("privateuseone", "AMD Radeon", "works on privateuseone: AMD Radeon"),
    ],
)
def test_the_device_is_named_once(box: Box, kind: str, name: str, told: str) -> None:
    box.answer = Answer(0.1, {"devices": [{"type": kind, "name": name}]})
    assert box.findings()["SERVICE.DEVICE"].evidence == told


def test_the_clock_is_told_as_a_date(box: Box) -> None:
    assert box.findings()["OS.CLOCK"].evidence == "2027-01-15 08:00 UTC, synchronised"
    facts = box.facts()
    early = replace(facts, machine=replace(facts.machine, time=86400.0))
    (clock,) = (one for one in examine(early) if one.code == "OS.CLOCK")
    assert (clock.verdict, clock.evidence) == ("wrong", "1970-01-02 00:00 UTC, synchronised")


def test_the_stacks_own_library_path_is_no_fault(box: Box) -> None:
    # The lightweight wheels of rocm_7_2 find ROCm by it.
    own = Variable(value="/opt/rocm-7.2.1/lib", does="Where ROCm's libraries are.")
    box.settings = box.settings.model_copy(update={"variables": {"LD_LIBRARY_PATH": own}})
    for path, verdict in (("/opt/rocm-7.2.1/lib", "ok"), ("/opt/rocm-6.4.2/lib", "warn")):
        box.set(LD_LIBRARY_PATH=path)
        assert box.findings()["ENV.LIBRARIES"].verdict == verdict


def test_every_code_has_a_fault() -> None:
    assert set(FAULTS) == CODES - {"ENV.IGNORED"}


def test_every_code_and_symptom_is_documented_once() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z0-9]+\.[A-Z0-9_]+)`", text, re.MULTILINE)
    findings, _, errors = text.partition("## Error messages")
    told = re.findall(r"^\| `([A-Z0-9]+\.[A-Z0-9_]+)`", findings, re.MULTILINE)
    assert sorted(told) == sorted(CODES)
    told = re.findall(r"^\| `([A-Z0-9]+\.[A-Z0-9_]+)`", errors, re.MULTILINE)
    assert sorted(told) == sorted(symptom.code for symptom in symptoms.catalogue())
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("known", "value", "verdict", "arch"),
    [
        (("gfx1100",), "11.0.0", "warn", "warn"),  # torch 2.6 for ROCm 6.4.2: needed there
        (("gfx1151",), "11.0.0", "wrong", "ok"),
        (("gfx1151",), "11.5.1", "ok", "ok"),
        (("gfx90a",), "11.0.0", "wrong", "wrong"),
        (("gfx1151",), "", "ok", "ok"),
        (("gfx11-generic",), "", "ok", "ok"),
        (("gfx1100",), "", "ok", "wrong"),
    ],
)
def test_the_override_is_judged_by_wheel_and_gpu(
    box: Box, known: tuple[str, ...], value: str, verdict: str, arch: str
) -> None:
    archs(box, *known)
    if value:
        box.set(HSA_OVERRIDE_GFX_VERSION=value)
    found = box.findings()
    assert found["ENV.OVERRIDE"].verdict == verdict
    assert found["TORCH.ARCH"].verdict == arch
    assert "export HSA_OVERRIDE" not in found["ENV.OVERRIDE"].mend


def test_without_root_facts_are_unknown_and_nothing_fails(box: Box) -> None:
    run = box.run

    def as_user(words: list[str], **how: object) -> Said:
        if words[0] in ("journalctl", "systemctl"):
            return Said(0, "", "Hint: You are currently not seeing messages from other users.")
        return run(words)

    box.run = as_user  # type: ignore[method-assign]
    found = box.findings()
    assert found["SERVICE.LOG"].verdict == "unknown"
    assert found["LOG.PAGE_FAULT"].verdict == "unknown"
    assert found["SERVICE.STATE"].verdict == "unknown"
    assert "sudo" in found["SERVICE.LOG"].mend
    assert not bad(box)


def test_an_empty_box_is_told_in_findings(tmp_path: Path, box: Box) -> None:
    facts_settings = box.settings
    empty = tmp_path / "empty"
    empty.mkdir()
    away = Path("/nonexistent")
    box.root = empty
    box.run = lambda words, **how: Said(None)  # type: ignore[method-assign]
    box.answer = Answer(0, None, "Connection refused")
    box.settings = facts_settings.model_copy(
        update={"current": away / "current", "base_directory": away, "state": away / "state"}
    )
    found = bad(box)
    assert found["GPU.PRESENT"] == "wrong"
    assert found["RELEASE.CURRENT"] == "wrong"
    assert found["SERVICE.ANSWER"] == "wrong"


def test_a_cpu_box_is_not_asked_for_a_gpu(box: Box) -> None:
    box.changed(hip=None)
    (box.root / "sys/class/kfd/kfd/topology/nodes/1/properties").unlink()
    (box.root / "dev/kfd").unlink()
    box.answer = Answer(0.1, {"devices": [{"type": "cpu", "name": "cpu"}]})
    assert not bad(box)


def test_errors_from_before_the_last_start_are_past(box: Box) -> None:
    box.log = ["RuntimeError: No HIP GPUs are available", STARTED, "got prompt"]
    assert not bad(box)
    box.unit["ActiveState"] = "activating"
    assert "SERVICE.LOG" in bad(box)


def test_a_users_line_may_be_fixed_and_a_system_file_may_not(box: Box) -> None:
    bashrc = box.bashrc
    put(bashrc, bashrc.read_text() + "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n")
    finding = box.findings()["ENV.LEFTOVER"]
    assert finding.safe_fix == "bashrc-override"
    assert f"{HOME}/.bashrc:5" in finding.evidence
    put(bashrc, "")
    put(box.root / "etc/environment", "HSA_OVERRIDE_GFX_VERSION=11.0.0\n")
    assert box.findings()["ENV.LEFTOVER"].safe_fix is None


def test_a_service_that_cannot_start_is_not_started(box: Box) -> None:
    stop(box)
    assert box.findings()["SERVICE.STATE"].safe_fix == "start-service"
    box.refused = {"production": "unrecognized arguments: --x"}
    assert box.findings()["SERVICE.STATE"].safe_fix is None


def test_an_old_download_is_dead_and_a_young_or_foreign_one_is_not(box: Box) -> None:
    path = put(box.models / "vae/a.safetensors.strixbox-part", b"half")
    other = put(box.models / "vae/other.safetensors.part", b"half")
    os.utime(other, (NOW - 9 * 86400, NOW - 9 * 86400))
    os.utime(path, (NOW, NOW))
    assert not bad(box)
    os.utime(path, (NOW - 8 * 86400, NOW - 8 * 86400))
    assert "a.safetensors.strixbox-part" in box.findings()["MODELS.PARTS"].evidence
    assert "other" not in box.findings()["MODELS.PARTS"].evidence


@pytest.mark.parametrize(
    ("release", "fixed"),
    [
        ("6.17.0-19-generic", True),
        ("6.17.0-18-generic", False),
        ("6.14.0-1018-oem", True),
        ("6.14.0-1017-oem", False),
        ("6.14.0-37-generic", False),
        ("6.18.4", True),
        ("6.18.3-arch1", False),
        ("7.0.0-3-generic", True),
        ("", False),
        ("linux", False),
    ],
)
def test_kernels(release: str, fixed: bool) -> None:
    assert kernel_is_fixed(release) is fixed


def test_targets_and_devices() -> None:
    assert override_target("11.0.0") == "gfx1100"
    assert override_target("9.0.10") == "gfx90a"
    assert override_target("eleven") is None
    assert covers(("gfx1100", "gfx1151:xnack-"), "gfx1151")
    assert not covers(("gfx12-generic",), "gfx1151")
    assert [hides(value) for value in ("0", "0,1", "GPU-123", "", "-1", "1")] == [False] * 3 + [
        True
    ] * 3


TEXTS = st.text(max_size=300)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_nothing_that_others_wrote_breaks_the_doctor(box: Box, data: st.DataObject) -> None:
    text = data.draw(TEXTS)
    json_value = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=True) | TEXTS,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["devices", "proof", "torch", "type"]), inner)
            ),
            max_leaves=8,
        )
    )
    place = data.draw(
        st.sampled_from(
            [
                *("proc/net/tcp", "proc/self/mounts", "proc/meminfo", f"proc/{PID}/status"),
                *("etc/environment", "etc/passwd", "proc/sys/kernel/osrelease"),
                *("opt/strixbox/current/release.json", "opt/strixbox/current/constraints.txt"),
                "opt/strixbox/current/venv/lib/python3.12/site-packages/torch/version.py",
                "var/lib/strixbox/tunableop/rocm-7.2.1-0.csv",
                f"home/{USER}/ComfyUI/models/checkpoints/sd_xl_base_1.0.safetensors",
            ]
        )
    )
    before = (box.root / place).read_bytes() if (box.root / place).exists() else None
    put(box.root / place, data.draw(st.binary(max_size=200)) + text.encode(errors="replace"))
    box.answer = Answer(0.1, json_value if isinstance(json_value, dict) else None, "odd")
    said = box.run
    wild = data.draw(st.sampled_from(["getent", "id", "systemctl", "journalctl", "timedatectl"]))
    box.run = lambda words, **how: (  # type: ignore[method-assign]
        Said(0, text, text) if words[0] == wild else said(words)
    )
    try:
        assert examine(box.facts())
    finally:
        del box.run
        if before is None:
            (box.root / place).unlink()
        else:
            put(box.root / place, before)
