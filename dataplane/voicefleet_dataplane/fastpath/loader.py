"""libbpf through ctypes: no compiler at run time, no other dependency than libbpf.so.1 (Debian: libbpf1).

Owns: the library's calls with their types, turning its errors into OSError, and what it says about a program that the
kernel refuses. Does not own: what is loaded, where it is attached or pinned (kernel.py, hooks.py).
"""

import ctypes
import errno
import os
from typing import Any

_INT, _FD, _U32, _U64, _POINTER, _TEXT = (
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_void_p,
    ctypes.c_char_p,
)
# name → (result, arguments). Only what is used here.
_CALLS: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (_POINTER, [_TEXT, _POINTER]),
    "bpf_object__load": (_INT, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__find_program_by_name": (_POINTER, [_POINTER, _TEXT]),
    "bpf_object__find_map_by_name": (_POINTER, [_POINTER, _TEXT]),
    "bpf_program__fd": (_FD, [_POINTER]),
    "bpf_program__set_autoload": (_INT, [_POINTER, ctypes.c_bool]),
    "bpf_map__fd": (_FD, [_POINTER]),
    "bpf_map__set_max_entries": (_INT, [_POINTER, _U32]),
    "bpf_map__reuse_fd": (_INT, [_POINTER, _FD]),
    "bpf_obj_pin": (_INT, [_FD, _TEXT]),
    "bpf_obj_get": (_FD, [_TEXT]),
    "bpf_link_create": (_FD, [_FD, _INT, _INT, _POINTER]),
    "bpf_link_update": (_INT, [_FD, _FD, _POINTER]),
    "bpf_link_detach": (_INT, [_FD]),
    "bpf_tc_hook_create": (_INT, [_POINTER]),
    "bpf_tc_hook_destroy": (_INT, [_POINTER]),
    "bpf_tc_attach": (_INT, [_POINTER, _POINTER]),
    "bpf_tc_detach": (_INT, [_POINTER, _POINTER]),
    "bpf_map_update_elem": (_INT, [_FD, _POINTER, _POINTER, _U64]),
    "bpf_map_lookup_elem": (_INT, [_FD, _POINTER, _POINTER]),
    "bpf_map_delete_elem": (_INT, [_FD, _POINTER]),
    "bpf_map_lookup_batch": (_INT, [_FD, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER]),
    "bpf_prog_test_run_opts": (_INT, [_FD, _POINTER]),
    "libbpf_num_possible_cpus": (_INT, []),
    "libbpf_set_print": (_POINTER, [_POINTER]),
}
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_DEBUG = 2
_LINE_BYTES = 65_536


class _BatchOptions(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("element_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64))


class Libbpf:
    """The library. Raises OSError when it is not installed."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        self._libc = ctypes.CDLL(None)
        for name, (result, arguments) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
            setattr(self, name, call)
        self._said: list[str] = []
        self._print = _PRINT(self._listen)  # kept: the library holds only the address
        self.libbpf_set_print(self._print)
        options = _BatchOptions(size=ctypes.sizeof(_BatchOptions))
        self._options = options
        self.batch_options = ctypes.byref(options)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # known calls are attributes of the instance

    def take_said(self) -> list[str]:
        """Return what the library said since the last time: its only word on why a program was refused."""
        said, self._said = self._said, []
        return [line for text in said for line in text.splitlines() if line.strip()]

    def _listen(self, level: int, template: bytes, arguments: int) -> int:
        if level < _DEBUG:
            line = ctypes.create_string_buffer(_LINE_BYTES)
            self._libc.vsnprintf(line, ctypes.c_size_t(_LINE_BYTES), template, ctypes.c_void_p(arguments))
            self._said.append(line.value.decode("utf-8", "replace"))
        return 0


def checked(result: int, what: str, *accepted: int) -> int:
    """Return the result of a call, or raise OSError. ``accepted``: error numbers that are an answer."""
    if result < 0 and -result not in accepted:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


class Object:
    """An object file, opened; then loaded. Its maps and programs live as long as something holds them: close it last."""

    def __init__(self, lib: Libbpf, path: str) -> None:
        self._lib = lib
        self._path = path
        self._object = lib.bpf_object__open_file(path.encode(), None)
        if not self._object:
            error = ctypes.get_errno() or errno.ENOENT
            raise OSError(error, f"BPF object {path}: {os.strerror(error)}")

    def size_map(self, name: str, entries: int) -> None:
        """Give a map its room, before it is made."""
        checked(self._lib.bpf_map__set_max_entries(self._map(name), entries), f"size of map {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Work with a map that is there instead of a new one. Raises OSError when it has another shape."""
        checked(self._lib.bpf_map__reuse_fd(self._map(name), fd), f"reuse of map {name}")

    def leave_out(self, program: str) -> None:
        """Do not load a program."""
        checked(self._lib.bpf_program__set_autoload(self._program(program), False), program)

    def load(self) -> None:
        """Make the maps, have the kernel verify the programs. Raises OSError with the verifier's last words."""
        self._lib.take_said()
        result = self._lib.bpf_object__load(self._object)
        if result < 0:
            said = [line for line in self._lib.take_said() if not line.startswith(("libbpf:", "processed", "--"))]
            words = f" ({said[-1].strip()[:160]})" if said else ""
            raise OSError(-result, f"the kernel refuses the program: {os.strerror(-result)}{words}")

    def map_fd(self, name: str) -> int:
        """Return a descriptor of a loaded map that outlives the object."""
        return os.dup(self._lib.bpf_map__fd(self._map(name)))

    def program_fd(self, name: str) -> int:
        """Return a descriptor of a loaded program that outlives the object."""
        return os.dup(self._lib.bpf_program__fd(self._program(name)))

    def close(self) -> None:
        """Let go of everything that is not held otherwise."""
        self._lib.bpf_object__close(self._object)

    def _map(self, name: str) -> int:
        return self._found(self._lib.bpf_object__find_map_by_name(self._object, name.encode()), "map", name)

    def _program(self, name: str) -> int:
        return self._found(self._lib.bpf_object__find_program_by_name(self._object, name.encode()), "program", name)

    def _found(self, pointer: int | None, what: str, name: str) -> int:
        if not pointer:
            raise OSError(errno.ENOENT, f"{self._path} has no {what} {name}")
        return pointer
