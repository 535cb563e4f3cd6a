"""Applying relocations: the arithmetic of the x86-64 and aarch64 ELF ABIs, many places at a time, checked for reach."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.errors import FormatError

__all__ = ["AARCH64_CALLS", "AARCH64_GOT", "STUB_BYTES", "X86_CALLS", "X86_GOT", "patch_aarch64", "patch_x86_64", "stub"]

Array = np.ndarray[Any, Any]
Refuse = Callable[[str], FormatError]

X86_CALLS = (4,)  # PLT32
X86_GOT = (9, 41, 42)  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
AARCH64_CALLS = (282, 283)  # JUMP26, CALL26
AARCH64_GOT = (311, 312)  # ADR_GOT_PAGE, LD64_GOT_LO12_NC
STUB_BYTES = 16


def stub(machine_is_x86: bool, target: int) -> bytes:
    """A 16-byte jump to any 64-bit address, for calls that do not reach."""
    if machine_is_x86:
        return b"\xff\x25\x02\x00\x00\x00\x0f\x0b" + struct.pack("<Q", target)  # jmp [rip+2]; ud2; address
    return struct.pack("<IIQ", 0x58000050, 0xD61F0200, target)  # ldr x16, [pc+8]; br x16; address


def _signed(distance: Array, bits: int, refuse: Refuse) -> Array:
    """`distance` (unsigned, modulo 2^64) as signed numbers that `bits` bits hold."""
    value = distance.view(np.int64)
    if ((value < -(1 << bits - 1)) | (value >= 1 << bits - 1)).any():
        raise refuse(f"a target is out of the reach of {bits} bits: compile with reloc='pic'")
    return value


def _put(image: Array, at: Array, values: Array, size: int, limit: int, refuse: Refuse) -> None:
    if (at + size > limit).any():
        raise refuse("it reaches past the end of the section")
    low = np.ascontiguousarray(values.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, :size]
    image[at[:, None] + np.arange(size)] = low


def patch_x86_64(image: Array, at: Array, kind: int, place: Array, target: Array, limit: int, refuse: Refuse) -> None:
    """Apply relocations of one `kind` at image[at] (addresses `place`) to `target` (S + A, or GOT slot + A).

    `at` is int64, addresses are uint64; nothing at or after `limit` is written.
    """
    if kind == 1:  # 64
        _put(image, at, target, 8, limit, refuse)
    elif kind in (2, 4, *X86_GOT):  # PC32, PLT32, GOTPCREL*
        _put(image, at, _signed(target - place, 32, refuse), 4, limit, refuse)
    elif kind == 10:  # 32
        if (target >> 32).any():
            raise refuse("an address needs more than 32 bits: compile with reloc='pic'")
        _put(image, at, target, 4, limit, refuse)
    elif kind == 11:  # 32S
        _put(image, at, _signed(target, 32, refuse), 4, limit, refuse)
    elif kind == 24:  # PC64
        _put(image, at, target - place, 8, limit, refuse)
    else:
        raise refuse("this kind is not supported: compile with reloc='pic', codemodel='small'")


_LOW12 = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}  # ADD_ABS_LO12_NC, LDST{8,16,32,64,128}, LD64_GOT
_MOVW = {263: 0, 264: 0, 265: 16, 266: 16, 267: 32, 268: 32, 269: 48}  # MOVW_UABS_G0 .. G3
_SHORT = {273: (21, 0xFF00001F), 280: (21, 0xFF00001F), 279: (16, 0xFFF8001F)}  # LD_PREL_LO19, CONDBR19, TSTBR14


def patch_aarch64(image: Array, at: Array, kind: int, place: Array, target: Array, limit: int, refuse: Refuse) -> None:
    """Apply relocations of one `kind`; the arguments are those of `patch_x86_64`."""
    if kind in (257, 260):  # ABS64, PREL64
        _put(image, at, target if kind == 257 else target - place, 8, limit, refuse)
        return
    if kind == 261:  # PREL32
        _put(image, at, _signed(target - place, 32, refuse), 4, limit, refuse)
        return
    if (at % 4 != 0).any() or (at + 4 > limit).any():
        raise refuse("it does not lie on an instruction")
    word = np.ascontiguousarray(image[at[:, None] + np.arange(4)]).view("<u4").reshape(-1).astype(np.int64)
    if kind in AARCH64_CALLS:
        distance = _signed(target - place, 28, refuse)
        if (distance & 3).any():
            raise refuse("the target of a branch is not an instruction")
        word = word & 0xFC000000 | distance >> 2 & 0x3FFFFFF
    elif kind in (274, 275, 276, 311):  # ADR_PREL_LO21, ADR_PREL_PG_HI21(_NC), ADR_GOT_PAGE
        if kind == 274:
            field = _signed(target - place, 21, refuse)
        else:
            field = _signed((target >> 12 << 12) - (place >> 12 << 12), 33, refuse) >> 12
        word = word & 0x9F00001F | (field & 3) << 29 | (field >> 2 & 0x7FFFF) << 5
    elif kind in _LOW12:
        scale, low = _LOW12[kind], (target & 4095).view(np.int64)
        if (low & ((1 << scale) - 1)).any():
            raise refuse(f"a target is not aligned to {1 << scale} bytes")
        word = word & 0xFFC003FF | low >> scale << 10
    elif kind in _SHORT:
        bits, keep = _SHORT[kind]
        word = word & keep | (_signed(target - place, bits, refuse) >> 2 & (1 << bits - 2) - 1) << 5
    elif kind in _MOVW:
        word = word & 0xFFE0001F | (target >> _MOVW[kind] & 0xFFFF).view(np.int64) << 5
    else:
        raise refuse("this kind is not supported: compile with reloc='pic', codemodel='small'")
    _put(image, at, word, 4, limit, refuse)
