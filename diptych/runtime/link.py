"""Linking: one object or several laid out together, relocations applied, the result free of any address until loaded."""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import FormatError
from diptych.runtime import relocate
from diptych.runtime.elf import AARCH64, EXTERNAL, X86_64, ObjectFile, Section, SymbolTable

__all__ = ["PAGE", "Image", "Layout", "Linked", "link", "merge", "prelink", "referred"]

Array = np.ndarray[Any, Any]

PAGE = 16384 if platform.machine() in ("arm64", "aarch64") else 4096  # 16 KiB covers 4 and 16 KiB kernels


class Image(NamedTuple):
    """A linked object at `base`: code in [0, code_end), constants up to ro_end, variables after; `names` -> address.

    `fixups` are the 8-byte words that hold addresses: (offset, external symbol or "" for the image itself, addend).
    """

    base: int
    data: bytearray
    code_end: int
    ro_end: int
    names: dict[str, int]
    fixups: tuple[tuple[int, str, int], ...] = ()


class Linked(NamedTuple):
    """Code ready to be copied anywhere: then only the words named by `fixups` are added to. `names` -> offset."""

    machine: int
    data: bytes
    code_end: int
    ro_end: int
    names: dict[str, int]
    fixups: tuple[tuple[int, str, int], ...]


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
        for symbol in referred(obj, self.calls):
            if obj.symbols.section[symbol] == EXTERNAL:
                self.stubs[symbol] = at
                at += relocate.STUB_BYTES
        self.code_end = at = -(-at // PAGE) * PAGE
        at = self._place(obj, at, lambda s: not s.executable and not s.writable)
        at = -(-at // 8) * 8
        for symbol in referred(obj, self.got):
            self.slots[symbol] = at
            at += 8
        self.ro_end = at = -(-at // PAGE) * PAGE
        at = self._place(obj, at, lambda s: s.writable)
        self.size = max(-(-at // PAGE) * PAGE, PAGE)
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


def referred(obj: ObjectFile, kinds: tuple[int, ...] | None = None) -> list[int]:
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
    referred_to = np.array(referred(obj), np.int64)
    for i in referred_to[section[referred_to] == EXTERNAL].tolist():
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
    return Image(base, data, layout.code_end, layout.ro_end, names, _fixups(obj, layout))


def _fixups(obj: ObjectFile, layout: Layout) -> tuple[tuple[int, str, int], ...]:
    """Every 8-byte word that holds an address: slots of the GOT, targets of stubs, and 64-bit relocations."""
    symbols = obj.symbols

    def word(at: int, symbol: int, addend: int) -> list[tuple[int, str, int]]:
        section = int(symbols.section[symbol])
        if section == EXTERNAL:
            return [(at, symbols.name(symbol), addend)]
        return [(at, "", 0)] if section >= 0 else []  # what is absolute stays what it is

    found = [w for s, at in layout.slots.items() for w in word(at, s, 0)]
    found += [w for s, at in layout.stubs.items() for w in word(at + relocate.STUB_BYTES - 8, s, 0)]
    for i, records in obj.relocations.items():
        for r in records[records["kind"] == (1 if obj.machine == X86_64 else 257)]:
            found += word(layout.offsets[i] + int(r["offset"]), int(r["symbol"]), int(r["addend"]))
    return tuple(found)


# Relocations whose result depends on where the image lies, other than by whole 8-byte words or pages.
_BOUND = {X86_64: (10, 11), AARCH64: (263, 264, 265, 266, 267, 268, 269)}


def prelink(objects: Sequence[ObjectFile]) -> Linked:
    """Several objects as one piece of code that can be copied to any page-aligned address.

    Objects may call each other; what none of them defines is external, and may be called or reached through the GOT.
    """
    obj = merge(objects)
    layout = Layout(obj)
    whole = 1 if obj.machine == X86_64 else 257
    through = (*layout.calls, *layout.got, whole)
    for i, records in obj.relocations.items():
        outside = obj.symbols.section[records["symbol"]] == EXTERNAL
        bound = np.isin(records["kind"], _BOUND[obj.machine]) | (outside & ~np.isin(records["kind"], through))
        if bound.any():
            kind = int(records["kind"][bound][0])
            raise FormatError(
                f"object code: a relocation of kind {kind} in section {obj.sections[i].name} binds it to an address: "
                "compile with reloc='pic'"
            )
    # At address 0 with every external symbol there too, a word holds exactly what is to be added to an address.
    image = link(obj, layout, 0, lambda name: 0)
    return Linked(obj.machine, bytes(image.data), image.code_end, image.ro_end, image.names, image.fixups)


def merge(objects: Sequence[ObjectFile]) -> ObjectFile:
    """Several objects as one: what one calls and another defines is connected, by name."""
    if len(objects) == 1:
        return objects[0]
    if len({o.machine for o in objects}) != 1:
        raise FormatError("object code: the objects to link are for different machines")
    sections: dict[int, Section] = {}
    relocations: dict[int, Array] = {}
    tables: list[SymbolTable] = []
    defined: dict[str, int] = {}
    first_section = first_symbol = 0
    for obj in objects:
        sections |= {i + first_section: s for i, s in obj.sections.items()}
        for i, records in obj.relocations.items():
            moved = records.copy()
            moved["symbol"] += first_symbol
            relocations[i + first_section] = moved
        for name, i in obj.symbols.defined().items():
            if name in defined:
                raise FormatError(f"object code: symbol {name!r} is defined by two of the objects to link")
            defined[name] = i + first_symbol
        tables.append(obj.symbols.shifted(first_section))
        first_section += max(obj.sections, default=0) + 1
        first_symbol += len(obj.symbols)
    return ObjectFile(objects[0].machine, sections, SymbolTable.joined(tables, defined), relocations)
