"""The table of denied system calls against the kernel's headers, and the seccomp filter, interpreted step by step."""

import errno
import re
import struct
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("programs are isolated on Linux only", allow_module_level=True)

from progrpo.verify.code.sandbox.inside.isolation import _DENIED, call_filter

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
COLUMNS = {"x86_64": 0, "aarch64": 1}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PID = 4321
ALLOWED, DENIED = "allowed", "EPERM"


def system_calls(machine: str) -> dict[str, int]:
    """The system call numbers in the kernel's headers; without headers, the test is skipped."""
    file = next((Path(path) for path in HEADERS[machine] if Path(path).exists()), None)
    if file is None:
        pytest.skip("the kernel's headers are missing (Debian: linux-libc-dev)")
    calls = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", file.read_text(encoding="ascii"), re.MULTILINE)
    return {name: int(number) for name, number in calls}


def outcome(machine: str, number: int, *arguments: int, architecture: int | None = None) -> str:
    """What the kernel would do: classic BPF on ``struct seccomp_data``."""
    program = list(struct.iter_unpack("=HBBI", call_filter(PID, machine)))
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *values)
    place = loaded = 0
    while True:
        code, if_true, if_false, value = program[place]
        place += 1
        match code:
            case 0x20:
                [loaded] = struct.unpack_from("=I", data, value)
            case 0x15:
                place += if_true if loaded == value else if_false
            case 0x35:
                place += if_true if loaded >= value else if_false
            case 0x45:
                place += if_true if loaded & value else if_false
            case 0x06:
                errors = {0x7FFF0000: ALLOWED, 0x80000000: "killed"}
                return errors.get(value) or errno.errorcode[value - 0x00050000]


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_denied_calls_are_those_of_the_kernel(machine: str) -> None:
    numbers = system_calls(machine)
    denied = {name: pair[COLUMNS[machine]] for name, pair in _DENIED.items()}
    assert {name: numbers[name] for name in denied if name in numbers} == {
        name: number for name, number in denied.items() if name in numbers
    }
    # A header lacks calls that are newer than itself, and ARM lacks calls that a denied call has replaced.
    for name in denied.keys() - numbers.keys():
        replaced = machine == "aarch64" and denied[name] in {-1, *(numbers.get(other) for other in denied)}
        assert replaced or denied[name] > max(numbers.values()), name


@pytest.mark.parametrize("machine", HEADERS)
def test_denied_calls_fail_and_others_do_not(machine: str) -> None:
    numbers = system_calls(machine)
    for name in _DENIED:
        if name in numbers:
            assert outcome(machine, numbers[name]) == DENIED, name
    for name in ("read", "write", "openat", "close", "mmap", "futex", "exit_group", "getpid", "unlinkat", "ftruncate"):
        assert outcome(machine, numbers[name]) == ALLOWED, name
    assert outcome(machine, numbers["clone3"]) == "ENOSYS"
    assert outcome(machine, numbers["read"], architecture=0x40000003) == "killed"
    if machine == "x86_64":
        assert outcome(machine, numbers["read"] | 0x40000000) == "killed"


BY_ARGUMENT = [
    ("clone", (0x10000 | 0x100,), ALLOWED),  # a thread
    ("clone", (0x100 | 17,), DENIED),
    ("tgkill", (PID, 1, 6), ALLOWED),
    ("tgkill", (PID + 1, 1, 6), DENIED),
    ("prlimit64", (0, 9), ALLOWED),
    ("prlimit64", (PID + 1, 9), DENIED),
    ("socketpair", (1, 1), ALLOWED),
    ("socketpair", (2, 1), DENIED),
    ("prctl", (1, 0), DENIED),  # PR_SET_PDEATHSIG
    ("prctl", (4, 1), DENIED),  # PR_SET_DUMPABLE
    ("prctl", (15, 0), ALLOWED),  # PR_SET_NAME
    ("fcntl", (8, 8, PID), DENIED),  # F_SETOWN
    ("fcntl", (3, 10, 9), DENIED),  # F_SETSIG
    ("fcntl", (3, 15, 0), DENIED),  # F_SETOWN_EX
    ("fcntl", (8, 3, 0), ALLOWED),  # F_GETFL
    ("ioctl", (3, 0x8901, 0), DENIED),  # FIOSETOWN
    ("ioctl", (3, 0x8902, 0), DENIED),  # SIOCSPGRP
    ("ioctl", (3, 0x5401, 0), ALLOWED),  # TCGETS
]


@pytest.mark.parametrize("machine", HEADERS)
@pytest.mark.parametrize(("name", "arguments", "expected"), BY_ARGUMENT)
def test_calls_whose_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: str) -> None:
    assert outcome(machine, system_calls(machine)[name], *arguments) == expected
