"""The object loader: what it runs is right, what is corrupt is refused, memory is never writable and executable."""

from __future__ import annotations

import ctypes
import platform
import struct

import numpy as np
import pytest
from objects import compile_ir

from diptych.errors import DiptychError, FormatError
from diptych.runtime.elf import parse_object
from diptych.runtime.link import Layout, link
from diptych.runtime.loader import LoadedObject, load_object

_PARTS = """
@table = internal constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
@calls = global i64 40
@shown = constant i64 5
@zeros = internal global [100 x i64] zeroinitializer
@pointer = global ptr @calls
declare void @outside(i64)
declare ptr @memcpy(ptr, ptr, i64)
declare double @pow(double, double)

define float @look_up(i64 %i) {
  %p = getelementptr float, ptr @table, i64 %i
  %x = load float, ptr %p
  %y = fadd float %x, 5.5
  ret float %y
}
define i64 @count() {
  %c = load i64, ptr @calls
  %c1 = add i64 %c, 1
  store i64 %c1, ptr @calls
  %at = urem i64 %c1, 100
  %zp = getelementptr i64, ptr @zeros, i64 %at
  %z = load i64, ptr %zp
  %r = add i64 %c1, %z
  call void @outside(i64 %r)
  ret i64 %r
}
define void @copy(ptr %to, ptr %from, i64 %n) {
  %r = call ptr @memcpy(ptr %to, ptr %from, i64 %n)
  ret void
}
define double @power(double %x, double %y) {
  %r = call double @pow(double %x, double %y)
  ret double %r
}
define i64 @through_pointer() {
  %p = load ptr, ptr @pointer
  %v = load i64, ptr %p
  ret i64 %v
}
define <4 x float> @vector(<4 x float> %x) {
  %y = fmul <4 x float> %x, <float 2.0, float 3.0, float 4.0, float 5.0>
  ret <4 x float> %y
}
"""
MODELS = [("pic", "small"), ("default", "jitdefault"), ("static", "default")]
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int64)


def _load(code: bytes, seen: list[int] | None = None) -> tuple[LoadedObject, object]:
    callback = _CALLBACK((seen if seen is not None else []).append)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address
    return load_object(code, {"outside": address}), callback


@pytest.mark.parametrize(("reloc", "model"), MODELS)
def test_code_constants_variables_and_externals(reloc: str, model: str) -> None:
    seen: list[int] = []
    loaded, keep = _load(compile_ir(_PARTS, reloc=reloc, codemodel=model), seen)
    look_up = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(loaded.address("look_up"))
    assert [look_up(i) for i in range(4)] == [6.5, 7.5, 8.5, 9.5]
    count = ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("count"))
    assert [count(), count()] == [41, 42]
    assert seen == [41, 42]
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("through_pointer"))() == 42
    assert ctypes.c_int64.from_address(loaded.address("calls")).value == 42
    power = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_double)(loaded.address("power"))
    assert power(2.0, 10.0) == 1024.0
    source, target = np.arange(5.0), np.zeros(5)
    copy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(loaded.address("copy"))
    copy(target.ctypes.data, source.ctypes.data, source.nbytes)
    assert np.array_equal(source, target)
    assert "count" in loaded
    assert "nothing" not in loaded
    del keep


def _access(address: int) -> str | None:
    with open("/proc/self/maps") as f:
        for line in f:
            span, access = line.split()[:2]
            low, high = (int(x, 16) for x in span.split("-"))
            if low <= address < high:
                return access
    return None


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/self/maps")
def test_never_writable_and_executable_and_unmapped_with_the_object() -> None:
    loaded, _ = _load(compile_ir(_PARTS))
    code, constant, variable = (loaded.address(n) for n in ("look_up", "shown", "calls"))
    assert (_access(code), _access(constant), _access(variable)) == ("r-xp", "r--p", "rw-p")
    del loaded
    assert _access(code) != "r-xp"


def test_unknown_names_are_named() -> None:
    code = compile_ir(_PARTS)
    with pytest.raises(FormatError, match="'outside'"):
        load_object(code, {})
    loaded, _ = _load(code)
    with pytest.raises(FormatError, match="'absent'"):
        loaded.address("absent")


def test_code_of_another_machine_is_refused() -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    with pytest.raises(FormatError, match="machine"):
        load_object(compile_ir(_PARTS, other), {"outside": 1})


def _link(code: bytes, base: int = 0x5555_0000_0000) -> None:
    obj = parse_object(code)
    link(obj, Layout(obj), base, lambda name: 0x7FFF_0000_1230)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("reloc", "model"), MODELS[:2])
def test_truncated_objects_are_refused(arch: str, reloc: str, model: str) -> None:
    code = compile_ir(_PARTS, arch, reloc, model)
    _link(code)
    for size in range(0, len(code) - 1, 7):
        with pytest.raises(FormatError):
            _link(code[:size])


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_flipped_bytes_raise_format_errors_or_nothing(arch: str, rng: np.random.Generator) -> None:
    code = compile_ir(_PARTS, arch)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(code)
        for at in rng.integers(0, len(code), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            _link(bytes(damaged))  # laid out and patched in a plain buffer: never mapped, never run
        except DiptychError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("junk", [b"", b"\x7fELF", b"not an object" * 50, bytes(5000)])
def test_what_is_no_object_is_refused(junk: bytes) -> None:
    with pytest.raises(FormatError, match="ELF64"):
        load_object(junk)


def test_aarch64_addresses_are_computed_as_the_machine_will() -> None:
    """Decodes the patched instructions: ADRP + offset, branches and GOT loads must lead to the right addresses."""
    obj = parse_object(compile_ir(_PARTS, "aarch64"))
    base, outside = 0x5555_0000_0000, 0x7FFF_0000_1230
    image = link(obj, Layout(obj), base, lambda name: outside)
    text = struct.unpack_from(f"<{image.code_end // 4}I", image.data)
    reached: set[int] = set()
    branches: set[int] = set()
    page: dict[int, int] = {}
    for i, word in enumerate(text):
        pc = base + 4 * i
        register, source = word & 31, word >> 5 & 31
        if word & 0x9F000000 == 0x90000000:  # adrp
            field = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
            field -= (field & 1 << 20) << 1
            page[register] = (pc & ~4095) + (field << 12)
        elif word & 0xFFC00000 == 0x91000000 and source in page:  # add x, x, #imm
            reached.add(page[source] + (word >> 10 & 4095))
        elif word & 0xFFC00000 == 0xF9400000 and source in page:  # ldr x, [x, #imm]
            slot = page[source] + 8 * (word >> 10 & 4095)
            if base + image.code_end <= slot < base + image.ro_end:
                reached.add(struct.unpack_from("<Q", image.data, slot - base)[0])
        elif word >> 26 in (5, 37):  # b, bl
            field = word & 0x3FFFFFF
            branches.add(pc + 4 * (field - ((field & 1 << 25) << 1)))
    assert image.names["calls"] in reached
    assert base + image.data.index(struct.pack("<4f", 1, 2, 3, 4)) in reached
    stubs = [b - base for b in branches if struct.unpack_from("<II", image.data, b - base) == (0x58000050, 0xD61F0200)]
    assert len(stubs) == 3  # outside, memcpy, pow
    assert all(struct.unpack_from("<Q", image.data, s + 8)[0] == outside for s in stubs)
    at = image.names["pointer"] - base
    assert struct.unpack_from("<Q", image.data, at)[0] == image.names["calls"]
