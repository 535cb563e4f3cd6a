"""Object code into executable memory, without llvmlite: layout, relocation, and a mapping that is never W and X."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import weakref
from collections.abc import Callable, Mapping

from diptych.errors import FormatError, UnsupportedError
from diptych.runtime.elf import AARCH64, X86_64, parse_object
from diptych.runtime.link import PAGE, Image, Layout, Linked, link, referred

__all__ = ["LoadedObject", "advise_huge", "load_linked", "load_object", "machine"]

_READ, _WRITE, _EXEC = 1, 2, 4
_MAP_32BIT = 0x40


class LoadedObject:
    """Executable memory made from object code; it lives exactly as long as this value.

    Keep a reference for as long as any address taken from it may be called.
    """

    def __init__(self, base: int, size: int, names: dict[str, int], immortal: bool) -> None:
        self._names = names
        self.size = size
        if not immortal:
            # Not at exit: other threads may still run in it while the interpreter comes down.
            weakref.finalize(self, _unmap, base, size).atexit = False

    def address(self, name: str) -> int:
        """The address of a symbol defined by the object; FormatError when there is none of that name."""
        try:
            return self._names[name]
        except KeyError:
            known = ", ".join(sorted(self._names)[:8])
            raise FormatError(f"object code defines no symbol {name!r}; it has: {known}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._names


_libc: ctypes.CDLL | None = None


def _c() -> ctypes.CDLL:
    global _libc
    if _libc is None:
        lib = ctypes.CDLL(None, use_errno=True)
        lib.mmap.restype = ctypes.c_void_p
        lib.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        lib.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        lib.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        lib.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        _libc = lib
    return _libc


def _unmap(base: int, size: int) -> None:
    _c().munmap(base, size)


def advise_huge(address: int, size: int) -> None:
    """Ask the system for huge pages under [address, address + size); a hint that may be ignored."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        end = (address + size) & -PAGE
        start = -(-address // PAGE) * PAGE
        if end > start:
            _c().madvise(start, end - start, mmap.MADV_HUGEPAGE)


def _c_symbol(name: str) -> int | None:
    """The address of a C library function (memcpy, memset, ...), or None."""
    try:
        return ctypes.cast(getattr(_c(), name), ctypes.c_void_p).value
    except AttributeError:
        return None


def machine() -> int:
    """The ELF machine number of this computer; UnsupportedError when diptych makes no code for it."""
    if os.name != "posix":
        raise UnsupportedError("native execution needs a POSIX system (Linux, macOS, BSD); use the NumPy target here")
    name = platform.machine().lower()
    if name in ("x86_64", "amd64"):
        return X86_64
    if name in ("aarch64", "arm64"):
        return AARCH64
    raise UnsupportedError(f"diptych makes code for x86-64 and aarch64; this machine is {name!r}")


def load_object(code: bytes, symbols: Mapping[str, int] | None = None, *, immortal: bool = False) -> LoadedObject:
    """Load an ELF64 relocatable object into executable memory.

    External names are looked up in `symbols`, then in the C library. `immortal` keeps the mapping for the life of
    the process (for code that threads may be inside of when the interpreter ends).
    """
    obj = parse_object(code)
    if obj.machine != machine():
        raise FormatError(f"object code is for ELF machine {obj.machine}, this one is {machine()}: compile it again")
    layout = Layout(obj)
    given = symbols or {}

    def resolve(name: str) -> int | None:
        found = given.get(name)
        return found if found is not None else _c_symbol(name)

    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if obj.machine == X86_64 and referred(obj, (10, 11)):
        flags |= _MAP_32BIT  # code compiled with reloc='static': its addresses have 32 bits
    return _mapped(layout.size, flags, immortal, lambda base: link(obj, layout, base, resolve))


def load_linked(linked: Linked, symbols: Mapping[str, int] | None = None) -> LoadedObject:
    """Load what `prelink` made: copied to its place, and the words that hold addresses added to."""
    if linked.machine != machine():
        raise FormatError(f"the code is for ELF machine {linked.machine}, this one is {machine()}: compile it again")
    given = symbols or {}

    def place(base: int) -> Image:
        data = bytearray(linked.data)
        for at, name, addend in linked.fixups:
            found = base if not name else given[name] if name in given else _c_symbol(name)
            if found is None:
                raise FormatError(f"the code needs symbol {name!r}, which nothing defines; pass its address in `symbols`")
            word = int.from_bytes(data[at : at + 8], "little") if not name else addend
            data[at : at + 8] = (word + found & (1 << 64) - 1).to_bytes(8, "little")
        names = {name: base + at for name, at in linked.names.items()}
        return Image(base, data, linked.code_end, linked.ro_end, names)

    return _mapped(len(linked.data), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, False, place)


def _mapped(size: int, flags: int, immortal: bool, place: Callable[[int], Image]) -> LoadedObject:
    """Memory for `size` bytes of code, filled with what `place(address)` gives; writable at first, then executable."""
    base = _c().mmap(None, size, _READ | _WRITE, flags, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise MemoryError(f"mmap of {size} bytes for code failed (errno {ctypes.get_errno()})")
    try:
        image = place(base)
        ctypes.memmove(base, (ctypes.c_char * size).from_buffer(image.data), size)
        # On aarch64 Linux the kernel makes the caches coherent when pages first become executable; macOS wants a call.
        if platform.machine().lower() in ("aarch64", "arm64") and hasattr(_c(), "sys_icache_invalidate"):
            _c().sys_icache_invalidate(ctypes.c_void_p(base), ctypes.c_size_t(size))
        _protect(base, image.code_end, _READ | _EXEC)
        _protect(base + image.code_end, image.ro_end - image.code_end, _READ)
    except BaseException:
        _unmap(base, size)
        raise
    return LoadedObject(base, size, image.names, immortal)


def _protect(base: int, size: int, access: int) -> None:
    if size and _c().mprotect(base, size, access):
        raise UnsupportedError(
            f"mprotect refused to make code executable (errno {ctypes.get_errno()}): this system forbids generated code "
            "(SELinux execmem or a hardened sandbox); allow it, or use the NumPy target"
        )
