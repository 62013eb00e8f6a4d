"""Network namespaces of a test's own: held by descriptors, so nothing is left behind whatever happens to the test."""

import contextlib
import ctypes
import os
import subprocess
import threading

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NET, _NEW_MOUNTS = 0x40000000, 0x00020000
_PRIVATE = 1 << 18 | 16384  # recursively


def _checked(result):
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def private_mounts():
    """Give this process mounts of its own: what it mounts ends with it."""
    _checked(_LIBC.unshare(_NEW_MOUNTS))
    _checked(_LIBC.mount(b"none", b"/", None, _PRIVATE, None))


def mount_bpffs(path):
    """Mount an empty BPF file system."""
    _checked(_LIBC.mount(b"bpf", str(path).encode(), b"bpf", 0, None))


def unmount(path):
    """Unmount, whoever still looks."""
    _checked(_LIBC.umount2(str(path).encode(), 2))


class Namespace:
    """One network namespace, with loopback up."""

    def __init__(self):
        thread = threading.Thread(target=self._make)
        thread.start()
        thread.join()
        self.ip("link set lo up")

    def _make(self):
        _checked(_LIBC.unshare(_NEW_NET))  # of this thread alone
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def command(self, *words):
        """Return the words that run a program inside."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", *words)

    def run(self, *words):
        """Run a program inside; gives what it wrote."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    def ip(self, words):
        """Run ip(8) inside."""
        return self.run("ip", *words.split())

    def sysctl(self, name, value):
        """Set a sysctl inside."""
        self.run("sysctl", "-qw", f"{name}={value}")

    @contextlib.contextmanager
    def inside(self):
        """Be inside with this thread: sockets made here stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _checked(_LIBC.setns(self.fd, _NEW_NET))
        try:
            yield
        finally:
            _checked(_LIBC.setns(home, _NEW_NET))
            os.close(home)

    def close(self):
        """Let go; it ends when nothing in it runs."""
        os.close(self.fd)


def connect(one, other, one_name, other_name):
    """Join two namespaces by a veth pair."""
    one.ip(f"link add {one_name} type veth peer name {other_name} netns /proc/{os.getpid()}/fd/{other.fd}")
    for place, name in ((one, one_name), (other, other_name)):
        place.ip(f"link set {name} up")
