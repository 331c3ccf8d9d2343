"""What is installed: the release, its torch and pins, and flags that this ComfyUI takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from boxtools.doctor.checks.gpu import TO_7_2, for_gpu
from boxtools.doctor.facts import Facts
from boxtools.doctor.finding import Finding

DEPLOY = "run the deploy on this box once more"
SLOW_FLAGS = {
    "--cpu": "works on the CPU",
    "--cpu-vae": "decodes on the CPU",
    "--force-fp32": "computes in 32 bits",
    "--fp32-unet": "computes in 32 bits",
    "--fp64-unet": "computes in 64 bits",
    "--novram": "moves every layer for every step",
    "--lowvram": "moves parts of the model for every step",
    "--deterministic": "uses slower algorithms",
    "--cache-none": "loads and computes everything anew for each image",
    "--use-split-cross-attention": "does without torch's attention",
    "--use-quad-cross-attention": "does without torch's attention",
}


def release(facts: Facts) -> Iterator[Finding]:
    """There is a release, and its torch is the stack's."""
    found, settings = facts.software.release, facts.settings
    yield Finding(
        code="RELEASE.CURRENT",
        verdict="ok" if found.path and found.seal else "wrong",
        evidence=f"release {found.path.rpartition('/')[2]}"
        if found.path and found.seal
        else f"{settings.current} names no release that was proved",
        meaning="The service starts the release that this link names.",
        mend=DEPLOY,
    )
    if not found.path:
        return
    torch = found.torch
    kind = "no torch" if torch is None else f"torch {torch.version}, "
    if torch is not None:
        kind += f"ROCm {torch.hip}" if torch.hip else f"CUDA {torch.cuda}" if torch.cuda else "CPU"
    wanted = settings.hip
    right = torch is not None and (wanted is None or _same_release(torch.hip, wanted))
    yield Finding(
        code="TORCH.BUILD",
        verdict="ok" if right else "wrong",
        evidence=kind,
        meaning="It works on the CPU or not at all: an install took torch from the public index,"
        " which has no ROCm build.",
        mend=f"{DEPLOY}; it puts torch {settings.torch} back and keeps it there",
    )
    if torch is not None:
        now = found.packages
        drifted = [n for n, v in sorted(found.pins.items()) if now.get(n, v) != v or n not in now]
        told = ", ".join(f"{n} {now.get(n, 'absent')} in place of {found.pins[n]}" for n in drifted)
        yield Finding(
            code="TORCH.PINS",
            verdict="wrong" if drifted else "ok",
            evidence=told or f"{len(found.pins)} pinned packages are as pinned",
            meaning="These packages belong together; another version breaks at import or later.",
            mend=DEPLOY,
        )
    xformers = found.packages.get("xformers")
    yield Finding(
        code="XFORMERS.INSTALLED",
        verdict="warn" if xformers and wanted is not None else "ok",
        evidence=f"xformers {xformers or 'is not installed'}",
        meaning="It is built for CUDA, and its install often brings CUDA's torch along."
        " --use-pytorch-cross-attention makes ComfyUI leave it alone.",
        mend=f"take it out of the node that asks for it, then {DEPLOY}",
    )


def _same_release(hip: str, wanted: str) -> bool:
    return f"{hip}.".startswith(f"{wanted}.")


def archs(facts: Facts) -> Iterator[Finding]:
    """The wheel has code for this GPU; where it has none, only the override makes it work."""
    known, targets = facts.software.release.archs, facts.machine.targets
    if not for_gpu(facts) or not known or not targets:
        return
    target = targets[0]
    native = covers(known, target)
    override = facts.environment.get("HSA_OVERRIDE_GFX_VERSION", "")
    helped = bool(override) and covers(known, override_target(override) or "")
    yield Finding(
        code="TORCH.ARCH",
        verdict="ok" if native else "warn" if helped else "wrong",
        evidence=f"GPU {target}, wheel: {', '.join(known)}",
        meaning="This torch has no code for the GPU"
        + (" and runs only because it is told another one, which AMD does not support." * helped)
        + ("; every kernel fails with 'invalid device function'." * (not helped)),
        mend=TO_7_2,
    )


def covers(known: tuple[str, ...], target: str) -> bool:
    """Whether a wheel's targets hold code for ``target``, its own or its family's generic."""
    names = {name.split(":")[0] for name in known}
    # LLVM's generic targets: gfx11-generic is code for gfx1100 to gfx1153.
    family = re.fullmatch(r"(gfx1[012])\d\d", target)
    return target in names or (family is not None and f"{family[1]}-generic" in names)


def override_target(value: str) -> str | None:
    """The target that an override makes of the GPU: 11.0.0 is gfx1100; None for what is none."""
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{1,2})", value.strip())
    return f"gfx{match[1]}{int(match[2]):x}{int(match[3]):x}" if match else None


def flags(facts: Facts) -> Iterator[Finding]:
    """Flags that the pinned ComfyUI refuses, and those that cost time."""
    told = facts.software.flags
    if told is None:
        yield Finding(
            code="FLAGS.REFUSED",
            verdict="unknown",
            evidence="ComfyUI's parser could not be asked",
            mend="see whether the release is whole: the finding RELEASE.CURRENT",
        )
    else:
        refused = {name: said for name, said in told.items() if said}
        ours = facts.settings.profile in refused
        yield Finding(
            code="FLAGS.REFUSED",
            verdict="wrong" if ours else "warn" if refused else "ok",
            evidence="; ".join(f"{name}: {said}" for name, said in refused.items())
            or f"this ComfyUI takes the flags of {len(told)} profiles",
            meaning="ComfyUI ends at once when it gets a flag that it does not know, or two that"
            " exclude each other.",
            mend="mend launch_profiles in the settings and run the deploy",
        )
    slow = [f"{flag} ({SLOW_FLAGS[flag]})" for flag in facts.flags if flag in SLOW_FLAGS]
    yield Finding(
        code="FLAGS.SLOW",
        verdict="warn" if slow and for_gpu(facts) else "ok",
        evidence=", ".join(slow) or "no flag that is known to cost time",
        meaning="On unified memory these flags save little and cost much.",
        mend="choose a profile without them in comfyui_profile, or measure: strixbox bench flags",
    )


CHECKS = (release, archs, flags)
