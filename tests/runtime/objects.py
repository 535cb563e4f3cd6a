"""Small objects for the runtime tests, compiled from LLVM IR."""

from __future__ import annotations

import functools

TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


@functools.cache
def compile_ir(text: str, arch: str = "", reloc: str = "pic", codemodel: str = "small") -> bytes:
    """The object code of IR `text` for `arch` (default: this machine)."""
    import platform

    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if not arch:
        arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    module = llvm.parse_assembly(text)
    module.triple = TRIPLES[arch]
    module.verify()
    maker = llvm.Target.from_triple(module.triple).create_target_machine(opt=2, reloc=reloc, codemodel=codemodel)
    code: bytes = maker.emit_object(module)
    return code


LOAD_IO = """
  %ioa = getelementptr i8, ptr %ctx, i64 16
  %io = load ptr, ptr %ioa
  %pa = getelementptr ptr, ptr %io, i64 0
  %a = load ptr, ptr %pa
  %pb = getelementptr ptr, ptr %io, i64 1
  %b = load ptr, ptr %pb
  %pc = getelementptr ptr, ptr %io, i64 2
  %c = load ptr, ptr %pc
"""


def add_ir(n: int) -> str:
    """c = a + b over n floats: phase 1 copies a into the arena by shares, a barrier, phase 2 adds in mirrored shares.

    The mirrored shares make every thread read what another one wrote, so a broken barrier shows.
    """
    return f"""
declare void @diptych_barrier(ptr, i64)
define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {{
entry:
{LOAD_IO}
  %arena = load ptr, ptr %ctx
  br label %copy
copy:
  %i = phi i64 [ %ith, %entry ], [ %i1, %copybody ]
  %ci = icmp ult i64 %i, {n}
  br i1 %ci, label %copybody, label %meet
copybody:
  %ap = getelementptr float, ptr %a, i64 %i
  %av = load float, ptr %ap
  %tp = getelementptr float, ptr %arena, i64 %i
  store float %av, ptr %tp
  %i1 = add i64 %i, %nth
  br label %copy
meet:
  call void @diptych_barrier(ptr %ctx, i64 %nth)
  br label %add
add:
  %j = phi i64 [ %ith, %meet ], [ %j1, %addbody ]
  %cj = icmp ult i64 %j, {n}
  br i1 %cj, label %addbody, label %leave
addbody:
  %k0 = sub i64 {n - 1}, %j
  %xp = getelementptr float, ptr %arena, i64 %k0
  %x = load float, ptr %xp
  %yp = getelementptr float, ptr %b, i64 %k0
  %y = load float, ptr %yp
  %z = fadd float %x, %y
  %zp = getelementptr float, ptr %c, i64 %k0
  store float %z, ptr %zp
  %j1 = add i64 %j, %nth
  br label %add
leave:
  call void @diptych_barrier(ptr %ctx, i64 %nth)
  br label %wipe
wipe:
  %w = phi i64 [ %ith, %leave ], [ %w1, %wipebody ]
  %cw = icmp ult i64 %w, {n}
  br i1 %cw, label %wipebody, label %out
wipebody:
  %wp = getelementptr float, ptr %arena, i64 %w
  store float 0x7FF8000000000000, ptr %wp
  %w1 = add i64 %w, %nth
  br label %wipe
out:
  ret void
}}
"""


def barriers_ir(rounds: int) -> str:
    """Each of `rounds` rounds: thread `round % nth` adds 1 to a plain counter, then all meet. Output: the counter."""
    return f"""
declare void @diptych_barrier(ptr, i64)
define void @diptych_run(i64 %ith, i64 %nth, ptr %ctx) {{
entry:
  %ioa = getelementptr i8, ptr %ctx, i64 16
  %io = load ptr, ptr %ioa
  %out = load ptr, ptr %io
  %arena = load ptr, ptr %ctx
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %meet ]
  %turn = urem i64 %i, %nth
  %mine = icmp eq i64 %turn, %ith
  br i1 %mine, label %bump, label %meet
bump:
  %v = load i64, ptr %arena
  %v1 = add i64 %v, 1
  store i64 %v1, ptr %arena
  br label %meet
meet:
  call void @diptych_barrier(ptr %ctx, i64 %nth)
  %i1 = add i64 %i, 1
  %go = icmp ult i64 %i1, {rounds}
  br i1 %go, label %loop, label %done
done:
  %first = icmp eq i64 %ith, 0
  br i1 %first, label %tell, label %end
tell:
  %r = load i64, ptr %arena
  store i64 %r, ptr %out
  store i64 0, ptr %arena
  %o1 = getelementptr i64, ptr %out, i64 1
  store i64 %nth, ptr %o1
  br label %end
end:
  ret void
}}
"""
