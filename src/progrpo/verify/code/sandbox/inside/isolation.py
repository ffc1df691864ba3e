"""The layers of isolation, on Linux with ctypes alone; ``Isolation`` in process.py says what each of them adds.

Each layer is applied if the kernel allows it, and the process reports which layers did not take effect.
"""

import ctypes
import errno
import os
import resource
import struct
from contextlib import suppress
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

NOBODY = 65534
INODES = 1000
THREADS = 512
"""The limit on the threads of all programs of one helper together; the address space limits a single program's."""
OPEN_FILES = 64
STACK_BYTES = 128 << 20

# -- prctl -------------------------------------------------------------------------------------------------------------
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9


def _call(name: str, *arguments: object, what: str = "") -> int:
    """Call a function of the C library; raises OSError if it fails."""
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what or name}: {os.strerror(number)}")
    return result


def _prctl(option: int, *arguments: int) -> None:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _call("prctl", option, *values, what=f"prctl {option}")


def die_with_parent() -> None:
    """Have this process killed when its parent ends. A change of user undoes this, so this has to come after it."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


# -- User and namespaces -----------------------------------------------------------------------------------------------
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 1 << 17, 1 << 27, 1 << 28, 1 << 29, 1 << 30
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18


def drop_root(libraries: list[str]) -> None:
    """Change root to the user nobody, if that user can read the interpreter's libraries.

    If the libraries are in root's home, the process keeps root's user id, but in its own user namespace, where it has
    no rights over anything outside.
    """
    if os.geteuid() == 0 and all(_anybody_can_read(path) for path in libraries):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _anybody_can_read(path: str) -> bool:
    while path != "/":
        if os.path.exists(path) and os.stat(path).st_mode & 0o005 != 0o005:
            return False
        path = os.path.dirname(path)
    return True


def enter_namespaces() -> None:
    """Give the helper its own users, an empty network, its own IPC, and process ids for its children.

    The programs of one helper share everything except the process ids, because a network for each would take most of
    the time. They can't meet in that network: they can neither make a socket (seccomp) nor reach another program's Unix
    socket (Landlock).
    """
    user, group = os.geteuid(), os.getegid()
    _prctl(_PR_SET_DUMPABLE, 1)  # otherwise, after a change of user, the process does not own its own /proc files
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWPID)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def new_process_ids() -> None:
    """Make the next child the first process of its own namespace: when it ends, everything that it started ends.

    The setting would stay for later children, so each call first returns to the helper's own namespace.
    """
    with open("/proc/self/ns/pid") as namespace:
        _call("setns", namespace.fileno(), _CLONE_NEWPID)
    _call("unshare", _CLONE_NEWPID)


def mount_own_tmp(megabytes: int) -> None:
    """Replace the machine's /tmp by one in memory, with a quota of bytes and of files."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None, what="mount /")
    options = f"size={megabytes}m,nr_inodes={INODES},mode=0700".encode()
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options, what="mount /tmp")


# -- Limits ------------------------------------------------------------------------------------------------------------


def drop_capabilities() -> None:
    """Give up all of root's rights, even those that a user namespace gives over itself."""
    version_3, this_process = 0x20080522, 0
    none = struct.pack("=6I", *[0] * 6)
    _call("capset", struct.pack("=Ii", version_3, this_process), none)


def limit_resources(*, cpu_seconds: float, memory_mb: int, file_mb: int, own_user_namespace: bool) -> None:
    """Bound memory, CPU time, file size, threads and open files; no bound but the stack's can be raised again.

    The kernel counts threads by user. In the helper's user namespace, these are the threads of its programs; outside
    of it, the trainer's threads would count too.
    """
    limits = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_CPU: int(cpu_seconds) + 2,
        resource.RLIMIT_FSIZE: file_mb << 20,
        resource.RLIMIT_STACK: STACK_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if own_user_namespace:
        limits[resource.RLIMIT_NPROC] = THREADS
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, hard if name == resource.RLIMIT_STACK else most))


# -- Landlock ----------------------------------------------------------------------------------------------------------
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _RULE_PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_CHANGE = _WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | _TRUNCATE  # remove and make folders and files
_FILE_ACCESS = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}  # by the version that brought it
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_FILES = ("/etc/ld.so.cache", "/dev/urandom")


def landlock_version() -> int:
    """The kernel's Landlock version, 0 if it has none."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))


def restrict_files(readable: list[str], writable: list[str]) -> None:
    """Allow access only to the readable and writable folders, and no TCP, signal or abstract socket to the outside.
    Raises OSError if the kernel has no Landlock."""
    version = landlock_version()
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    files = sum(access for since, access in _FILE_ACCESS.items() if since <= version)
    network = 0b11 if version >= 4 else 0
    scoped = 0b11 if version >= 6 else 0
    attributes = struct.pack("=QQQ", files, network, scoped)  # older kernels accept fields that are 0
    size = ctypes.c_size_t(len(attributes))
    ruleset = _call("syscall", _CREATE_RULESET, attributes, size, 0, what="landlock_create_ruleset")
    for path in (*readable, *_LIBRARIES):
        _allow(ruleset, path, _READ_FILE | _READ_DIR | _EXECUTE)
    for path in _FILES:
        _allow(ruleset, path, _READ_FILE)
    _allow(ruleset, "/dev/null", _READ_FILE | _WRITE_FILE)
    for path in writable:
        _allow(ruleset, path, (_READ_FILE | _READ_DIR | _CHANGE) & files)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _call("syscall", _RESTRICT_SELF, ruleset, 0, what="landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):
                access &= ~_READ_DIR
            rule = struct.pack("=Qi", access, handle)
            _call("syscall", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0, what=f"landlock_add_rule {path}")
        finally:
            os.close(handle)


# -- seccomp -----------------------------------------------------------------------------------------------------------
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (x86_64, aarch64); -1 where the architecture has no such call.
_DENIED = {
    # Sockets, and passing descriptors.
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "recvmsg": (47, 212),
    "sendmmsg": (307, 269), "recvmmsg": (299, 243),
    # Programs, and other processes. (New processes: see clone below.)
    "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    # Mounts, namespaces, users.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "capset": (126, 91),
    "chown": (92, 55), "fchown": (93, 55), "lchown": (94, 54), "fchownat": (260, 54),
    # Calls that Landlock does not cover: attributes of the user's own files, and truncate on old kernels.
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, -1),
    "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45),
    "inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    # The scheduling of other processes, and the machine's disks.
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "setpgid": (109, 154),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "sync": (162, 81), "syncfs": (306, 267),
    # Links and devices.
    "link": (86, 37), "linkat": (265, 37), "symlink": (88, 36), "symlinkat": (266, 36), "mknod": (133, 33),
    "mknodat": (259, 33), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # Memory and messages outside the limits.
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191), "msgget": (68, 186), "mq_open": (240, 180),
    # The kernel's larger interfaces.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_setup": (206, 0),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "fanotify_init": (300, 262), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "personality": (135, 92),
    "iopl": (172, -1), "ioperm": (173, -1), "fork": (57, -1), "vfork": (58, -1),
}  # fmt: skip
_CLONE3 = 435
_AF_UNIX = 1
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902
_CLONE_THREAD = 1 << 16
_X32_BIT = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_DENY, _NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_NR, _ARCH, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24


def _statement(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


@cache
def call_filter(own_pid: int, machine: str = os.uname().machine) -> bytes:
    """The seccomp filter's program: denied calls fail with EPERM, and calls of another architecture end the process.
    Raises OSError if the machine is neither x86-64 nor 64-bit ARM."""
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"there is no filter for {machine}")
    column = 0 if machine == "x86_64" else 1
    denied = sorted({numbers[column] for numbers in _DENIED.values()} - {-1})
    program = [
        _statement(_LOAD, _ARCH),
        _statement(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NR),
    ]
    if machine == "x86_64":
        program += [_statement(_JUMP_GREATER_EQUAL, _X32_BIT, 0, 1), _statement(_RETURN, _KILL)]
    for number in denied:
        program += [_statement(_JUMP_EQUAL, number, 0, 1), _statement(_RETURN, _DENY)]
    # clone3's flags are behind a pointer; without it, glibc falls back to clone, whose flags the filter can read.
    program += [_statement(_JUMP_EQUAL, _CLONE3, 0, 1), _statement(_RETURN, _NO_SUCH_CALL)]
    for numbers, argument, test, values, then, otherwise in (
        # clone makes threads, but no processes. abort() and thread libraries signal their own threads with tgkill.
        ((56, 220), _FIRST_ARGUMENT, _JUMP_SET, [_CLONE_THREAD], _ALLOW, _DENY),
        ((234, 131), _FIRST_ARGUMENT, _JUMP_EQUAL, [own_pid], _ALLOW, _DENY),
        # prlimit64: a process may set its own limits, which can only become stricter.
        ((302, 261), _FIRST_ARGUMENT, _JUMP_EQUAL, [0], _ALLOW, _DENY),
        # socketpair: asyncio talks to itself over a pair of sockets, which no other process can reach.
        ((53, 199), _FIRST_ARGUMENT, _JUMP_EQUAL, [_AF_UNIX], _ALLOW, _DENY),
        # prctl: the tie to the parent and the protection of the memory must stay.
        ((157, 167), _FIRST_ARGUMENT, _JUMP_EQUAL, [_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE], _DENY, _ALLOW),
        # fcntl, ioctl: a file can send signals to its owner, and these calls set the owner.
        ((72, 25), _SECOND_ARGUMENT, _JUMP_EQUAL, [_F_SETOWN, _F_SETSIG, _F_SETOWN_EX], _DENY, _ALLOW),
        ((16, 29), _SECOND_ARGUMENT, _JUMP_EQUAL, [_FIOSETOWN, _SIOCSPGRP], _DENY, _ALLOW),
    ):
        program += [
            _statement(_JUMP_EQUAL, numbers[column], 0, len(values) + 3),
            _statement(_LOAD, argument),
            *(_statement(test, value, len(values) - i, 0) for i, value in enumerate(values)),
            _statement(_RETURN, otherwise),
            _statement(_RETURN, then),
        ]
    return b"".join([*program, _statement(_RETURN, _ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict_calls() -> None:
    """Deny the system calls that a program under test does not need, in this process and all its later threads.
    Raises OSError if the kernel has no seccomp filters, or for this machine there is no filter."""
    text = call_filter(os.getpid())
    program = _Program(len(text) // 8, text)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def hide_memory() -> None:
    """Keep other processes of the same user from reading this one's memory or environment."""
    _prctl(_PR_SET_DUMPABLE, 0)
