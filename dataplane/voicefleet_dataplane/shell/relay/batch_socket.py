"""Many datagrams in one system call, into and out of memory that is laid out once: recvmmsg and sendmmsg over ctypes.

A call costs about a microsecond more than `socket.recvfrom` and saves the second call that would find the socket empty, the
exception for it, an object and a text address for each datagram; under load it saves most system calls besides.

Owns: the structures that the kernel reads and writes. Does not own: what stands in the slots (core/relay/batches.py).
"""

import ctypes
import socket

from voicefleet_contract.addresses import UNSPECIFIED
from voicefleet_dataplane.core.relay.batches import NAME_BYTES, SLOT_BYTES, Batch
from voicefleet_dataplane.wire.pktinfo import CONTROL_BYTES, control_bytes
from voicefleet_dataplane.wire.sockaddr import sockaddr_bytes

_LIBC = ctypes.CDLL(None, use_errno=True)
_MESSAGE_BYTES = 64  # struct mmsghdr on 64-bit Linux
_LENGTH_AT = 56


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct mmsghdr: struct msghdr, then how much was received or sent
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


assert ctypes.sizeof(_Message) == _MESSAGE_BYTES
_NO_CONTROL = (0, 0)
_TELL_ARRIVALS = {
    socket.AF_INET: (socket.IPPROTO_IP, 8),  # IP_PKTINFO
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}

for _call in (_LIBC.recvmmsg, _LIBC.sendmmsg):
    _call.restype = ctypes.c_int
_LIBC.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_LIBC.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class Messages:
    """Slots for ``count`` datagrams on their way from one socket to another.

    ``read_at`` and ``send_from`` say where in a slot a datagram is received, and where what is sent begins. Of a socket that is
    bound to all addresses, each datagram's own one goes with it (wire/pktinfo.py).
    """

    def __init__(
        self, source: socket.socket, target: socket.socket, *, read_at: int, send_from: int, count: int
    ) -> None:
        self._count = count
        self._source, self._target = source.fileno(), target.fileno()
        sizes = SLOT_BYTES, NAME_BYTES, NAME_BYTES, CONTROL_BYTES, CONTROL_BYTES
        self._memory = [ctypes.create_string_buffer(count * size) for size in sizes]
        slots, names, targets, arrivals, departures = (ctypes.addressof(memory) for memory in self._memory)
        self._tells_arrivals, names_departures = _is_bound_to_all(source), _is_bound_to_all(target)
        if self._tells_arrivals:
            source.setsockopt(*_TELL_ARRIVALS[source.family], 1)
        self._vectors = (_Vector * count)(
            *(_Vector(slots + index * SLOT_BYTES + read_at, SLOT_BYTES - read_at) for index in range(count))
        )
        self._out_vectors = (_Vector * count)(
            *(_Vector(slots + index * SLOT_BYTES + send_from, 0) for index in range(count))
        )
        control = (arrivals, CONTROL_BYTES) if self._tells_arrivals else _NO_CONTROL
        self._messages = _messages(names, self._vectors, sockaddr_bytes(source.family), control, count)
        control = (departures, control_bytes(target.family)) if names_departures else _NO_CONTROL
        self._out_messages = _messages(targets, self._out_vectors, sockaddr_bytes(target.family), control, count)
        self._as_laid_out, self._received = bytes(self._messages), 0
        self._in_at, self._out_at = ctypes.addressof(self._messages), ctypes.addressof(self._out_messages)
        self._lengths = memoryview(self._messages).cast("B").cast("I")[_LENGTH_AT // 4 :: _MESSAGE_BYTES // 4]
        views = [memoryview(memory).cast("B") for memory in self._memory]
        out_lengths = memoryview(self._out_vectors).cast("B").cast("Q")[1::2]
        self.batch = Batch(
            slots=views[0],
            names=views[1],
            targets=views[2],
            lengths=out_lengths,
            arrivals=views[3] if self._tells_arrivals else None,
            departures=views[4] if names_departures else None,
        )

    def receive(self) -> list[int]:
        """Fill slots with what has arrived; gives the length of each datagram. Never blocks."""
        if self._tells_arrivals:  # the kernel writes how much control it gave where it reads how much it may give
            ctypes.memmove(self._in_at, self._as_laid_out, self._received * _MESSAGE_BYTES)
        count = _LIBC.recvmmsg(self._source, self._in_at, self._count, socket.MSG_DONTWAIT, None)
        # An error is an empty socket, or the ICMP error of an earlier send: nothing that a reader could mend, and telling
        # it has taken it away.
        self._received = max(0, count)
        return self._lengths[:count].tolist() if count > 0 else []

    def send(self, start: int, end: int) -> int:
        """Send slots ``start`` to ``end``; gives how many the kernel refused (a full buffer, no route): they are lost."""
        refused = 0
        while start < end:
            sent = _LIBC.sendmmsg(self._target, self._out_at + start * _MESSAGE_BYTES, end - start, socket.MSG_DONTWAIT)
            if sent > 0:
                start += sent
            else:
                refused += 1
                start += 1
        return refused


def _is_bound_to_all(one: socket.socket) -> bool:
    return one.family in _TELL_ARRIVALS and one.getsockname()[0] in UNSPECIFIED


def _messages(
    names: int, vectors: ctypes.Array[_Vector], name_bytes: int, control: tuple[int, int], count: int
) -> ctypes.Array[_Message]:
    at, size = ctypes.addressof(vectors), ctypes.sizeof(_Vector)
    controls, room = control
    return (_Message * count)(
        *(
            _Message(
                names + index * NAME_BYTES,
                name_bytes,
                at + index * size,
                1,
                controls + index * CONTROL_BYTES if room else None,
                room,
            )
            for index in range(count)
        )
    )
