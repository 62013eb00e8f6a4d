"""Runs a loaded program on one frame (BPF_PROG_TEST_RUN), as the kernel runs it on real ones."""

import ctypes
import errno
import struct

from voicefleet_dataplane.fastpath.loader import checked

REDIRECT = {"tc": 7, "xdp": 4}
UP = {"tc": 0xFFFFFFFF, "xdp": 2}
XDP_TX = 3
_ROOM = 4096


class _Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run_program(lib, fd, kind, frame, ifindex, repeat=1):
    """Return the verdict, the frame afterwards, and nanoseconds a run."""
    out = ctypes.create_string_buffer(_ROOM)
    if kind == "tc":
        context = bytearray(192)
        struct.pack_into("=I", context, 40, ifindex)
    else:
        context = bytearray(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0))
    options = _Options(
        size=ctypes.sizeof(_Options),
        data_in=frame,
        data_out=ctypes.cast(out, ctypes.c_void_p),
        data_size_in=len(frame),
        data_size_out=_ROOM,
        ctx_in=bytes(context),
        ctx_size_in=len(context),
        repeat=repeat,
    )
    checked(lib.bpf_prog_test_run_opts(fd, ctypes.byref(options)), "BPF_PROG_TEST_RUN", errno.ENOSPC)
    return options.retval, out.raw[: options.data_size_out], options.duration
