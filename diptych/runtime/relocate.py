"""Applying relocations: the arithmetic of the x86-64 and aarch64 ELF ABIs, on a buffer, checked for reach."""

from __future__ import annotations

import struct
from collections.abc import Callable

from diptych.errors import FormatError

__all__ = ["AARCH64_CALLS", "AARCH64_GOT", "STUB_BYTES", "X86_CALLS", "X86_GOT", "patch_aarch64", "patch_x86_64", "stub"]

X86_CALLS = frozenset({4})  # PLT32
X86_GOT = frozenset({9, 41, 42})  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
AARCH64_CALLS = frozenset({282, 283})  # JUMP26, CALL26
AARCH64_GOT = frozenset({311, 312})  # ADR_GOT_PAGE, LD64_GOT_LO12_NC
STUB_BYTES = 16

Refuse = Callable[[str], FormatError]


def stub(machine_is_x86: bool, target: int) -> bytes:
    """A 16-byte jump to any 64-bit address, for calls that do not reach."""
    if machine_is_x86:
        return b"\xff\x25\x02\x00\x00\x00\x0f\x0b" + struct.pack("<Q", target)  # jmp [rip+2]; ud2; address
    return struct.pack("<IIQ", 0x58000050, 0xD61F0200, target)  # ldr x16, [pc+8]; br x16; address


def _signed(value: int, bits: int, refuse: Refuse) -> int:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise refuse(f"the target is {value} bytes away, more than {bits} bits reach: compile with reloc='pic'")
    return value & ((1 << bits) - 1)


def _unsigned(value: int, bits: int, refuse: Refuse) -> int:
    if not 0 <= value < 1 << bits:
        raise refuse(f"the address {value:#x} needs more than {bits} bits: compile with reloc='pic'")
    return value


def _put(image: bytearray, at: int, size: int, value: int, refuse: Refuse) -> None:
    if at + size > len(image):
        raise refuse("it reaches past the end")
    image[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def patch_x86_64(image: bytearray, at: int, kind: int, place: int, target: int, refuse: Refuse) -> None:
    """Apply relocation `kind` at image[at] (address `place`) to `target` (S + A, or GOT slot + A)."""
    if kind == 1:  # 64
        _put(image, at, 8, target, refuse)
    elif kind in (2, 4, 9, 41, 42):  # PC32, PLT32, GOTPCREL*
        _put(image, at, 4, _signed(target - place, 32, refuse), refuse)
    elif kind == 10:  # 32
        _put(image, at, 4, _unsigned(target, 32, refuse), refuse)
    elif kind == 11:  # 32S
        _put(image, at, 4, _signed(target, 32, refuse), refuse)
    elif kind == 24:  # PC64
        _put(image, at, 8, target - place, refuse)
    else:
        raise refuse("this kind is not supported: compile with reloc='pic', codemodel='small'")


_LOW12 = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}  # ADD_ABS_LO12_NC, LDST{8,16,32,64,128}, LD64_GOT
_MOVW = {263: 0, 264: 0, 265: 16, 266: 16, 267: 32, 268: 32, 269: 48}  # MOVW_UABS_G0 .. G3


def patch_aarch64(image: bytearray, at: int, kind: int, place: int, target: int, refuse: Refuse) -> None:
    """Apply relocation `kind` at image[at] (address `place`) to `target` (S + A, or GOT slot + A)."""
    if kind in (257, 260):  # ABS64, PREL64
        _put(image, at, 8, target if kind == 257 else target - place, refuse)
        return
    if kind in (258, 261):  # ABS32, PREL32
        value = _unsigned(target, 32, refuse) if kind == 258 else _signed(target - place, 32, refuse)
        _put(image, at, 4, value, refuse)
        return
    if at + 4 > len(image) or at % 4:
        raise refuse("it does not lie on an instruction")
    word = int.from_bytes(image[at : at + 4], "little")
    if kind in (282, 283):  # JUMP26, CALL26
        if (target - place) % 4:
            raise refuse("the target of a branch is not an instruction")
        word = word & 0xFC000000 | _signed(target - place, 28, refuse) >> 2
    elif kind in (275, 276, 311, 274):  # ADR_PREL_PG_HI21(_NC), ADR_GOT_PAGE, ADR_PREL_LO21
        if kind == 274:
            field = _signed(target - place, 21, refuse)
        else:
            field = _signed((target & ~4095) - (place & ~4095), 33, refuse) >> 12
        word = word & 0x9F00001F | (field & 3) << 29 | (field >> 2) << 5
    elif kind in _LOW12:
        scale = _LOW12[kind]
        low = target & 4095
        if low & ((1 << scale) - 1):
            raise refuse(f"the target is not aligned to {1 << scale} bytes")
        word = word & 0xFFC003FF | (low >> scale) << 10
    elif kind in (273, 280):  # LD_PREL_LO19, CONDBR19
        word = word & 0xFF00001F | (_signed(target - place, 21, refuse) >> 2) << 5
    elif kind == 279:  # TSTBR14
        word = word & 0xFFF8001F | (_signed(target - place, 16, refuse) >> 2) << 5
    elif kind in _MOVW:
        word = word & 0xFFE0001F | ((target >> _MOVW[kind]) & 0xFFFF) << 5
    else:
        raise refuse("this kind is not supported: compile with reloc='pic', codemodel='small'")
    _put(image, at, 4, word, refuse)
