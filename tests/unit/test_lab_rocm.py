"""The lab's stand-in for AMD's repositories has the real names, versions and dependencies."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from strixbox.groups import read_group_data
from strixbox.rocm_versions import release_of, releases
from tests.lab.debs import Deb
from tests.lab.rocm import (
    BUILDS,
    MULTI_VERSION,
    driver_packages,
    graphics_packages,
    packages,
    universe,
    version,
)

# All 101 that apt installed with `rocm` 6.4.2 and the driver, from its log on a box of 24.04.
INSTALLED = """
amd-smi-lib amdgpu-core amdgpu-dkms amdgpu-dkms-firmware comgr composablekernel-dev half hip-dev
hip-doc hip-runtime-amd hip-samples hipblas hipblas-common-dev hipblas-dev hipblaslt hipblaslt-dev
hipcc hipcub-dev hipfft hipfft-dev hipfort-dev hipify-clang hiprand hiprand-dev hipsolver
hipsolver-dev hipsparse hipsparse-dev hipsparselt hipsparselt-dev hiptensor hiptensor-dev
hsa-amd-aqlprofile hsa-rocr hsa-rocr-dev libdrm-amdgpu-amdgpu1 libdrm-amdgpu-common
libdrm-amdgpu-dev libdrm-amdgpu-radeon1 libdrm2-amdgpu migraphx migraphx-dev miopen-hip
miopen-hip-dev mivisionx mivisionx-dev openmp-extras-dev openmp-extras-runtime rccl rccl-dev
rocalution rocalution-dev rocblas rocblas-dev rocfft rocfft-dev rocm rocm-cmake rocm-core
rocm-dbgapi rocm-debug-agent rocm-developer-tools rocm-device-libs rocm-gdb rocm-hip-libraries
rocm-hip-runtime rocm-hip-runtime-dev rocm-hip-sdk rocm-language-runtime rocm-llvm
rocm-ml-libraries rocm-ml-sdk rocm-opencl rocm-opencl-dev rocm-opencl-runtime rocm-opencl-sdk
rocm-openmp-sdk rocm-smi-lib rocm-utils rocminfo rocprim-dev rocprofiler rocprofiler-compute
rocprofiler-dev rocprofiler-plugins rocprofiler-register rocprofiler-sdk rocprofiler-sdk-roctx
rocprofiler-systems rocrand rocrand-dev rocsolver rocsolver-dev rocsparse rocsparse-dev
rocthrust-dev roctracer roctracer-dev rocwmma-dev rpp rpp-dev
"""


def names(debs: list[Deb]) -> set[str]:
    """Names of packages."""
    return {deb.package for deb in debs}


def test_every_package_of_a_real_install_is_there() -> None:
    assert len(INSTALLED.split()) == 101
    there = names([*packages("6.4.2"), *graphics_packages(), *driver_packages()])
    assert sorted(set(INSTALLED.split()) - there) == []


@pytest.mark.parametrize("release", BUILDS)
def test_what_a_package_needs_is_served_in_that_very_version(release: str) -> None:
    served = {deb.package: deb.version for deb in [*universe(), *packages(release)]}
    missing = []
    for deb in packages(release):
        for needed in deb.depends:
            ways = [way.partition(" (= ") for way in needed.split(" | ")]
            if not any(
                name == "python3" or served.get(name, "") == (number[:-1] or served.get(name))
                for name, _, number in ways
            ):
                missing.append(f"{deb.package}: {needed}")
    assert missing == []


def test_rocm_brings_everything_but_the_driver() -> None:
    debs = {deb.package: deb for deb in [*packages("6.4.2"), *graphics_packages()]}
    brought, waiting = set(), ["rocm"]
    while waiting:
        name = waiting.pop()
        if name in brought or name not in debs:
            continue
        brought.add(name)
        # apt takes the first of alternatives that it knows.
        waiting += [needed.partition(" ")[0] for needed in debs[name].depends]
    alone = {"amdgpu-dkms", "amdgpu-dkms-firmware", "libdrm-amdgpu-dev", "libdrm-amdgpu-radeon1"}
    assert sorted(set(INSTALLED.split()) - brought) == sorted(alone)


@pytest.mark.parametrize("release", BUILDS)
def test_every_version_names_its_release(release: str) -> None:
    found = releases({deb.package: deb.version for deb in packages(release)})
    assert {name: told for name, told in found.items() if told != release} == {}


def test_each_release_has_components_of_its_own() -> None:
    assert version("roctracer", "6.4.1") == "4.1.60401.60401-83~24.04"
    assert version("rocprofiler-sdk", "6.4.1") == "0.6.0-83~24.04"
    assert version("rocsolver-dev", "6.4.1") == "3.28.0.60401-83~24.04"
    assert version("hip-runtime-amd", "6.3.4") == "6.3.42134.60304-76~24.04"
    assert version("rocm-device-libs", "6.4.1") == "1.0.0.60401-83~24.04"
    for deb in packages("6.3.4"):
        assert "60402" not in deb.version


def test_releases_can_stand_side_by_side() -> None:
    plain = {path for deb in packages("6.4.1") for path in deb.files}
    beside = [deb for deb in packages("6.3.4") if deb.package.endswith("6.3.4")]
    assert len(beside) == len(MULTI_VERSION)
    assert not [path for deb in beside for path in deb.files if path in plain]
    (runtime,) = (deb for deb in beside if deb.package == "rocm-hip-runtime6.3.4")
    assert all("6.3.4 (= " in needed for needed in runtime.depends)


def test_the_pin_covers_amds_packages_and_neither_driver_nor_libdrm() -> None:
    pinned = read_group_data()["all"]["rocm_pinned"]
    loose = [
        name
        for name in sorted(names(packages("6.4.2")))
        if not name.endswith("6.4.2")  # nobody is offered those
        and not any(fnmatchcase(name, pattern) for pattern in pinned)
    ]
    assert loose == ["rocm"]  # Ubuntu 24.04 has none of that name
    for deb in [*graphics_packages(), *driver_packages()]:
        assert not any(fnmatchcase(deb.package, pattern) for pattern in pinned)


def test_the_driver_is_of_no_release() -> None:
    assert {release_of(deb.version) for deb in driver_packages()} == {None}
    assert {release_of(deb.version) for deb in graphics_packages()} == {"6.4.1"}
