"""Where a program hangs on an interface, and swapping it there without a packet passing unseen.

::

    TCX, XDP    a link: pinned, it outlives the process; its program is replaced in place (BPF_LINK_UPDATE)
    clsact      a filter under a priority of our own: replaced in place; nothing to pin, so a directory of the filter's
                name says whose it is

Owns: attaching, replacing, detaching. Does not own: which interfaces and in which order (kernel.py).
"""

import contextlib
import ctypes
import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from voicefleet_dataplane.fastpath.engine import Mode
from voicefleet_dataplane.fastpath.loader import Libbpf, checked
from voicefleet_dataplane.fastpath.netlink import Interface, has_filters
from voicefleet_dataplane.fastpath.pins import spell

INGRESS, EGRESS = "ingress", "egress"
_ATTACH_XDP, _ATTACH_TCX = 37, {INGRESS: 46, EGRESS: 47}
_XDP_GENERIC, _XDP_NATIVE = 2, 4
_TC_POINT = {INGRESS: 1, EGRESS: 2}
_TC_REPLACE = 1
_TC_HANDLE = 1


class _LinkOptions(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("rest", ctypes.c_byte * 60))


class _TcHook(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("program_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class Hooks:
    """What one relay has attached, by name in its pin directory."""

    def __init__(self, lib: Libbpf, directory: Path) -> None:
        self._lib = lib
        self._directory = directory
        # Of clsact filters: one relay of a node must not replace another's, and every version finds its own.
        self._priority = 0x8000 | zlib.crc32(directory.parent.name.encode()) & 0x3FFF

    def attach(self, mode: Mode, program_fd: int, interface: Interface, side: str) -> str:
        """Attach, or put the program in its predecessor's place; gives the name. Raises OSError."""
        name = f"{mode.value}-{side}-{spell(interface.name)}"
        if mode is Mode.CLSACT:
            self._attach_clsact(program_fd, interface, side)
            (self._directory / name).mkdir(exist_ok=True)
            return name
        pin = self._directory / name
        if pin.exists() and self._update(pin, program_fd):
            return name
        if mode is Mode.TCX:
            kind, flags = _ATTACH_TCX[side], 0
        else:
            kind, flags = _ATTACH_XDP, _XDP_NATIVE if mode is Mode.XDP_NATIVE else _XDP_GENERIC
        options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
        what = f"{mode.value} {side} on {interface.name}"
        link = checked(self._lib.bpf_link_create(program_fd, interface.ifindex, kind, ctypes.byref(options)), what)
        try:
            checked(self._lib.bpf_obj_pin(link, str(pin).encode()), f"pin of {what}")
        finally:
            os.close(link)  # the pin holds it
        return name

    def detach(self, name: str, interfaces: list[Interface]) -> None:
        """Take one away. Does nothing for an interface that is gone: what hung on it went with it."""
        pin = self._directory / name
        if not pin.is_dir():
            self._detach_link(pin)
            return
        _, side, spelled = name.split("-", 2)
        for interface in interfaces:
            if spell(interface.name) == spelled and side in _TC_POINT:
                self._detach_clsact(interface, side)
        pin.rmdir()

    def names(self) -> Iterator[str]:
        """Return what is attached, as far as the directory tells."""
        for entry in sorted(self._directory.iterdir()):
            if entry.name.split("-")[0] in set(Mode):
                yield entry.name

    def _update(self, pin: Path, program_fd: int) -> bool:
        """Swap the program of a pinned link; False when its interface is gone, and the link with it."""
        link = checked(self._lib.bpf_obj_get(str(pin).encode()), f"pinned link {pin.name}")
        try:
            result = self._lib.bpf_link_update(link, program_fd, None)
        finally:
            os.close(link)
        if checked(result, f"update of {pin.name}", errno.ENOLINK, errno.ENODEV) == 0:
            return True
        pin.unlink()
        return False

    def _detach_link(self, pin: Path) -> None:
        """At once: a link that only loses its last holder goes some time later, and its place is taken until then."""
        link = checked(self._lib.bpf_obj_get(str(pin).encode()), f"pinned link {pin.name}", errno.ENOENT)
        if link >= 0:
            self._lib.bpf_link_detach(link)  # whose interface is gone is detached already
            os.close(link)
        pin.unlink(missing_ok=True)

    def _attach_clsact(self, program_fd: int, interface: Interface, side: str) -> None:
        hook = self._hook(interface, _TC_POINT[side])
        made = checked(self._lib.bpf_tc_hook_create(ctypes.byref(hook)), f"clsact on {interface.name}", errno.EEXIST)
        if made == 0:
            (self._directory / f"qdisc-{spell(interface.name)}").mkdir(exist_ok=True)
        options = self._options(program_fd=program_fd, flags=_TC_REPLACE)
        checked(
            self._lib.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)),
            f"filter {side} on {interface.name}",
        )

    def _detach_clsact(self, interface: Interface, side: str) -> None:
        hook, options = self._hook(interface, _TC_POINT[side]), self._options()
        result = self._lib.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
        checked(result, f"filter {side} on {interface.name}", errno.ENOENT, errno.EINVAL)
        ours = self._directory / f"qdisc-{spell(interface.name)}"
        if ours.is_dir() and not has_filters(interface.ifindex):  # others may have come to use it
            both = self._hook(interface, _TC_POINT[INGRESS] | _TC_POINT[EGRESS])
            self._lib.bpf_tc_hook_destroy(ctypes.byref(both))
            with contextlib.suppress(OSError):
                ours.rmdir()

    def _hook(self, interface: Interface, point: int) -> _TcHook:
        return _TcHook(size=ctypes.sizeof(_TcHook), ifindex=interface.ifindex, point=point)

    def _options(self, program_fd: int = 0, flags: int = 0) -> _TcOptions:
        return _TcOptions(
            size=ctypes.sizeof(_TcOptions),
            program_fd=program_fd,
            flags=flags,
            handle=_TC_HANDLE,
            priority=self._priority,
        )
