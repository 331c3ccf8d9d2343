"""Variables of the service and leftovers in files, and TunableOp, which is set up by variables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boxtools.doctor.checks.gpu import TO_7_2, for_gpu
from boxtools.doctor.checks.installed import covers, override_target
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import SUDO, Finding

OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
HIDING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
# They make every kernel wait for the one before, or write a line for each call.
DEBUGGING = (
    *("AMD_SERIALIZE_KERNEL", "AMD_SERIALIZE_COPY", "HIP_LAUNCH_BLOCKING", "CUDA_LAUNCH_BLOCKING"),
    *("AMD_LOG_LEVEL", "MIOPEN_ENABLE_LOGGING", "MIOPEN_ENABLE_LOGGING_CMD", "ROCBLAS_LAYER"),
    *("HIPBLASLT_LOG_LEVEL", "PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_NO_HIP_MEMORY_CACHING"),
)
# Nothing that ComfyUI runs reads them, or they say what is so anyway (ROCm clr's flags.hpp,
# MIGraphX's and Mesa's documentation, ComfyUI's main.py).
IGNORED = (
    *("GPU_MAX_ALLOC_PERCENT", "ROCM_VISIBLE_DEVICES", "MIGRAPHX_MLIR_USE_SPECIFIC_OPS"),
    *("RADV_PERFTEST", "AMD_DIRECT_DISPATCH", "PYTORCH_ROCM_ARCH"),
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
)


def override(facts: Facts) -> Iterator[Finding]:
    """The override against the wheel's own targets and what the GPU really is."""
    value = facts.environment.get(OVERRIDE, "")
    if not value or not for_gpu(facts):
        yield Finding(code="ENV.OVERRIDE", verdict="ok", evidence=f"{OVERRIDE} is not set")
        return
    known, targets = facts.software.release.archs, facts.machine.targets
    target = targets[0] if targets else "unknown"
    other = override_target(value)
    evidence = f"{OVERRIDE}={value}, GPU {target}, wheel: {', '.join(known) or 'unknown'}"
    leave_out = f"take {OVERRIDE} out of launch_profiles and launch_shell, then run the deploy"
    if other == target:
        yield Finding(
            code="ENV.OVERRIDE",
            verdict="ok",
            evidence=evidence,
            meaning="It says what the GPU is anyway.",
        )
    elif known and covers(known, targets[0] if targets else "gfx1151"):
        yield Finding(
            code="ENV.OVERRIDE",
            verdict="wrong",
            evidence=evidence,
            meaning="The wheel has code for this GPU; the override makes it run another GPU's,"
            " which ends in page faults (ROCm issues 5824, 5853).",
            mend=leave_out,
        )
    elif known and not covers(known, other or ""):
        yield Finding(
            code="ENV.OVERRIDE",
            verdict="wrong",
            evidence=evidence,
            meaning="The wheel has code neither for this GPU nor for the one it is told.",
            mend=TO_7_2,
        )
    else:
        yield Finding(
            code="ENV.OVERRIDE",
            verdict="warn",
            evidence=evidence,
            meaning="A wheel without gfx1151 code needs it, and AMD does not support it: page"
            " faults are on record. A wheel with gfx1151 code is harmed by it.",
            mend=TO_7_2,
        )


def leftovers(facts: Facts) -> Iterator[Finding]:
    """Lines in other people's files that set what ROCm reads."""
    found = facts.software.leftovers
    own = [one for one in found if one.of_user and one.plain]
    if found or not facts.software.unread:
        yield Finding(
            code="ENV.LEFTOVER",
            verdict="warn" if found else "ok",
            evidence="; ".join(f"{one.path}:{one.number}: {one.line}" for one in found)
            or "no file outside of strixbox's own sets ROCm's variables",
            meaning="The service does not read login files, but everything started by hand does,"
            " and a unit or /etc/environment reaches the service too.",
            mend="take these lines out: the deploy sets what its stack needs"
            + ("; strixbox doctor --fix turns the user's into comments" * bool(own)),
            safe_fix="bashrc-override" if own else None,
        )
    else:
        yield Finding(
            code="ENV.LEFTOVER",
            verdict="unknown",
            evidence=f"{', '.join(facts.software.unread)} cannot be read",
            mend=SUDO,
        )


def values(facts: Facts) -> Iterator[Finding]:
    """Variables that hide the GPU, slow it down, bring other libraries, or do nothing."""
    now = facts.environment
    hidden = [f"{name}={now[name]}" for name in HIDING if name in now and hides(now[name])]
    yield Finding(
        code="ENV.HIDDEN",
        verdict="wrong" if hidden and for_gpu(facts) else "ok",
        evidence=", ".join(hidden) or "no variable hides the GPU",
        meaning="The box has one GPU, number 0; these values leave none.",
        mend="take the variable out of launch_profiles, or set it to 0, and run the deploy",
    )
    slow = [f"{name}={now[name]}" for name in DEBUGGING if now.get(name, "0") not in ("", "0")]
    yield Finding(
        code="ENV.DEBUG",
        verdict="warn" if slow else "ok",
        evidence=", ".join(slow) or "no debugging variable is set",
        meaning="It is for finding faults and slows every kernel down.",
        mend="take it out of launch_profiles or the unit's drop-in, and restart the service",
    )
    # A stack whose wheels are lightweight names its own ROCm there.
    own = {name: variable.value for name, variable in facts.settings.variables.items()}
    paths = {n: now[n] for n in ("LD_LIBRARY_PATH", "LD_PRELOAD") if now.get(n)}
    libraries = [f"{n}={value}" for n, value in paths.items() if value != own.get(n)]
    foreign = [text for text in libraries if re.search(r"rocm|hip|hsa", text, re.IGNORECASE)]
    yield Finding(
        code="ENV.LIBRARIES",
        verdict="warn" if foreign else "ok",
        evidence=", ".join(foreign) or "no other ROCm libraries are put first",
        meaning="ROCm libraries of another release are loaded before those that torch brings.",
        mend="take the variable out of the unit's drop-in and restart the service",
    )
    ignored = [name for name in IGNORED if name in now]
    yield Finding(
        code="ENV.IGNORED",
        verdict="ok",
        evidence=f"set without effect: {', '.join(ignored)}" if ignored else "none",
        meaning="Nothing that makes images reads them; they do neither good nor harm.",
    )


def hides(value: str) -> bool:
    """Whether a list of visible devices leaves out the only GPU, number 0."""
    first = value.split(",")[0].strip()
    return not first.upper().startswith("GPU-") and first != "0"


def tunableop(facts: Facts) -> Iterator[Finding]:
    """Tuning in production, and results that are missing, stale or lost."""
    now, tuned = facts.environment, facts.software.tuned
    enabled = now.get("PYTORCH_TUNABLEOP_ENABLED") == "1"
    if not enabled or not for_gpu(facts):
        yield Finding(code="TUNABLEOP.TUNING", verdict="ok", evidence="TunableOp is off")
        return
    told = facts.service.answer.tuning
    tuning = now.get("PYTORCH_TUNABLEOP_TUNING") == "1" if told is None else told
    yield Finding(
        code="TUNABLEOP.TUNING",
        verdict="warn" if tuning else "ok",
        evidence="TunableOp is on and tunes" if tuning else "TunableOp is on and only uses results",
        meaning="Every new size, batch or prompt length is slow once, for minutes, while it tunes.",
        mend="strixbox warmup, which switches tuning off when it is through",
    )
    name = now.get("PYTORCH_TUNABLEOP_FILENAME", "")
    lost = not name.startswith("/") or (tuned is not None and not tuned.writable)
    yield Finding(
        code="TUNABLEOP.PLACE",
        verdict="warn" if lost else "ok",
        evidence=f"results go to {name or 'tunableop_results0.csv in the working directory'}",
        meaning="The service may not write there, so tuning is lost at every stop.",
        mend="set PYTORCH_TUNABLEOP_FILENAME to a file below the state directory and run the"
        " deploy",
    )
    if tuned is None:
        return
    yield Finding(
        code="TUNABLEOP.RESULTS",
        verdict="ok" if tuned.exists and tuned.results else "warn",
        evidence=f"{tuned.results} results in {tuned.path}"
        if tuned.exists
        else f"{tuned.path} is not there yet",
        meaning="Nothing is tuned yet: the first images are slow, later ones are not.",
        mend="strixbox warmup",
    )
    stale = _stale(facts)
    yield Finding(
        code="TUNABLEOP.STALE",
        verdict="warn" if stale else "ok",
        evidence=", ".join(stale) or "the results are of this torch, ROCm and GPU",
        meaning="torch refuses results of another version, and tunes or does without.",
        mend="strixbox doctor --fix puts the file aside; then strixbox warmup",
        safe_fix="tunableop-aside" if stale else None,
    )


def _stale(facts: Facts) -> list[str]:
    """In words, which validators are not what the release has; an unknown side is no difference."""
    tuned, torch = facts.software.tuned, facts.software.release.torch
    if tuned is None or not tuned.validators or torch is None:
        return []
    now = facts.environment.get(OVERRIDE, "")
    target = override_target(now) or next(iter(facts.machine.targets), "")
    pairs = (
        ("PT_VERSION", re.split(r"[+a-z]", torch.version)[0], 3),
        ("ROCM_VERSION", torch.hip, 2),
        ("GCN_ARCH_NAME", target, 1),
    )
    told = []
    for name, present, parts in pairs:
        past = tuned.validators.get(name, "")
        if past and present and _head(past, parts) != _head(present, parts):
            told.append(f"{name} {past} in place of {present}")
    return told


def _head(text: str, parts: int) -> list[str]:
    return re.split(r"[.:-]", text)[:parts]


CHECKS = (override, leftovers, values, tunableop)
