"""How bubblewrap is called: what the program sees of this machine, and the system calls that it is refused.

It sees an interpreter with its standard library and the system's libraries, under `/python`, `/lib` and `/usr/lib`,
read only: no /proc, no /dev, no /tmp, no place to write, no network, no other process, no environment. Called by
envs.sandbox.bubblewrap.
"""

import platform
import struct
import sys
import sysconfig
from functools import cache
from pathlib import Path

PYTHON = "/python"
_NOWHERE = "65534"
"""User and group inside: nobody."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> what the kernel calls it, and its column below."""
_REFUSED = (
    # Processes and threads: with one of each, the limits of a process are the program's.
    "clone 56 220, fork 57 -, vfork 58 -",
    # Memory that is not of an address space.
    "memfd_create 319 279, memfd_secret 447 447, shmget 29 194, msgget 68 186, semget 64 190, mq_open 240 180",
    # The network, beside there being none.
    "socket 41 198, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427",
    # Namespaces, mounts, and files by other ways than their names.
    "unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, open_tree 428 428",
    "move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, mount_setattr 442 442",
    "open_by_handle_at 304 265, name_to_handle_at 303 264",
    # Corners of the kernel that no program needs here.
    "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, bpf 321 280, perf_event_open 298 241",
    "userfaultfd 323 282, keyctl 250 219, add_key 248 217, request_key 249 218, personality 135 92, kcmp 312 272",
    "kexec_load 246 104, init_module 175 105, finit_module 313 273, delete_module 176 106, pidfd_open 434 434",
)
"""System calls with their numbers on x86_64 and on aarch64, from the kernel's tables
(arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""
_CLONE3 = 435
"""Said not to exist rather than refused, so that the C library falls back to `clone`."""
_X32 = 0x40000000
_EPERM, _ENOSYS = 1, 38


def refused_calls() -> dict[str, int]:
    """Name -> number, on this machine."""
    _, column = _ARCHITECTURES[platform.machine()]
    rows = [call.split() for line in _REFUSED for call in line.split(", ")]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


@cache
def system_call_filter() -> bytes:
    """The seccomp program for this machine; empty where its system calls are not known."""
    if platform.machine() not in _ARCHITECTURES:
        return b""
    architecture, _ = _ARCHITECTURES[platform.machine()]
    numbers = list(refused_calls().values())
    load, equal, at_least, result = 0x20, 0x15, 0x35, 0x06
    kill, allow, error = 0x80000000, 0x7FFF0000, 0x00050000
    last = len(numbers)
    # Operation, how many steps to go on by where it holds and where it does not, value.
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (result, 0, 0, kill),
        (load, 0, 0, 0),
        (at_least, last + 2, 0, _X32),
        (equal, last + 2, 0, _CLONE3),
        *((equal, last - i, 0, number) for i, number in enumerate(numbers)),
        (result, 0, 0, allow),
        (result, 0, 0, error | _EPERM),
        (result, 0, 0, error | _ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def command(bwrap: str, filter_fd: int) -> list[str]:
    """bubblewrap and the interpreter; the interpreter's arguments follow.

    Args:
        bwrap: its path.
        filter_fd: an open file descriptor from which `system_call_filter` can be read, once.
    """
    return [
        bwrap,
        # Process 1 of its namespace is bubblewrap's own, which no program can reach: when that dies, all there dies.
        *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--clearenv"),
        *("--uid", _NOWHERE, "--gid", _NOWHERE, "--hostname", "sandbox"),
        *_seen(),
        *("--setenv", "PYTHONHOME", PYTHON, "--setenv", "LD_LIBRARY_PATH", f"{PYTHON}/lib"),
        # The same order in sets at every run.
        *("--setenv", "PYTHONHASHSEED", "0"),
        *("--chdir", "/", "--remount-ro", "/", "--seccomp", str(filter_fd)),
        # Neither the working directory nor site-packages nor bytecode that could be written; UTF-8.
        *(f"{PYTHON}/bin/python", "-P", "-s", "-S", "-B", "-X", "utf8"),
    ]


@cache
def _seen() -> tuple[str, ...]:
    """What is mounted: the base interpreter's executable, library and standard library, and the system's libraries."""
    base = Path(sys.base_prefix)
    standard = base / sys.platlibdir / f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = ["/lib64", "/usr/lib64", *(f"{lib}/{_multiarch()}" for lib in ("/lib", "/usr/lib")), "/etc/ld.so.cache"]
    inside = f"{PYTHON}/{sys.platlibdir}/{standard.name}"
    return (
        *(word for path in libraries for word in ("--ro-bind-try", path, path)),
        *("--ro-bind", str(Path(getattr(sys, "_base_executable", sys.executable)).resolve()), f"{PYTHON}/bin/python"),
        *("--ro-bind", str(standard), inside),
        *(word for path in _shared(base) for word in ("--ro-bind", str(path), f"{PYTHON}/lib/{path.name}")),
        *(word for path in _packages(standard) for word in _hidden(f"{inside}/{path}")),
    )


def _multiarch() -> str:
    """The folder of this machine's libraries below /lib; empty, and so all of /lib, where there is none."""
    name = sysconfig.get_config_var("MULTIARCH") or ""
    return name if Path("/usr/lib", name).is_dir() else ""


def _shared(base: Path) -> list[Path]:
    return sorted((base / "lib").glob(f"libpython{sys.version_info.major}.{sys.version_info.minor}*.so*"))


def _packages(standard: Path) -> list[str]:
    """Folders of installed packages in the standard library's, which may hold the project itself."""
    return [name for name in ("site-packages", "dist-packages") if (standard / name).is_dir()]


def _hidden(path: str) -> tuple[str, ...]:
    return ("--tmpfs", path, "--remount-ro", path)
