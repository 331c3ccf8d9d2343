"""The ROCm packages of the lab: real names, versions and dependencies, tiny contents."""

from __future__ import annotations

from tests.lab.debs import Deb

# Build number of each release, as in the real versions: 6.4.2.60402-120~24.04.
BUILDS = {
    "7.2.1": "70201-81~24.04",
    "6.4.2": "60402-120~24.04",
    "6.4.1": "60401-83~24.04",
    "6.3.4": "60304-76~24.04",
}

# Versions of their own; the others carry the release's.
OWN_7_2 = {
    "comgr": "3.0.0",
    "half": "1.12.0",
    "hip-runtime-amd": "7.2.53211",
    "hip-dev": "7.2.53211",
    "hip-doc": "7.2.53211",
    "hip-samples": "7.2.53211",
    "hipblas": "3.2.0",
    "hipblaslt": "1.2.2",
    "hipcc": "1.1.1",
    "hipfft": "1.0.22",
    "hiprand": "3.1.0",
    "hipsolver": "3.2.0",
    "hipsparse": "4.2.0",
    "hipsparselt": "0.2.6",
    "hsa-rocr": "1.18.0",
    "migraphx": "2.15.0",
    "miopen-hip": "3.5.1",
    "rccl": "2.27.7",
    "rocblas": "5.2.0",
    "rocfft": "1.0.36",
    "rocm-cmake": "0.14.0",
    "rocm-device-libs": "1.0.0",
    "rocm-llvm": "22.0.0.26084",
    "rocm-smi-lib": "7.8.0",
    "rocminfo": "1.0.0",
    "rocrand": "4.2.0",
    "rocsolver": "3.32.0",
    "rocsparse": "4.2.0",
    "roctracer": "4.1.70201",
}
OWN = {
    "comgr": "3.0.0",
    "half": "1.12.0",
    "hip-runtime-amd": "6.4.43484",
    "hip-dev": "6.4.43484",
    "hipblas": "2.4.0",
    "hipcc": "1.1.1",
    "hsa-rocr": "1.15.0",
    "hsa-rocr-dev": "1.15.0",
    "miopen-hip": "3.4.0",
    "rccl": "2.22.3",
    "rocblas": "4.4.1",
    "rocfft": "1.0.32",
    "rocm-llvm": "19.0.0.25224",
    "rocm-smi-lib": "7.7.0",
    "rocminfo": "1.0.0",
    "rocsolver": "3.28.2",
    "rocsparse": "3.4.0",
    "roctracer": "4.1.60402",
}
# These have no build number, only the revision of the release that they were built with.
BARE = {"rocprofiler-sdk": {"7": "1.1.0", "6": "0.6.0"}}
# Whom the others name is Deb's default; this one has an address that is nobody's at AMD.
MAINTAINERS = {"rocprofiler-systems": "https://github.com/ROCm/rocprofiler-systems"}

_RUNTIME = ("rocm-core",)
DEPENDS: dict[str, tuple[str, ...]] = {
    "rocm-core": (),
    "amd-smi-lib": ("rocm-core", "python3"),
    "comgr": _RUNTIME,
    "composablekernel-dev": _RUNTIME,
    "half": _RUNTIME,
    "hip-runtime-amd": ("rocm-core", "hsa-rocr", "comgr", "rocminfo", "rocprofiler-register"),
    "hip-dev": ("rocm-core", "hip-runtime-amd", "hipcc"),
    "hip-doc": ("rocm-core", "hip-dev"),
    "hip-samples": ("rocm-core", "hip-dev"),
    "hipblas": ("rocm-core", "rocblas", "rocsolver"),
    "hipblas-common-dev": _RUNTIME,
    "hipblas-dev": ("rocm-core", "hipblas", "hipblas-common-dev"),
    "hipblaslt": _RUNTIME,
    "hipblaslt-dev": ("rocm-core", "hipblaslt"),
    "hipcc": ("rocm-core", "rocm-llvm"),
    "hipcub-dev": ("rocm-core", "rocprim-dev"),
    "hipfft": ("rocm-core", "rocfft"),
    "hipfft-dev": ("rocm-core", "hipfft"),
    "hipfort-dev": _RUNTIME,
    "hipify-clang": _RUNTIME,
    "hiprand": ("rocm-core", "rocrand"),
    "hiprand-dev": ("rocm-core", "hiprand"),
    "hipsolver": ("rocm-core", "rocsolver"),
    "hipsolver-dev": ("rocm-core", "hipsolver"),
    "hipsparse": ("rocm-core", "rocsparse"),
    "hipsparse-dev": ("rocm-core", "hipsparse"),
    "hipsparselt": _RUNTIME,
    "hipsparselt-dev": ("rocm-core", "hipsparselt"),
    "hiptensor": _RUNTIME,
    "hiptensor-dev": ("rocm-core", "hiptensor"),
    "hsa-rocr": ("rocm-core", "rocprofiler-register"),
    "hsa-rocr-dev": ("rocm-core", "hsa-rocr"),
    "migraphx": ("rocm-core", "miopen-hip", "rocblas"),
    "migraphx-dev": ("rocm-core", "migraphx"),
    "miopen-hip": ("rocm-core", "hip-runtime-amd", "rocblas"),
    "miopen-hip-dev": ("rocm-core", "miopen-hip"),
    "openmp-extras-runtime": _RUNTIME,
    "rccl": ("rocm-core", "hip-runtime-amd", "rocm-smi-lib"),
    "rccl-dev": ("rocm-core", "rccl"),
    "rocalution": ("rocm-core", "rocblas", "rocsparse"),
    "rocalution-dev": ("rocm-core", "rocalution"),
    "rocblas": ("rocm-core", "hip-runtime-amd"),
    "rocblas-dev": ("rocm-core", "rocblas"),
    "rocfft": ("rocm-core", "hip-runtime-amd"),
    "rocfft-dev": ("rocm-core", "rocfft"),
    "rocm-cmake": _RUNTIME,
    "rocm-device-libs": _RUNTIME,
    "rocm-hip-libraries": (
        *("rocm-core", "rocm-hip-runtime", "rocblas", "hipblas", "hipblaslt", "rocfft", "hipfft"),
        *("rocrand", "hiprand", "rocsolver", "hipsolver", "rocsparse", "hipsparse", "rccl"),
        *("rocalution", "hiptensor", "hipsparselt"),
    ),
    "rocm-hip-runtime": (
        *("rocm-core", "rocm-language-runtime", "rocminfo", "hip-runtime-amd", "rocm-llvm"),
        "rocm-cmake",
    ),
    "rocm-hip-runtime-dev": (
        *("rocm-core", "rocm-hip-runtime", "hip-dev", "hip-doc", "hip-samples", "hipcc"),
        *("rocm-device-libs", "hsa-rocr-dev", "hipify-clang"),
    ),
    "rocm-hip-sdk": (
        *("rocm-core", "rocm-hip-libraries", "rocm-hip-runtime-dev", "composablekernel-dev"),
        *("hipblas-dev", "hipblaslt-dev", "hipcub-dev", "hipfft-dev", "hipfort-dev"),
        *("hiprand-dev", "hipsolver-dev", "hipsparse-dev", "hipsparselt-dev", "hiptensor-dev"),
        *("rccl-dev", "rocalution-dev", "rocblas-dev", "rocfft-dev", "rocprim-dev"),
        *("rocrand-dev", "rocsolver-dev", "rocsparse-dev", "rocthrust-dev", "rocwmma-dev"),
    ),
    "rocm-language-runtime": ("rocm-core", "hsa-rocr", "openmp-extras-runtime"),
    "rocm-libs": ("rocm-core", "rocm-hip-libraries", "half", "miopen-hip", "migraphx"),
    "rocm-llvm": ("rocm-core", "rocm-device-libs"),
    "rocm-smi-lib": ("rocm-core", "python3"),
    "rocminfo": ("rocm-core",),
    "rocprim-dev": _RUNTIME,
    "rocprofiler-register": _RUNTIME,
    "rocprofiler-sdk": ("rocm-core", "rocprofiler-register"),
    "rocprofiler-systems": ("rocm-core",),
    "rocrand": ("rocm-core", "hip-runtime-amd"),
    "rocrand-dev": ("rocm-core", "rocrand"),
    "rocsolver": ("rocm-core", "rocblas"),
    "rocsolver-dev": ("rocm-core", "rocsolver"),
    "rocsparse": ("rocm-core", "hip-runtime-amd"),
    "rocsparse-dev": ("rocm-core", "rocsparse"),
    "roctracer": ("rocm-core", "hip-runtime-amd"),
    "rocthrust-dev": ("rocm-core", "rocprim-dev"),
    "rocwmma-dev": _RUNTIME,
}
# Installed by AMD's installer on many boxes; never wanted on this chip.
DRIVER = ("amdgpu-dkms", "amdgpu-install")


def version(package: str, release: str) -> str:
    """Version of a package in a ROCm release."""
    if package in BARE:
        return f"{BARE[package][release[0]]}-{BUILDS[release].partition('-')[2]}"
    own = OWN_7_2 if release.startswith("7.2") else OWN
    return f"{own.get(package, release)}.{BUILDS[release]}"


def packages(release: str) -> list[Deb]:
    """Every package of a release; each depends on its exact companions."""
    return [_package(name, release) for name in DEPENDS]


def _package(name: str, release: str) -> Deb:
    prefix = f"/opt/rocm-{release}"
    files = {f"{prefix}/share/doc/{name}/README": f"{name} {release}\n"}
    if name != "rocm-core":
        return Deb(
            name,
            version(name, release),
            _exact(name, release),
            files | _extra(name, prefix),
            maintainer=MAINTAINERS.get(name, Deb.maintainer),
        )
    conf = "/etc/ld.so.conf.d/20-rocm-core.conf"
    files |= {f"{prefix}/.info/version": f"{release}\n", conf: f"{prefix}/lib\n"}
    return Deb(
        name,
        version(name, release),
        (),
        files,
        conffiles=(conf,),
        postinst=f"ln -sfn {prefix} /opt/rocm",
        prerm='[ "$1" = upgrade ] || rm -f /opt/rocm',
    )


def _exact(name: str, release: str) -> tuple[str, ...]:
    return tuple(
        f"{needed} (= {version(needed, release)})" if needed in DEPENDS else needed
        for needed in DEPENDS[name]
    )


def _extra(name: str, prefix: str) -> dict[str, str]:
    return {
        "rocminfo": {f"{prefix}/bin/rocminfo": "#!/bin/sh\necho 'Name: gfx1100'\n"},
        "hip-runtime-amd": {f"{prefix}/lib/libamdhip64.so": "stand-in\n"},
        "roctracer": {f"{prefix}/lib/libroctx64.so.4": "stand-in\n"},
    }.get(name, {})


def driver_packages() -> list[Deb]:
    """What AMD's installer adds: its kernel module package and itself.

    Their versions are the driver's own, as since ROCm 7: one driver goes with several releases.
    """
    build = "30100100-2212064.24.04"
    conf = "/etc/amdgpu-install/amdgpu-setup.conf"
    return [
        Deb(
            "amdgpu-dkms",
            f"1:6.14.14.{build}",
            files={"/usr/src/amdgpu-6.14.14/dkms.conf": "PACKAGE_NAME=amdgpu\n"},
            maintainer="AMD Gfx Linux Support <gfx.linux.support@amd.com>",
        ),
        Deb(
            "amdgpu-install",
            f"30.10.1.0.{build}",
            files={"/usr/bin/amdgpu-install": "#!/bin/sh\n", conf: "ROCM=yes\n"},
            conffiles=(conf,),
            maintainer="AMD Gfx Linux Support <gfx.linux.support@amd.com>",
            architecture="amd64",
        ),
    ]


def universe_trap() -> list[Deb]:
    """Ubuntu's own parts of ROCm, which sort above AMD's: rocminfo is 1.0.0.60402 there."""
    return [
        Deb(
            name,
            version,
            files={f"/usr/bin/{name}": "#!/bin/sh\necho universe\n"},
            maintainer="Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>",
        )
        for name, version in (("rocminfo", "5.7.1-3build1"), ("hipcc", "5.7.1-3"))
    ]
