"""A network namespace of its own for a measurement, with a default congestion control chosen there.

Other libraries take the congestion control that the namespace has by default, and a host's default may be one
that halves the speed of loopback. Needs root, or a kernel that gives everybody user namespaces.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_DEFAULT = "/proc/sys/net/ipv4/tcp_congestion_control"
_AVAILABLE = "/proc/sys/net/ipv4/tcp_available_congestion_control"


def isolate(congestion_control: str) -> None:
    """Moves this process into a new network namespace with loopback only. Raises OSError if refused."""
    try:
        _libc("unshare", _CLONE_NEWNET)
    except PermissionError:
        _become_root_of_own()
    _loopback_up()
    with open(_DEFAULT, "w") as setting:
        setting.write(congestion_control)


def enter(pid: int) -> None:
    """Moves this process into the network namespace of another; it must have no other thread yet."""
    for kind, flag in (("user", _CLONE_NEWUSER), ("net", _CLONE_NEWNET)):
        if os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}"):
            continue
        _set(f"/proc/{pid}/ns/{kind}", flag)


def enter_path(path: str) -> None:
    """The same by a file that stands for the network namespace."""
    _set(path, _CLONE_NEWNET)


def default_congestion_control() -> str:
    """Of the namespace that this process is in; empty where it cannot be read."""
    try:
        with open(_DEFAULT) as setting:
            return setting.read().strip()
    except OSError:
        return ""


def known_congestion_controls() -> list[str]:
    """Of the kernel; empty where it does not tell."""
    try:
        with open(_AVAILABLE) as setting:
            return setting.read().split()
    except OSError:
        return []


def segments_sent() -> int:
    """TCP segments that this namespace has sent so far, acknowledgements included."""
    with open("/proc/self/net/snmp") as counters:
        names, values = (line.split() for line in counters if line.startswith("Tcp:"))
    return int(values[names.index("OutSegs")])


def _set(path: str, kind: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc("setns", fd, kind)
    finally:
        os.close(fd)


def _libc(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


def _become_root_of_own() -> None:
    uid, gid = os.getuid(), os.getgid()
    try:
        _libc("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise PermissionError(errno.EPERM, f"no network namespace: {error.strerror}") from error


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def loopback_bytes() -> int:
    """Bytes that this namespace has sent to itself so far, headers included."""
    with open("/proc/net/dev") as counters:
        words = next(line for line in counters if line.strip().startswith("lo:")).split()
    return int(words[9])
