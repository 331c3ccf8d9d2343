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

# Versions of their own; the others, which only name what is to be there, carry the release's.
# 6.4.2 from an apt log of its removal; 6.4.1 from the URLs of Arch's opencl-amd-dev; 6.3.4 from a
# Dockerfile that compares them. What those leave out, and 7.2.1, is of AMD's release notes, and
# where 7.2.1 is not known at all it is as in 6.4.2.
# RELEASE is the number in the build: roctracer 4.1.60402.60402-120~24.04.
OWN = {
    "amd-smi-lib": "25.5.1",
    "comgr": "3.0.0",
    "composablekernel-dev": "1.1.0",
    "half": "1.12.0",
    "hip-dev": "6.4.43484",
    "hip-doc": "6.4.43484",
    "hip-runtime-amd": "6.4.43484",
    "hip-samples": "6.4.43484",
    "hipblas": "2.4.0",
    "hipblas-common-dev": "1.0.0",
    "hipblas-dev": "2.4.0",
    "hipblaslt": "0.12.1",
    "hipblaslt-dev": "0.12.1",
    "hipcc": "1.1.1",
    "hipcub-dev": "3.4.0",
    "hipfft": "1.0.18",
    "hipfft-dev": "1.0.18",
    "hipfort-dev": "0.6.0",
    "hipify-clang": "19.0.0",
    "hiprand": "2.12.0",
    "hiprand-dev": "2.12.0",
    "hipsolver": "2.4.0",
    "hipsolver-dev": "2.4.0",
    "hipsparse": "3.2.0",
    "hipsparse-dev": "3.2.0",
    "hipsparselt": "0.2.3",
    "hipsparselt-dev": "0.2.3",
    "hiptensor": "1.5.0",
    "hiptensor-dev": "1.5.0",
    "hsa-amd-aqlprofile": "1.0.0",
    "hsa-rocr": "1.15.0",
    "hsa-rocr-dev": "1.15.0",
    "migraphx": "2.12.0",
    "migraphx-dev": "2.12.0",
    "miopen-hip": "3.4.0",
    "miopen-hip-dev": "3.4.0",
    "mivisionx": "3.2.0",
    "mivisionx-dev": "3.2.0",
    "openmp-extras-dev": "18.63.0",
    "openmp-extras-runtime": "18.63.0",
    "rccl": "2.22.3",
    "rccl-dev": "2.22.3",
    "rocalution": "3.2.3",
    "rocalution-dev": "3.2.3",
    "rocblas": "4.4.1",
    "rocblas-dev": "4.4.1",
    "rocfft": "1.0.32",
    "rocfft-dev": "1.0.32",
    "rocm-cmake": "0.14.0",
    "rocm-dbgapi": "0.77.2",
    "rocm-debug-agent": "2.0.4",
    "rocm-device-libs": "1.0.0",
    "rocm-gdb": "15.2",
    "rocm-llvm": "19.0.0.25224",
    "rocm-opencl": "2.0.0",
    "rocm-opencl-dev": "2.0.0",
    "rocm-smi-lib": "7.5.0",
    "rocminfo": "1.0.0",
    "rocprim-dev": "3.4.1",
    "rocprofiler": "2.0.RELEASE",
    "rocprofiler-compute": "3.1.1",
    "rocprofiler-dev": "2.0.RELEASE",
    "rocprofiler-plugins": "2.0.RELEASE",
    "rocprofiler-register": "0.4.0",
    "rocprofiler-sdk": "0.6.0",
    "rocprofiler-sdk-roctx": "0.6.0",
    "rocprofiler-systems": "1.0.2",
    "rocrand": "3.3.0",
    "rocrand-dev": "3.3.0",
    "rocsolver": "3.28.2",
    "rocsolver-dev": "3.28.2",
    "rocsparse": "3.4.0",
    "rocsparse-dev": "3.4.0",
    "rocthrust-dev": "3.3.0",
    "roctracer": "4.1.RELEASE",
    "roctracer-dev": "4.1.RELEASE",
    "rocwmma-dev": "1.7.0",
    "rpp": "1.9.10",
    "rpp-dev": "1.9.10",
}
# What differs from 6.4.2; of a library and its -dev package the library alone is named.
OTHER: dict[str, dict[str, str]] = {
    "6.4.1": {
        "amd-smi-lib": "25.4.2",
        "hip-dev": "6.4.43483",
        "hip-doc": "6.4.43483",
        "hip-runtime-amd": "6.4.43483",
        "hip-samples": "6.4.43483",
        "rocblas": "4.4.0",
        "rocm-llvm": "19.0.0.25184",
        "rocprim-dev": "3.4.0",
        "rocprofiler-compute": "3.1.0",
        "rocprofiler-systems": "1.0.1",
        "rocsolver": "3.28.0",
    },
    "6.3.4": {
        "amd-smi-lib": "25.1.0",
        "comgr": "2.8.0",
        "hip-dev": "6.3.42134",
        "hip-doc": "6.3.42134",
        "hip-runtime-amd": "6.3.42134",
        "hip-samples": "6.3.42134",
        "hipblas": "2.3.0",
        "hipblaslt": "0.10.0",
        "hipcub-dev": "3.3.0",
        "hipfft": "1.0.17",
        "hipfort-dev": "0.5.1",
        "hipify-clang": "18.0.0",
        "hiprand": "2.11.1",
        "hipsolver": "2.3.0",
        "hipsparse": "3.1.2",
        "hipsparselt": "0.2.2",
        "hiptensor": "1.4.0",
        "hsa-rocr": "1.14.0",
        "migraphx": "2.11.0",
        "miopen-hip": "3.3.0",
        "mivisionx": "3.1.0",
        "rccl": "2.21.5",
        "rocalution": "3.2.1",
        "rocblas": "4.3.0",
        "rocfft": "1.0.31",
        "rocm-dbgapi": "0.77.0",
        "rocm-debug-agent": "2.0.3",
        "rocm-llvm": "18.0.0.25012",
        "rocm-smi-lib": "7.4.0",
        "rocprim-dev": "3.3.0",
        "rocprofiler-compute": "3.0.0",
        "rocprofiler-sdk": "0.5.0",
        "rocprofiler-sdk-roctx": "0.5.0",
        "rocprofiler-systems": "0.1.2",
        "rocrand": "3.2.0",
        "rocsolver": "3.27.0",
        "rocsparse": "3.3.0",
        "rocwmma-dev": "1.6.0",
        "rpp": "1.9.1",
    },
    "7.2.1": {
        "amd-smi-lib": "26.2.2",
        "hip-dev": "7.2.53211",
        "hip-doc": "7.2.53211",
        "hip-runtime-amd": "7.2.53211",
        "hip-samples": "7.2.53211",
        "hipblas": "3.2.0",
        "hipblaslt": "1.2.2",
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
        "rocm-llvm": "22.0.0.26084",
        "rocm-smi-lib": "7.8.0",
        "rocprofiler-sdk": "1.1.0",
        "rocprofiler-sdk-roctx": "1.1.0",
        "rocrand": "4.2.0",
        "rocsolver": "3.32.0",
        "rocsparse": "4.2.0",
    },
}
# These have no build number, only the revision of the release that they were built with.
BARE = ("rocprofiler-sdk", "rocprofiler-sdk-roctx")
# Whom the others name is Deb's default; this one has an address that is nobody's at AMD.
MAINTAINERS = {"rocprofiler-systems": "https://github.com/ROCm/rocprofiler-systems"}

_RUNTIME = ("rocm-core",)
# AMD's own where the repository of its driver is known to apt, else Ubuntu's: that log installs the
# one before hsa-rocr, and images that know rocm/apt alone install rocm-hip-libraries. Of what a
# package needs, only AMD's own packages and this are here.
LIBDRM = "libdrm-amdgpu-amdgpu1 | libdrm-amdgpu1"
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
    "hsa-amd-aqlprofile": ("rocm-core", "hsa-rocr"),
    "hsa-rocr": ("rocm-core", "rocprofiler-register", LIBDRM),
    "hsa-rocr-dev": ("rocm-core", "hsa-rocr"),
    "migraphx": ("rocm-core", "miopen-hip", "rocblas"),
    "migraphx-dev": ("rocm-core", "migraphx"),
    "miopen-hip": ("rocm-core", "hip-runtime-amd", "rocblas"),
    "miopen-hip-dev": ("rocm-core", "miopen-hip"),
    "mivisionx": ("rocm-core", "rpp", "miopen-hip", "migraphx", "rocblas", "openmp-extras-runtime"),
    "mivisionx-dev": ("rocm-core", "mivisionx", "rpp-dev"),
    "openmp-extras-dev": (
        *("rocm-core", "openmp-extras-runtime", "rocm-llvm", "rocm-device-libs", "hsa-rocr-dev"),
    ),
    "openmp-extras-runtime": _RUNTIME,
    "rccl": ("rocm-core", "hip-runtime-amd", "rocm-smi-lib"),
    "rccl-dev": ("rocm-core", "rccl"),
    "rocalution": ("rocm-core", "rocblas", "rocsparse"),
    "rocalution-dev": ("rocm-core", "rocalution"),
    "rocblas": ("rocm-core", "hip-runtime-amd"),
    "rocblas-dev": ("rocm-core", "rocblas"),
    "rocfft": ("rocm-core", "hip-runtime-amd"),
    "rocfft-dev": ("rocm-core", "rocfft"),
    "rocm": (
        *("rocm-core", "rocm-utils", "rocminfo", "rocm-cmake", "rocm-developer-tools"),
        *("rocm-openmp-sdk", "rocm-opencl-sdk", "rocm-ml-sdk", "mivisionx-dev", "migraphx-dev"),
        "rpp-dev",
    ),
    "rocm-cmake": _RUNTIME,
    "rocm-dbgapi": ("rocm-core", "comgr"),
    "rocm-debug-agent": ("rocm-core", "hsa-rocr", "rocm-dbgapi"),
    "rocm-developer-tools": (
        *("rocm-core", "amd-smi-lib", "hsa-amd-aqlprofile", "rocm-dbgapi", "rocm-debug-agent"),
        *("rocm-gdb", "rocm-smi-lib", "rocprofiler-compute", "rocprofiler-dev"),
        *("rocprofiler-plugins", "rocprofiler-register", "rocprofiler-sdk"),
        *("rocprofiler-sdk-roctx", "rocprofiler-systems", "roctracer-dev"),
    ),
    "rocm-device-libs": _RUNTIME,
    "rocm-gdb": ("rocm-core", "rocm-dbgapi"),
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
    "rocm-ml-libraries": ("rocm-core", "rocm-hip-libraries", "half", "miopen-hip", "rocm-llvm"),
    "rocm-ml-sdk": ("rocm-core", "rocm-ml-libraries", "rocm-hip-sdk", "miopen-hip-dev"),
    "rocm-opencl": ("rocm-core", "comgr", "hsa-rocr"),
    "rocm-opencl-dev": ("rocm-core", "rocm-opencl"),
    "rocm-opencl-runtime": ("rocm-core", "rocm-language-runtime", "rocm-opencl"),
    "rocm-opencl-sdk": ("rocm-core", "rocm-opencl-runtime", "rocm-opencl-dev", "hsa-rocr-dev"),
    "rocm-openmp-sdk": (
        *("rocm-core", "rocm-language-runtime", "openmp-extras-dev", "rocm-llvm"),
        *("rocm-device-libs", "hsa-rocr-dev", "comgr"),
    ),
    "rocm-smi-lib": ("rocm-core", "python3"),
    "rocm-utils": ("rocm-core", "rocm-cmake", "rocminfo"),
    "rocminfo": ("rocm-core",),
    "rocprim-dev": _RUNTIME,
    "rocprofiler": ("rocm-core", "hsa-rocr", "rocminfo", "roctracer"),
    "rocprofiler-compute": ("rocm-core", "rocprofiler", "rocm-smi-lib", "python3"),
    "rocprofiler-dev": ("rocm-core", "rocprofiler", "hsa-rocr-dev"),
    "rocprofiler-plugins": ("rocm-core", "rocprofiler", "roctracer"),
    "rocprofiler-register": _RUNTIME,
    "rocprofiler-sdk": ("rocm-core", "rocprofiler-register"),
    "rocprofiler-sdk-roctx": ("rocm-core", "rocprofiler-register"),
    "rocprofiler-systems": ("rocm-core", "rocprofiler-sdk", "rocm-smi-lib"),
    "rocrand": ("rocm-core", "hip-runtime-amd"),
    "rocrand-dev": ("rocm-core", "rocrand"),
    "rocsolver": ("rocm-core", "rocblas"),
    "rocsolver-dev": ("rocm-core", "rocsolver"),
    "rocsparse": ("rocm-core", "hip-runtime-amd"),
    "rocsparse-dev": ("rocm-core", "rocsparse"),
    "roctracer": ("rocm-core", "hip-runtime-amd"),
    "roctracer-dev": ("rocm-core", "roctracer", "hsa-rocr-dev"),
    "rocthrust-dev": ("rocm-core", "rocprim-dev"),
    "rocwmma-dev": _RUNTIME,
    "rpp": ("rocm-core", "half", "hip-runtime-amd", "openmp-extras-runtime"),
    "rpp-dev": ("rocm-core", "rpp"),
}
# What can be installed once for each release, side by side, by names that end with the release.
MULTI_VERSION = (
    *("comgr", "hip-runtime-amd", "hsa-rocr", "openmp-extras-runtime", "rocm-cmake", "rocm-core"),
    *("rocm-device-libs", "rocm-hip-runtime", "rocm-language-runtime", "rocm-llvm", "rocminfo"),
    "rocprofiler-register",
)
AMD_GRAPHICS = "AMD Gfx Linux Support <gfx.linux.support@amd.com>"


def version(package: str, release: str) -> str:
    """Version of a package in a ROCm release."""
    build = BUILDS[release]
    different = OTHER.get(release, {})
    own = different.get(package) or different.get(package.removesuffix("-dev"))
    own = (own or OWN.get(package, release)).replace("RELEASE", build.partition("-")[0])
    return f"{own}-{build.partition('-')[2]}" if package in BARE else f"{own}.{build}"


def packages(release: str) -> list[Deb]:
    """Every package of a release; each depends on its exact companions."""
    plain = [_package(name, release) for name in DEPENDS]
    return plain + [_package(name, release, suffix=release) for name in MULTI_VERSION]


def _package(name: str, release: str, suffix: str = "") -> Deb:
    prefix = f"/opt/rocm-{release}"
    files = {f"{prefix}/share/doc/{name}/README": f"{name} {release}\n"}
    depends = _exact(name, release, suffix)
    if name != "rocm-core":
        return Deb(
            name + suffix,
            version(name, release),
            depends,
            files | _extra(name, prefix),
            maintainer=MAINTAINERS.get(name, Deb.maintainer),
        )
    files |= {f"{prefix}/.info/version": f"{release}\n"}
    if suffix:
        # The link and the loader's entry are those of the release that was chosen for all.
        return Deb(name + suffix, version(name, release), depends, files)
    conf = "/etc/ld.so.conf.d/20-rocm-core.conf"
    return Deb(
        name,
        version(name, release),
        depends,
        files | {conf: f"{prefix}/lib\n"},
        conffiles=(conf,),
        postinst=f"ln -sfn {prefix} /opt/rocm",
        prerm='[ "$1" = upgrade ] || rm -f /opt/rocm',
    )


def _exact(name: str, release: str, suffix: str) -> tuple[str, ...]:
    return tuple(
        f"{needed}{suffix} (= {version(needed, release)})" if needed in DEPENDS else needed
        for needed in DEPENDS[name]
    )


def _extra(name: str, prefix: str) -> dict[str, str]:
    return {
        "rocminfo": {f"{prefix}/bin/rocminfo": "#!/bin/sh\necho 'Name: gfx1100'\n"},
        "hip-runtime-amd": {f"{prefix}/lib/libamdhip64.so": "stand-in\n"},
        "roctracer": {f"{prefix}/lib/libroctx64.so.4": "stand-in\n"},
    }.get(name, {})


def graphics_packages() -> list[Deb]:
    """AMD's libdrm beside Ubuntu's, as the repository of the driver of ROCm 6.4.1 has it."""
    build = "60401-2164967.24.04"
    libdrm = f"1:2.4.124.{build}"
    told = (
        ("amdgpu-core", f"1:6.4.{build}", ()),
        ("libdrm-amdgpu-common", f"1.0.0.{build}", ("amdgpu-core",)),
        ("libdrm2-amdgpu", libdrm, ("amdgpu-core",)),
        ("libdrm-amdgpu-amdgpu1", libdrm, ("libdrm2-amdgpu", "libdrm-amdgpu-common")),
        ("libdrm-amdgpu-radeon1", libdrm, ("libdrm2-amdgpu",)),
        (
            "libdrm-amdgpu-dev",
            libdrm,
            ("libdrm-amdgpu-amdgpu1", "libdrm-amdgpu-radeon1", "libdrm2-amdgpu"),
        ),
    )
    return [
        Deb(
            name,
            number,
            depends,
            {f"/opt/amdgpu/share/doc/{name}/README": f"{name}\n"},
            maintainer=AMD_GRAPHICS,
        )
        for name, number, depends in told
    ]


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
            ("amdgpu-dkms-firmware",),
            files={"/usr/src/amdgpu-6.14.14/dkms.conf": "PACKAGE_NAME=amdgpu\n"},
            maintainer=AMD_GRAPHICS,
        ),
        Deb(
            "amdgpu-dkms-firmware",
            f"1:6.14.14.{build}",
            files={"/usr/lib/firmware/updates/amdgpu/README": "stand-in\n"},
            maintainer=AMD_GRAPHICS,
        ),
        Deb(
            "amdgpu-install",
            f"30.10.1.0.{build}",
            files={"/usr/bin/amdgpu-install": "#!/bin/sh\n", conf: "ROCM=yes\n"},
            conffiles=(conf,),
            maintainer=AMD_GRAPHICS,
        ),
    ]


def universe() -> list[Deb]:
    """What Ubuntu has of its own.

    Its parts of ROCm sort above AMD's: rocminfo is 1.0.0.60402 there.
    """
    told: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("rocminfo", "5.7.1-3build1", {"/usr/bin/rocminfo": "#!/bin/sh\necho universe\n"}),
        ("hipcc", "5.7.1-3", {"/usr/bin/hipcc": "#!/bin/sh\necho universe\n"}),
        ("libdrm-amdgpu1", "2.4.122-1~ubuntu0.24.04.1", {}),
    )
    return [
        Deb(
            name,
            number,
            files=files,
            maintainer="Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>",
        )
        for name, number, files in told
    ]
