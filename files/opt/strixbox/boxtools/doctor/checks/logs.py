"""What the kernel wrote since boot: faults and hangs of the GPU, memory, heat, disks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boxtools.doctor.checks.gpu import TO_7_2
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding, Verdict, unknown

# Lines of the kernel as in ROCm issues 5724, 6273, 6598 and TheRock 1271.
TROUBLES: tuple[tuple[str, Verdict, re.Pattern[str], str, str], ...] = (
    (
        "LOG.PAGE_FAULT",
        "warn",
        re.compile(r"amdgpu.{0,80}\bpage fault\b|GCVM_L2_PROTECTION_FAULT_STATUS"),
        "A kernel on the GPU read or wrote memory that is not its own.",
        "see ENV.OVERRIDE, KERNEL.ROCM and FIRMWARE.BROKEN; then " + TO_7_2,
    ),
    (
        "LOG.GPU_HANG",
        "warn",
        re.compile(r"amdgpu.{0,80}(?:GPU reset begin|ring \S{1,40} timeout)|device wedged"),
        "The GPU hung and was reset; programs that used it have lost it.",
        "sudo systemctl restart comfyui; if it comes back, update kernel and linux-firmware",
    ),
    (
        "LOG.MES",
        "warn",
        re.compile(r"MES failed to respon[ds]|MES might be in unrecoverable state"),
        "The GPU's scheduler stopped; a known fault of firmware and kernels on this chip.",
        "sudo apt update && sudo apt full-upgrade, then reboot (see FIRMWARE.BROKEN)",
    ),
    (
        "LOG.OOM",
        "warn",
        re.compile(r"Out of memory: Killed process|oom-kill:|oom_reaper: reaped"),
        "The kernel ended a program because the box's memory ran out.",
        "a smaller batch, or a profile without --highvram; strixbox memory says what holds it",
    ),
    (
        "LOG.THERMAL",
        "warn",
        re.compile(
            r"thermal (?:event|shutdown)|critical temperature|temperature above threshold",
            re.IGNORECASE,
        ),
        "The box was too hot.",
        "clean the fans, give the box air, or choose a lower power mode in the BIOS",
    ),
    (
        "LOG.DISK",
        "wrong",
        re.compile(
            r"I/O error, dev (?!loop|sr)\w|EXT4-fs error|Remounting filesystem read-only"
            r"|nvme\w{1,20}: I/O .{0,40}timeout|critical medium error"
        ),
        "A disk fails.",
        "copy what you need, then look: sudo smartctl -a /dev/nvme0 (package smartmontools)",
    ),
)


def kernel_log(facts: Facts) -> Iterator[Finding]:
    """One finding for each kind of trouble."""
    lines = facts.service.kernel_log
    if lines is None:
        yield unknown("LOG.PAGE_FAULT", "the kernel's log")
        return
    for code, verdict, pattern, meaning, mend in TROUBLES:
        hits = [line for line in lines if pattern.search(line)]
        yield Finding(
            code=code,
            verdict=verdict if hits else "ok",
            evidence=f"{len(hits)} times since boot, last: {hits[-1].strip()[:160]}"
            if hits
            else "none since boot",
            meaning=meaning,
            mend=mend,
        )


CHECKS = (kernel_log,)
