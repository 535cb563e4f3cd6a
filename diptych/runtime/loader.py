"""Object code into executable memory, without llvmlite: layout, relocation, and a mapping that is never W and X."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import FormatError, UnsupportedError
from diptych.runtime import relocate
from diptych.runtime.elf import AARCH64, EXTERNAL, X86_64, ObjectFile, Section, parse_object

__all__ = ["Image", "Layout", "LoadedObject", "advise_huge", "link", "load_object", "machine"]

Array = np.ndarray[Any, Any]

_PAGE = 16384 if platform.machine() in ("arm64", "aarch64") else 4096  # 16 KiB covers 4 and 16 KiB kernels
_READ, _WRITE, _EXEC = 1, 2, 4
_MAP_32BIT = 0x40


class Image(NamedTuple):
    """A linked object at `base`: code in [0, code_end), constants up to ro_end, variables after; `names` -> address."""

    base: int
    data: bytearray
    code_end: int
    ro_end: int
    names: dict[str, int]


class Layout:
    """Where each section, jump stub and GOT slot lies, relative to the base."""

    def __init__(self, obj: ObjectFile) -> None:
        x86 = obj.machine == X86_64
        self.calls = relocate.X86_CALLS if x86 else relocate.AARCH64_CALLS
        self.got = relocate.X86_GOT if x86 else relocate.AARCH64_GOT
        self.offsets: dict[int, int] = {}
        self.stubs: dict[int, int] = {}
        self.slots: dict[int, int] = {}
        at = self._place(obj, 0, lambda s: s.executable)
        at = -(-at // 16) * 16
        for symbol in _referred(obj, self.calls):
            if obj.symbols.section[symbol] == EXTERNAL:
                self.stubs[symbol] = at
                at += relocate.STUB_BYTES
        self.code_end = at = -(-at // _PAGE) * _PAGE
        at = self._place(obj, at, lambda s: not s.executable and not s.writable)
        at = -(-at // 8) * 8
        for symbol in _referred(obj, self.got):
            self.slots[symbol] = at
            at += 8
        self.ro_end = at = -(-at // _PAGE) * _PAGE
        at = self._place(obj, at, lambda s: s.writable)
        self.size = max(-(-at // _PAGE) * _PAGE, _PAGE)
        if self.size >= 1 << 31:
            raise FormatError(f"object code: {self.size} bytes of sections; more than 2 GiB cannot be linked")

    def _place(self, obj: ObjectFile, at: int, wanted: Callable[[Section], bool]) -> int:
        for i, s in obj.sections.items():
            if wanted(s):
                if s.executable and s.writable:
                    raise FormatError(f"object code: section {s.name} is writable and executable; refused")
                at = -(-at // s.align) * s.align
                self.offsets[i] = at
                at += s.size
        return at


def _referred(obj: ObjectFile, kinds: tuple[int, ...] | None = None) -> list[int]:
    """The numbers of the symbols that relocations (of these kinds) refer to."""
    found: set[int] = set()
    for records in obj.relocations.values():
        chosen = records if kinds is None else records[np.isin(records["kind"], kinds)]
        found.update(np.unique(chosen["symbol"]).tolist())
    return sorted(found)


def _addresses(obj: ObjectFile, layout: Layout, base: int, resolve: Callable[[str], int | None]) -> Array:
    """The address of each symbol; external ones are looked up only when something refers to them."""
    start = np.zeros(max(obj.sections, default=0) + 3, np.uint64)  # the last two: ABSOLUTE and EXTERNAL by index
    for i, offset in layout.offsets.items():
        start[i] = base + offset
    section = obj.symbols.section
    addresses: Array = start[section] + obj.symbols.value
    referred = np.array(_referred(obj), np.int64)
    for i in referred[section[referred] == EXTERNAL].tolist():
        name = obj.symbols.name(i)
        found = resolve(name) if name else None
        if found is None and not obj.symbols.weak(i):
            raise FormatError(f"object code: symbol {name!r} is not defined anywhere; pass its address in `symbols`")
        addresses[i] = found or 0
    return addresses


def link(obj: ObjectFile, layout: Layout, base: int, resolve: Callable[[str], int | None]) -> Image:
    """Lay `obj` out as for address `base` and apply its relocations; nothing is mapped or run."""
    x86 = obj.machine == X86_64
    patch = relocate.patch_x86_64 if x86 else relocate.patch_aarch64
    data = bytearray(layout.size)
    for i, s in obj.sections.items():
        if s.data is not None:
            data[layout.offsets[i] : layout.offsets[i] + s.size] = s.data
    addresses = _addresses(obj, layout, base, resolve)
    through_stub, through_slot = addresses.copy(), addresses.copy()
    for index, at in layout.slots.items():
        data[at : at + 8] = struct.pack("<Q", int(addresses[index]))
        through_slot[index] = base + at
    for index, at in layout.stubs.items():
        data[at : at + relocate.STUB_BYTES] = relocate.stub(x86, int(addresses[index]))
        through_stub[index] = base + at

    image = np.frombuffer(data, np.uint8)
    for i, records in obj.relocations.items():
        section, offset = obj.sections[i], layout.offsets[i]
        for kind in np.unique(records["kind"]).tolist():

            def refuse(why: str, kind: int = kind, name: str = section.name) -> FormatError:
                return FormatError(f"object code: cannot apply a relocation of kind {kind} in section {name}: {why}")

            some = records[records["kind"] == kind]
            table = through_slot if kind in layout.got else through_stub if kind in layout.calls else addresses
            target = table[some["symbol"]] + some["addend"].astype(np.uint64)
            place = some["offset"] + np.uint64(base + offset)
            patch(image, some["offset"].astype(np.int64) + offset, kind, place, target, offset + section.size, refuse)

    names = {name: int(addresses[i]) for name, i in obj.symbols.defined().items()}
    return Image(base, data, layout.code_end, layout.ro_end, names)


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
        end = (address + size) & -_PAGE
        start = -(-address // _PAGE) * _PAGE
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
    if obj.machine == X86_64 and _referred(obj, (10, 11)):
        flags |= _MAP_32BIT  # code compiled with reloc='static': its addresses have 32 bits
    base = _c().mmap(None, layout.size, _READ | _WRITE, flags, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise MemoryError(f"mmap of {layout.size} bytes for code failed (errno {ctypes.get_errno()})")
    try:
        image = link(obj, layout, base, resolve)
        ctypes.memmove(base, (ctypes.c_char * layout.size).from_buffer(image.data), layout.size)
        # On aarch64 Linux the kernel makes the caches coherent when pages first become executable; macOS wants a call.
        if obj.machine == AARCH64 and hasattr(_c(), "sys_icache_invalidate"):
            _c().sys_icache_invalidate(ctypes.c_void_p(base), ctypes.c_size_t(layout.size))
        _protect(base, image.code_end, _READ | _EXEC)
        _protect(base + image.code_end, image.ro_end - image.code_end, _READ)
    except BaseException:
        _unmap(base, layout.size)
        raise
    return LoadedObject(base, layout.size, image.names, immortal)


def _protect(base: int, size: int, access: int) -> None:
    if size and _c().mprotect(base, size, access):
        raise UnsupportedError(
            f"mprotect refused to make code executable (errno {ctypes.get_errno()}): this system forbids generated code "
            "(SELinux execmem or a hardened sandbox); allow it, or use the NumPy target"
        )
