"""Reading ELF64 relocatable objects (x86-64, aarch64): sections, symbols, relocations. Data only, bounds-checked."""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diptych.errors import FormatError

__all__ = ["AARCH64", "ABSOLUTE", "EXTERNAL", "X86_64", "ObjectFile", "Section", "SymbolTable", "parse_object"]

Array = np.ndarray[Any, Any]

X86_64, AARCH64 = 62, 183  # e_machine
EXTERNAL, ABSOLUTE = -1, -2

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_RELA = np.dtype([("offset", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])

_PROGBITS, _SYMTAB, _RELATABLE, _NOBITS, _REL = 1, 2, 4, 8, 9
_WRITE, _ALLOC, _EXEC, _TLS = 1, 2, 4, 0x400
_ABS = 0xFFF1
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


class SymbolTable:
    """All symbols by number, as arrays; names are decoded when asked for.

    `section[i]` is the section that holds symbol i, or EXTERNAL, or ABSOLUTE; `value[i]` is the offset in it.
    """

    def __init__(self, records: Array, names: bytes, section: Array) -> None:
        self._names = names
        self._name_at = records["name"]
        self._binding = records["info"] >> 4
        self.value: Array = records["value"]
        self.section = section

    def __len__(self) -> int:
        return len(self.section)

    def shifted(self, first: int) -> SymbolTable:
        """The table for sections whose numbers are `first` higher."""
        made = copy.copy(self)
        made.section = np.where(self.section >= 0, self.section + first, self.section)
        return made

    @staticmethod
    def joined(tables: Sequence[SymbolTable], defined: Mapping[str, int]) -> SymbolTable:
        """One table after the other; external symbols become what `defined` (name -> number) says they are."""
        made = copy.copy(tables[0])
        starts = np.cumsum([0, *(len(t._names) for t in tables)])
        shifted = [np.where(t._name_at == 0, 0, t._name_at + at) for t, at in zip(tables, starts[:-1].tolist())]
        made._names = b"".join(t._names for t in tables)
        made._name_at = np.concatenate(shifted)
        made._binding = np.concatenate([t._binding for t in tables])
        made.value = np.concatenate([t.value for t in tables])
        made.section = np.concatenate([t.section for t in tables])
        for i in np.flatnonzero((made.section == EXTERNAL) & (made._name_at != 0)).tolist():
            found = defined.get(made.name(i))
            if found is not None:
                made.value[i], made.section[i] = made.value[found], made.section[found]
        return made

    def name(self, index: int) -> str:
        """The name of a symbol, "" when it has none."""
        at = int(self._name_at[index])
        return _text(self._names, at) if at else ""

    def weak(self, index: int) -> bool:
        """Whether the symbol may stay undefined (its address is 0 then)."""
        return bool(self._binding[index] == 2)

    def defined(self) -> dict[str, int]:
        """The numbers of the symbols that the object offers to others, by name."""
        numbers = np.flatnonzero((self._binding != 0) & (self.section >= 0))
        return {self.name(i): i for i in numbers.tolist()}


class ObjectFile(NamedTuple):
    """A parsed object: sections by their index in the file, and for each its relocations.

    The relocations of a section are a structured array: offset, kind, symbol (its number), addend.
    """

    machine: int
    sections: dict[int, Section]
    symbols: SymbolTable
    relocations: dict[int, Array]


def _bad(what: str) -> FormatError:
    return FormatError(f"object code: {what}; the object is corrupt or not made for this loader: compile it again")


def _slice(code: memoryview, offset: int, size: int, what: str) -> memoryview:
    if offset > len(code) or size > len(code) - offset:
        raise _bad(f"{what} lies at {offset}+{size}, past the end ({len(code)} bytes)")
    return code[offset : offset + size]


def _text(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    if end < 0:
        raise _bad(f"the name at {offset} does not end inside its string table ({len(table)} bytes)")
    try:
        return table[offset:end].decode()
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
    strings = bytes(_slice(view, headers[names][4], headers[names][5], "the table of section names"))

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

    symbols = _symbols(view, headers, symbols_at, sections)
    relocations = _relocations(view, headers, sections, symbols_at, len(symbols))
    return ObjectFile(machine, sections, symbols, relocations)


def _symbols(
    view: memoryview, headers: list[tuple[int, ...]], at: int | None, sections: dict[int, Section]
) -> SymbolTable:
    if at is None:
        return SymbolTable(np.zeros(0, _SYMBOL), b"", np.zeros(0, np.int64))
    _, _, _, _, offset, size, link, _, _, entry = headers[at]
    if entry != _SYMBOL.itemsize or size % entry or not 0 < link < len(headers) or headers[link][1] == _NOBITS:
        raise _bad("the symbol table is malformed")
    names = bytes(_slice(view, headers[link][4], headers[link][5], "the table of symbol names"))
    records = np.frombuffer(_slice(view, offset, size, "the symbol table"), _SYMBOL)
    index = records["section"].astype(np.int64)
    if (records["info"] & 15 == 6).any():
        raise _bad("a symbol is thread-local, which is not supported")
    if ((index >= len(headers)) & (index != _ABS)).any():
        raise _bad(f"a symbol is in a section that does not exist or is not supported: {int(index.max()):#x}")
    # What lies in sections that take no memory is external: nothing may refer to it.
    section_of = np.full(len(headers), EXTERNAL, np.int64)
    extent = np.full(len(headers), (1 << 64) - 1, np.uint64)
    for i, section in sections.items():
        section_of[i], extent[i] = i, section.size
    absolute = index == _ABS
    limit = extent[np.where(absolute, 0, index)]
    if ((records["value"] > limit) | (records["size"] > limit - records["value"])).any():
        raise _bad("a symbol lies outside its section")
    return SymbolTable(records, names, np.where(absolute, ABSOLUTE, section_of[np.where(absolute, 0, index)]))


def _relocations(
    view: memoryview, headers: list[tuple[int, ...]], sections: dict[int, Section], table: int | None, symbols: int
) -> dict[int, Array]:
    out: dict[int, Array] = {}
    for _, what, _, _, offset, size, link, target, _, entry in headers:
        if what != _RELATABLE or target not in sections:
            continue
        section = sections[target]
        if entry != _RELA.itemsize or size % entry or link != table or target in out:
            raise _bad(f"the relocations of {section.name} are malformed")
        if size and section.data is None:
            raise _bad(f"section {section.name} has no content but relocations")
        records = np.frombuffer(_slice(view, offset, size, f"relocations of {section.name}"), _RELA)
        if ((records["offset"] >= section.size) | (records["symbol"] >= symbols)).any():
            raise _bad(f"a relocation of {section.name} points outside the section or the symbol table")
        out[target] = records
    return out
