"""Pasted errors are explained, whatever is pasted."""

from __future__ import annotations

import re
import time

import pytest
from boxtools.doctor.symptoms import MOST, catalogue, explain, pieces
from hypothesis import given, settings
from hypothesis import strategies as st

# What users paste, as programs print it.
PASTED = {
    "MEMORY.GPU": [
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.34 GiB. GPU 0 has a total"
        " capacity of 15.50 GiB of which 1.2 GiB is free.",
        "Error: CUDA out of memory. Tried to allocate 2.34 GiB",
        "RuntimeError: HIP error: out of memory",
    ],
    "MEMORY.RESOURCES": [
        ":0:rocdevice.cpp:2984: Callback: Queue aborting with error: "
        "HSA_STATUS_ERROR_OUT_OF_RESOURCES: The runtime failed to allocate the necessary resources."
    ],
    "MEMORY.OOM_KILLER": [
        "Out of memory: Killed process 4711 (python) total-vm:123456kB",
        "comfyui.service: Main process exited, code=killed, status=9/KILL",
        "Killed",
    ],
    "MEMORY.OUT": [
        "MemoryError",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't"
        " allocate memory: you tried to allocate 9000 bytes.",
        "RuntimeError: out of memory",
    ],
    "DISK.FULL": ["OSError: [Errno 28] No space left on device: '/opt/x'"],
    "GPU.WRONG_CODE": ["RuntimeError: HIP error: invalid device function"],
    "GPU.NO_CODE": [
        "RuntimeError: HIP error: no kernel image is available for execution on the device"
    ],
    "GPU.TENSILE": [
        "rocBLAS error: Cannot read /opt/rocm/lib/rocblas/library/TensileLibrary.dat: Illegal seek"
        " for GPU arch : gfx1151"
    ],
    "GPU.UNSUPPORTED_TEXT": ["Error: Unsupported GFX version"],
    "GPU.PAGE_FAULT": [
        "Memory access fault by GPU node-1 (Agent handle: 0x55d0) on address 0x7f0000. Reason: Page"
        " not present or supervisor privilege.",
    ],
    "GPU.HANG": [
        "HW Exception by GPU node-1 (Agent handle: 0x5) reason :GPU Hang",
        "amdgpu 0000:c5:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE",
    ],
    "GPU.SEGFAULT": ["Segmentation fault (core dumped)"],
    "TORCH.NO_GPU": [
        "RuntimeError: No HIP GPUs are available",
        ">>> torch.cuda.is_available()  False",
    ],
    "TORCH.CUDA_BUILD": [
        "AssertionError: Torch not compiled with CUDA enabled",
        "OSError: libcudart.so.12: cannot open shared object file",
    ],
    "TORCH.LIBRARY": [
        "ImportError: libamdhip64.so.6: cannot open shared object file: No such file or directory"
    ],
    "TORCH.SYMBOL": [
        "undefined symbol: _ZN3c106detail14torchCheckFailEPKcS2_jRKSs",
        "RuntimeError: operator torchvision::nms does not exist",
    ],
    "TORCH.NO_WHEEL": ["ERROR: No matching distribution found for torch==2.6.0+rocm6.4"],
    "TORCH.NUMPY": [
        "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.0 as it may crash."
    ],
    "TORCH.XFORMERS": [
        "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:"
    ],
    "TORCH.HIPBLASLT": [
        "UserWarning: Attempting to use hipBLASLt on an unsupported architecture! Overriding blas"
    ],
    "TORCH.AOTRITON": [
        "UserWarning: Flash Efficient attention on Current AMD GPU is still experimental."
    ],
    "TORCH.ALLOC_CONF": ["UserWarning: expandable_segments not supported on this platform"],
    "TORCH.MIOPEN": ["RuntimeError: miopenStatusUnknownError"],
    "TORCH.TUNABLEOP": ["results validator check failed"],
    "ACCESS.KFD": ["Unable to open /dev/kfd read-write: Permission denied"],
    "ACCESS.MODULE": ["ROCk module is NOT loaded, possibly no GPU devices"],
    "ACCESS.DENIED": ["PermissionError: [Errno 13] Permission denied: '/opt/strixbox/x'"],
    "ACCESS.GIT": ["fatal: detected dubious ownership in repository at '/home/a/ComfyUI'"],
    "START.FLAG": [
        "main.py: error: unrecognized arguments: --normalvram",
        "main.py: error: argument --lowvram: not allowed with argument --highvram",
    ],
    "START.DATABASE": ["sqlite3.OperationalError: unable to open database file"],
    "START.PORT": [
        "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8188): address"
        " already in use"
    ],
    "START.UNIT": ["comfyui.service: Start request repeated too quickly."],
    "START.NODE": ["   0.1 seconds (IMPORT FAILED): /home/a/ComfyUI/custom_nodes/x"],
    "START.MODULE": ["ModuleNotFoundError: No module named 'cv2'"],
    "MODEL.NOT_LISTED": [
        "Value not in list: ckpt_name: 'a.safetensors' not in ['sd_xl_base_1.0.safetensors']"
    ],
    "MODEL.TRUNCATED": [
        "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
        "SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    ],
    "MODEL.WEB_PAGE": ["_pickle.UnpicklingError: invalid load key, '<'."],
    "MODEL.UNKNOWN_KIND": ["RuntimeError: ERROR: Could not detect model type of: /a/b.safetensors"],
    "MODEL.PICKLE": ["_pickle.UnpicklingError: Weights only load failed."],
    "MODEL.MIXED": ["mat1 and mat2 shapes cannot be multiplied (77x2048 and 768x320)"],
    "IMAGE.BLACK": [
        "RuntimeWarning: invalid value encountered in cast",
    ],
    "APT.INTERRUPTED": [
        "E: dpkg was interrupted, you must manually run 'sudo dpkg --configure -a'"
    ],
    "APT.LOCK": ["E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1"],
    "APT.KEY": ["The following signatures couldn't be verified: NO_PUBKEY 9386B48A1A693C5C"],
    "APT.CLOCK": ["Release file for https://x is not valid yet (invalid for another 3h)"],
    "APT.UNMET": ["The following packages have unmet dependencies: rocm-hip-runtime"],
    "APT.DKMS": ["Error! Bad return status for module build on kernel: 6.14.0-1018-oem"],
    "PIP.MANAGED": ["error: externally-managed-environment"],
    "NET.TLS": ["SSLCertVerificationError: certificate verify failed: self-signed certificate"],
    "NET.NAME": ["Temporary failure in name resolution"],
    "NET.REFUSED": [
        "ConnectionRefusedError: [Errno 111] Connection refused",
        "curl: (7) Failed to connect to 127.0.0.1 port 8188 after 0 ms: Couldn't connect to server",
    ],
}
# What people write of it, and programs do not.
SPOKEN = {
    "MEMORY.OUT": ["out of memory", "ComfyUI says: Out of memory!"],
    "NET.REFUSED": ["Connection refused", "127.0.0.1 refused to connect."],
    "IMAGE.BLACK": ["all my images are black"],
}


@pytest.mark.parametrize("code", PASTED)
def test_a_real_message_is_explained_first(code: str) -> None:
    for text in PASTED[code]:
        matches = explain(f"Traceback (most recent call last):\n  some line\n{text}\n")
        assert matches, text
        assert matches[0].code == code
        assert matches[0].confidence >= 50


@pytest.mark.parametrize("code", SPOKEN)
def test_words_of_people_are_explained_and_not_looked_for_in_a_log(code: str) -> None:
    for text in SPOKEN[code]:
        assert [match.code for match in explain(text, spoken=True)] == [code]
        assert explain(f"got a prompt: {text} in a castle") == []
    for told in (text for texts in PASTED.values() for text in texts):
        found = {match.code for match in explain(told, spoken=True)}
        assert found == {match.code for match in explain(told)}, told


def test_every_symptom_has_a_message() -> None:
    assert set(PASTED) == {symptom.code for symptom in catalogue()}
    assert len(catalogue()) >= 25


def test_the_best_comes_first_and_more_messages_make_it_surer() -> None:
    one = explain("Unsupported GFX version\nHIP error: invalid device function")
    assert [match.code for match in one] == ["GPU.WRONG_CODE", "GPU.UNSUPPORTED_TEXT"]
    two = explain("no kernel image is available\nhipErrorNoBinaryForGpu: Unable to find code")
    assert two[0].confidence > explain("no kernel image is available")[0].confidence


def test_harmless_messages_come_last() -> None:
    matches = explain("hipBLASLt on an unsupported architecture\nSegmentation fault")
    assert [match.harmless for match in matches] == [False, True]


@pytest.mark.parametrize("text", ["", "\0", "hello", "everything is fine", "rm -rf /", "a [b] c"])
def test_an_unknown_text_has_no_explanation(text: str) -> None:
    assert explain(text) == []


def test_nobody_is_told_to_set_the_override() -> None:
    for symptom in catalogue():
        assert not re.search(r"export HSA_OVERRIDE|set HSA_OVERRIDE", symptom.mend)
        assert symptom.source


def test_nothing_of_the_catalogue_is_cut_off() -> None:
    # In YAML a blank and # begin a comment: "#5444, #5595" would end at the comma.
    for symptom in catalogue():
        for text in (symptom.means, symptom.mend, symptom.source):
            assert not text.rstrip().endswith((",", ";")), symptom.code
    sources = {symptom.code: symptom.source for symptom in catalogue()}
    assert sources["MEMORY.GPU"] == "torch; ROCm/legacy-rocm-build#5444, #5595"


def test_patterns_are_lower_case_without_nested_repeats() -> None:
    for symptom in catalogue():
        for pattern in (*symptom.patterns, *symptom.spoken):
            plain = re.sub(r"\\[A-Z]", "", pattern)
            assert plain == plain.lower(), pattern
            assert not re.search(r"[+*}]\)[+*{]", pattern), pattern


MESSAGES = [text for texts in PASTED.values() for text in texts]


@pytest.mark.parametrize("seed", range(4))
def test_a_megabyte_is_explained_quickly(seed: int) -> None:
    part = MESSAGES[seed * 7]
    texts = [
        part * (MOST // len(part)),  # one line
        "".join(f"{number} {part[: number % 40]}\n" for number in range(30_000)),
        "a" * MOST,
        "undefined symbol: " + "torch.cuda.is_available()" * 40_000,
    ]
    begun = time.monotonic()
    explain(texts[seed], spoken=True)
    # A bound against a pattern that backtracks, which would take minutes.
    assert time.monotonic() - begun < 10


def test_the_end_of_a_long_text_counts() -> None:
    assert explain("x\n" * MOST + "HIP error: invalid device function")
    assert len(list(pieces("y" * 5000))) < 10
    assert explain("." * 990 + "invalid device function" + "." * 900)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=2000), st.sampled_from(MESSAGES))
def test_any_text_around_a_message_leaves_it_found(text: str, message: str) -> None:
    explain(text)
    assert explain(f"{text}\n{message}\n{text}")
