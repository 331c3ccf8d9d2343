"""Fixes mend what they say, twice, and lose nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from boxtools.doctor import fixes
from boxtools.doctor.checks import examine
from boxtools.doctor.facts import gather
from boxtools.doctor.world import Answer, Said
from boxtools.errors import Trouble
from hypothesis import given
from hypothesis import strategies as st

from tests.boxtools.doctor_box import UID, Box, put

STALE = "Validator,PT_VERSION,2.6.0\nGemmTunableOp_float_NN,nn_1_2_3,Gemm_1,0.1\n"
LINE = "export HSA_OVERRIDE_GFX_VERSION=11.0.0\n"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A healthy box."""
    return Box(tmp_path)


def mend(box: Box, name: str) -> list[str]:
    """Apply one fix that the findings ask for; returns its plan."""
    facts = gather(box.world, box.settings)
    fix = next(fix for fix in fixes.wanted(examine(facts)) if fix.name == name)
    plan = fix.plan(facts, box.world)
    fix.apply(facts, box.world)
    fix.apply(facts, box.world)  # it may be run twice
    assert name not in {fix.name for fix in fixes.wanted(examine(gather(box.world, box.settings)))}
    return plan


def test_a_healthy_box_wants_no_fix(box: Box) -> None:
    assert fixes.wanted(examine(box.facts())) == []


def test_stale_results_are_put_aside_whole(box: Box) -> None:
    path = box.root / "var/lib/strixbox/tunableop/rocm-7.2.1-0.csv"
    put(path, STALE)
    box.set(
        PYTORCH_TUNABLEOP_ENABLED="1",
        PYTORCH_TUNABLEOP_TUNING="0",
        PYTORCH_TUNABLEOP_FILENAME=str(box.settings.tunableop),
    )
    plan = mend(box, "tunableop-aside")
    kept = [one for one in path.parent.iterdir() if "backup" in one.name]
    assert not path.exists()
    assert [one.read_text() for one in kept] == [STALE]
    assert kept[0].name in plan[0]


def test_a_second_backup_has_a_name_of_its_own(box: Box) -> None:
    path = box.root / "var/lib/strixbox/tunableop/rocm-7.2.1-0.csv"
    for content in ("Validator,PT_VERSION,2.6.0\n", "Validator,PT_VERSION,2.5.0\n"):
        put(path, content + "a,b,c\n")
        facts = box.facts()
        fixes.FIXES[1].apply(facts, box.world)
    assert len(list(path.parent.iterdir())) == 2


def test_dead_downloads_go_and_models_stay(box: Box) -> None:
    model = box.models / "checkpoints/sd_xl_base_1.0.safetensors"
    before = model.read_bytes()
    part = put(model.with_name(f"{model.name}.strixbox-part"), b"half")
    tag = put(model.with_name(f"{model.name}.strixbox-part.etag"), "x")
    foreign = put(box.models / "checkpoints/sd_xl_base_1.0.safetensors.part", b"half")
    box.give(box.models / "checkpoints", part, tag)
    assert mend(box, "part-leftovers") == [f"remove {part}"]
    assert not part.exists()
    assert not tag.exists()
    assert model.read_bytes() == before
    assert foreign.exists()


def test_the_state_directory_gets_its_owner(box: Box) -> None:
    box.settings.state.rmdir()
    mend(box, "state-owner")
    assert box.settings.state.stat().st_uid == UID


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_is_in_the_state_directory_is_given_too_and_links_are_not_followed(
    box: Box, tmp_path: Path
) -> None:
    outside = put(tmp_path / "outside", "x")
    put(box.settings.state / "bench/run.json", "{}")
    (box.settings.state / "link").symlink_to(outside)
    os.chown(box.settings.state, 0, 0)
    mend(box, "state-owner")
    assert (box.settings.state / "bench/run.json").stat().st_uid == UID
    assert outside.stat().st_uid == 0


def own(box: Box) -> Path:
    """The user's .bashrc with an override outside of our block, owned as it should be."""
    bashrc = box.bashrc
    put(bashrc, bashrc.read_bytes() + LINE.encode() + b"# caf\xe9 \xff\nalias ll='ls -l'", 0o600)
    box.give(bashrc.parent, bashrc)
    return bashrc


def test_the_users_line_becomes_a_comment_and_all_else_stays(box: Box) -> None:
    bashrc = own(box)
    before = bashrc.read_bytes()
    plan = mend(box, "bashrc-override")
    after = bashrc.read_bytes()
    assert after.replace(fixes.SHELL_OFF.encode(), b"") == before
    assert after.count(fixes.SHELL_OFF.encode()) == 1
    assert b">>>\nexport HSA_OVERRIDE" in after  # our block is the deploy's
    kept = [path for path in bashrc.parent.iterdir() if "backup" in path.name]
    assert [path.read_bytes() for path in kept] == [before]
    assert bashrc.stat().st_mode & 0o777 == 0o600
    assert kept[0].stat().st_mode & 0o777 == 0o600
    assert bashrc.stat().st_uid == UID
    assert f"+{fixes.SHELL_OFF}{LINE.strip()}" in plan


def test_a_linked_login_file_stays_a_link(box: Box) -> None:
    bashrc = own(box)
    target = bashrc.with_name("dotfiles-bashrc")
    bashrc.rename(target)
    bashrc.symlink_to(target)
    mend(box, "bashrc-override")
    assert bashrc.is_symlink()
    assert fixes.OFF in target.read_text(errors="replace")


@pytest.mark.skipif(os.getuid() != 0, reason="only root could be led elsewhere")
def test_a_link_of_the_users_leads_root_nowhere(box: Box, tmp_path: Path) -> None:
    bashrc = own(box)
    secret = put(tmp_path / "root-owned", LINE, 0o644)
    bashrc.unlink()
    bashrc.symlink_to(secret)
    facts = box.facts()
    with pytest.raises(PermissionError):
        fixes.FIXES[3].apply(facts, box.world)
    assert secret.read_text() == LINE


@given(
    st.lists(st.sampled_from([LINE, "# x\n", "\n", "# >>> strixbox >>>\n", "# <<< strixbox <<<\n"]))
)
def test_turning_off_is_idempotent_and_loses_no_line(lines: list[str]) -> None:
    before = "".join(lines)
    after = fixes.without_override(before)
    assert after.replace(fixes.SHELL_OFF, "") == before
    assert fixes.without_override(after) == after


@pytest.mark.parametrize(
    "line",
    [
        "export HSA_OVERRIDE_GFX_VERSION=11.0.0 PATH=$PATH:/opt/rocm/bin",
        "alias comfy='HSA_OVERRIDE_GFX_VERSION=11.0.0 python main.py'",
        "[ -e /dev/kfd ] && export HSA_OVERRIDE_GFX_VERSION=11.0.0",
        "HSA_OVERRIDE_GFX_VERSION=11.0.0; cd /srv",
        "HSA_OVERRIDE_GFX_VERSION=11.0.0 \\",
    ],
)
def test_a_line_that_does_more_is_left_to_the_user(box: Box, line: str) -> None:
    put(box.bashrc, f"{line}\n")
    finding = next(one for one in examine(box.facts()) if one.code == "ENV.LEFTOVER")
    assert finding.verdict == "warn"
    assert finding.safe_fix is None
    assert fixes.without_override(f"{line}\n") == f"{line}\n"


def test_the_shell_still_reads_the_file() -> None:
    text = f"if true; then\n  {LINE}fi\necho ${{HSA_OVERRIDE_GFX_VERSION-unset}} whole\n"
    words = ["bash", "-e", "-c", fixes.without_override(text)]
    said = subprocess.run(words, capture_output=True, text=True, check=True, env={})
    assert said.stdout == "unset whole\n"


def test_a_failed_service_is_started_and_waited_for(box: Box) -> None:
    box.unit |= {"ActiveState": "failed", "MainPID": "0", "Result": "start-limit-hit"}
    facts = box.facts()
    fix = next(fix for fix in fixes.wanted(examine(facts)) if fix.name == "start-service")
    assert fix.root
    fix.apply(facts, box.world)
    assert ["systemctl", "start", "comfyui.service"] in box.ran


def test_a_service_that_ends_again_is_told_in_a_sentence(box: Box) -> None:
    box.answer = Answer(0, None, "refused")
    facts, run = box.facts(), box.run

    def ended(words: list[str], **how: object) -> Said:
        return Said(3, "failed\n") if words[1] == "is-active" else run(words)

    box.run = ended  # type: ignore[method-assign]
    with pytest.raises(Trouble, match="ended again; see journalctl"):
        fixes.FIXES[-1].apply(facts, box.world)
    box.run = lambda words, **how: Said(1, "", "Unit not found")  # type: ignore[method-assign]
    with pytest.raises(Trouble, match="does not start \\(Unit not found\\)"):
        fixes.FIXES[-1].apply(facts, box.world)
