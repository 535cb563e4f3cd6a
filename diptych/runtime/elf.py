"""Reading ELF64 relocatable objects (x86-64, aarch64): sections, symbols, relocations. Data only, bounds-checked."""

from __future__ import annotations

import struct
from typing import NamedTuple

from diptych.errors import FormatError

__all__ = ["AARCH64", "X86_64", "ObjectFile", "Relocation", "Section", "Symbol", "parse_object"]

X86_64, AARCH64 = 62, 183  # e_machine

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QIIq")

_PROGBITS, _SYMTAB, _RELATABLE, _NOBITS, _REL = 1, 2, 4, 8, 9
_WRITE, _ALLOC, _EXEC, _TLS = 1, 2, 4, 0x400
_UNDEF, _ABS, _COMMON, _XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
_LIMIT = 1 << 30  # bytes of one section: PC-relative relocations reach 2 GiB
_ZERO_LIMIT = 1 << 26  # bytes of a zero-filled one: a few bytes of a corrupt file must not take all memory


class Section(NamedTuple):
    """A section that occupies memory; `data` is None for zero-filled ones (.bss)."""

    name: str
    size: int
    align: int
    data: memoryview | None
    writable: bool
    executable: bool


class Symbol(NamedTuple):
    """Where a name points: a section index, or None when it is external or absolute."""

    name: str
    section: int | None
    value: int
    external: bool
    weak: bool = False


class Relocation(NamedTuple):
    """Patch `section` at `offset` with the address of symbol number `symbol` plus `addend`."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


class ObjectFile(NamedTuple):
    """A parsed object: sections by their index in the file, symbols by theirs."""

    machine: int
    sections: dict[int, Section]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]


def _bad(what: str) -> FormatError:
    return FormatError(f"object code: {what}; the object is corrupt or not made for this loader: compile it again")


def _slice(code: memoryview, offset: int, size: int, what: str) -> memoryview:
    if offset > len(code) or size > len(code) - offset:
        raise _bad(f"{what} lies at {offset}+{size}, past the end ({len(code)} bytes)")
    return code[offset : offset + size]


def _text(table: memoryview, offset: int) -> str:
    if offset >= len(table):
        raise _bad(f"name at {offset} is outside its string table ({len(table)} bytes)")
    raw = bytes(table[offset : offset + 4096])
    end = raw.find(b"\0")
    if end < 0:
        raise _bad("a name has no end")
    try:
        return raw[:end].decode()
    except UnicodeDecodeError:
        raise _bad("a name is not UTF-8") from None


def parse_object(code: bytes) -> ObjectFile:
    """Parse an ELF64 little-endian relocatable object; FormatError when it is not one or breaks a rule."""
    view = memoryview(code).cast("B")
    if len(view) < _HEADER.size or bytes(view[:7]) != b"\x7fELF\x02\x01\x01":
        raise _bad("this is no little-endian ELF64 file")
    _, kind, machine, _, _, _, table, _, _, _, _, entry, count, names = _HEADER.unpack_from(view)
    if kind != 1:
        raise _bad(f"ELF type {kind} is not a relocatable object (1)")
    if machine not in (X86_64, AARCH64):
        raise _bad(f"machine {machine} is neither x86-64 ({X86_64}) nor aarch64 ({AARCH64})")
    if entry != _SECTION.size or not 0 < count < 0xFF00 or names >= count:
        raise _bad("the section table is malformed")
    headers = list(_SECTION.iter_unpack(_slice(view, table, count * entry, "the section table")))
    if headers[names][1] == _NOBITS:
        raise _bad("the table of section names has no content")
    strings = _slice(view, headers[names][4], headers[names][5], "the table of section names")

    sections: dict[int, Section] = {}
    symbols_at: int | None = None
    for i, (name_at, what, flags, _, offset, size, _, _, align, _) in enumerate(headers):
        if i == 0:
            continue
        name = _text(strings, name_at)
        if what == _SYMTAB:
            if symbols_at is not None:
                raise _bad("there are two symbol tables")
            symbols_at = i
        if what == _REL:
            raise _bad(f"section {name}: relocations without addends are not used on these machines")
        if not flags & _ALLOC or name == ".eh_frame":  # unwind tables: nothing unwinds through our code
            continue
        if flags & _TLS:
            raise _bad(f"section {name}: thread-local storage is not supported")
        if what not in (_PROGBITS, _NOBITS):
            raise _bad(f"section {name}: type {what} is not supported")
        align = align or 1
        if align & (align - 1) or align > 4096:
            raise _bad(f"section {name}: alignment {align} is not a power of two up to 4096")
        if size >= (_ZERO_LIMIT if what == _NOBITS else _LIMIT):
            raise _bad(f"section {name}: {size} bytes is too large")
        data = None if what == _NOBITS else _slice(view, offset, size, f"section {name}")
        sections[i] = Section(name, size, align, data, bool(flags & _WRITE), bool(flags & _EXEC))

    symbols: list[Symbol] = []
    if symbols_at is not None:
        symbols = _symbols(view, headers, symbols_at, sections)
    relocations = _relocations(view, headers, sections, symbols_at, len(symbols))
    return ObjectFile(machine, sections, tuple(symbols), tuple(relocations))


def _symbols(
    view: memoryview, headers: list[tuple[int, ...]], at: int, sections: dict[int, Section]
) -> list[Symbol]:
    _, _, _, _, offset, size, link, _, _, entry = headers[at]
    if entry != _SYMBOL.size or size % entry or not 0 < link < len(headers) or headers[link][1] == _NOBITS:
        raise _bad("the symbol table is malformed")
    names = _slice(view, headers[link][4], headers[link][5], "the table of symbol names")
    out: list[Symbol] = []
    for name_at, info, _, index, value, extent in _SYMBOL.iter_unpack(_slice(view, offset, size, "the symbol table")):
        name = _text(names, name_at) if name_at else ""
        if info & 15 == 6:
            raise _bad(f"symbol {name}: thread-local storage is not supported")
        if index in (_COMMON, _XINDEX):
            raise _bad(f"symbol {name}: section number {index:#x} is not supported")
        if index == _UNDEF:
            out.append(Symbol(name, None, 0, external=True, weak=info >> 4 == 2))
        elif index == _ABS:
            out.append(Symbol(name, None, value, external=False))
        elif index in sections:
            if value > sections[index].size or extent > sections[index].size - value:
                raise _bad(f"symbol {name}: lies outside section {sections[index].name}")
            out.append(Symbol(name, index, value, external=False))
        elif index < len(headers):  # in a section that takes no memory: nothing may refer to it
            out.append(Symbol(name, None, 0, external=True))
        else:
            raise _bad(f"symbol {name}: section number {index} does not exist")
    return out


def _relocations(
    view: memoryview, headers: list[tuple[int, ...]], sections: dict[int, Section], table: int | None, symbols: int
) -> list[Relocation]:
    out: list[Relocation] = []
    for _, what, _, _, offset, size, link, target, _, entry in headers:
        if what != _RELATABLE or target not in sections:
            continue
        section = sections[target]
        if entry != _RELA.size or size % entry or link != table:
            raise _bad(f"the relocations of {section.name} are malformed")
        if size and section.data is None:
            raise _bad(f"section {section.name} has no content but relocations")
        for where, kind, symbol, addend in _RELA.iter_unpack(_slice(view, offset, size, f"relocations of {section.name}")):
            if where >= section.size or symbol >= symbols:
                raise _bad(f"a relocation of {section.name} points outside the section or the symbol table")
            out.append(Relocation(target, where, kind, symbol, addend))
    return out
