"""The Python call path as LLVM IR: checks of the arguments, outputs through NumPy's C API, the frame, the result."""

from __future__ import annotations

from diptych.runtime import records as r

__all__ = ["call_ir"]

_CALL = f"""
@_Py_NotImplementedStruct = external global i8
@_Py_NoneStruct = external global i8
declare ptr @PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare i64 @llvm.umin.i64(i64, i64)

; Is %a exactly what record %rec asks for? Then its data, else null.
define internal ptr @fits(ptr %a, ptr %rec, ptr %type) alwaysinline {{
entry:
  %wanta = getelementptr i8, ptr %rec, i64 {r.RECORD_FLAGS}
  %want = load i32, ptr %wanta
  %ta = getelementptr i8, ptr %a, i64 {r.OB_TYPE}
  %t = load ptr, ptr %ta
  %exact = icmp eq ptr %t, %type
  br i1 %exact, label %flags, label %no
flags:
  %fa = getelementptr i8, ptr %a, i64 {r.A_FLAGS}
  %f = load i32, ptr %fa
  %fm = and i32 %f, %want
  %fok = icmp eq i32 %fm, %want
  br i1 %fok, label %dtype, label %no
dtype:
  %da = getelementptr i8, ptr %a, i64 {r.A_DESCR}
  %descr = load ptr, ptr %da
  %na = getelementptr i8, ptr %descr, i64 {r.DT_NUM}
  %num = load i32, ptr %na
  %wantnum = load i32, ptr %rec
  %numok = icmp eq i32 %num, %wantnum
  %ba = getelementptr i8, ptr %descr, i64 {r.DT_ORDER}
  %order = load i8, ptr %ba
  %native = icmp ne i8 %order, {ord(">")}
  %dok = and i1 %numok, %native
  br i1 %dok, label %rank, label %no
rank:
  %nda = getelementptr i8, ptr %a, i64 {r.A_ND}
  %nd = load i32, ptr %nda
  %wna = getelementptr i8, ptr %rec, i64 8
  %wnd = load i32, ptr %wna
  %ndok = icmp eq i32 %nd, %wnd
  br i1 %ndok, label %shape, label %no
shape:
  %dima = getelementptr i8, ptr %a, i64 {r.A_DIMS}
  %dims = load ptr, ptr %dima
  %wda = getelementptr i8, ptr %rec, i64 16
  %wdims = load ptr, ptr %wda
  br label %each
each:
  %k = phi i32 [ 0, %shape ], [ %k1, %next ]
  %end = icmp eq i32 %k, %nd
  br i1 %end, label %yes, label %compare
compare:
  %pa = getelementptr i64, ptr %dims, i32 %k
  %x = load i64, ptr %pa
  %pb = getelementptr i64, ptr %wdims, i32 %k
  %y = load i64, ptr %pb
  %xy = icmp eq i64 %x, %y
  br i1 %xy, label %next, label %no
next:
  %k1 = add i32 %k, 1
  br label %each
yes:
  %dpa = getelementptr i8, ptr %a, i64 {r.A_DATA}
  %data = load ptr, ptr %dpa
  ret ptr %data
no:
  ret ptr null
}}

; Is tensor %i, if it is written to, apart in memory from all tensors before it? Those that are written to come last.
define internal i1 @apart(ptr %recs, ptr %io, i64 %i) alwaysinline {{
entry:
  %io8 = mul i64 %i, {r.RECORD_BYTES}
  %ir = getelementptr i8, ptr %recs, i64 %io8
  %wa = getelementptr i8, ptr %ir, i64 {r.RECORD_FLAGS}
  %w = load i32, ptr %wa
  %written = icmp eq i32 %w, {r.FLAGS_OUT}
  br i1 %written, label %begin, label %yes
begin:
  %ia = getelementptr ptr, ptr %io, i64 %i
  %x = load i64, ptr %ia
  %ina = getelementptr i8, ptr %ir, i64 {r.RECORD_NBYTES}
  %xn = load i64, ptr %ina
  %xend = add i64 %x, %xn
  br label %each
each:
  %k = phi i64 [ 0, %begin ], [ %k1, %next ]
  %end = icmp eq i64 %k, %i
  br i1 %end, label %yes, label %compare
compare:
  %ka = getelementptr ptr, ptr %io, i64 %k
  %y = load i64, ptr %ka
  %ko = mul i64 %k, {r.RECORD_BYTES}
  %kr = getelementptr i8, ptr %recs, i64 %ko
  %kna = getelementptr i8, ptr %kr, i64 {r.RECORD_NBYTES}
  %yn = load i64, ptr %kna
  %yend = add i64 %y, %yn
  %before = icmp ule i64 %xend, %y
  %after = icmp ule i64 %yend, %x
  %side = or i1 %before, %after
  %smaller = call i64 @llvm.umin.i64(i64 %xn, i64 %yn)
  %empty = icmp eq i64 %smaller, 0
  %ok = or i1 %side, %empty
  br i1 %ok, label %next, label %no
next:
  %k1 = add i64 %k, 1
  br label %each
yes:
  ret i1 true
no:
  ret i1 false
}}

; The run with the GIL given up around it when the descriptor says so.
define internal void @run_frame(ptr %d, ptr %frame) alwaysinline {{
entry:
  %ra = getelementptr i8, ptr %d, i64 {r.D_RELEASE_GIL}
  %rel = load i64, ptr %ra
  %yes = icmp ne i64 %rel, 0
  br i1 %yes, label %release, label %keep
release:
  %ts = call ptr @PyEval_SaveThread()
  call void @diptych_execute(ptr %d, ptr %frame)
  call void @PyEval_RestoreThread(ptr %ts)
  ret void
keep:
  call void @diptych_execute(ptr %d, ptr %frame)
  ret void
}}

; The free list is only touched with the GIL held: that is its lock.
define void @diptych_give(ptr %d, ptr %frame) {{
  %fa = getelementptr i8, ptr %d, i64 {r.D_FREE}
  %head = load ptr, ptr %fa
  store ptr %head, ptr %frame
  store ptr %frame, ptr %fa
  ret void
}}

; One call. Result: a new reference; null with an exception set; or, borrowed, @_Py_NotImplementedStruct when
; arguments, frames or workers are not ready for the fast path. %into: the outputs are arguments too, the result
; is @_Py_NoneStruct, borrowed.
define internal ptr @attempt(ptr %self, ptr %args, i64 %nargs, i1 %into) {{
entry:
  %sd = getelementptr i8, ptr %self, i64 {r.A_DATA}
  %d = load ptr, ptr %sd
  %nin = load i64, ptr %d
  %noa = getelementptr i8, ptr %d, i64 {r.D_OUTPUTS}
  %nout = load i64, ptr %noa
  %total = add i64 %nin, %nout
  %need = select i1 %into, i64 %total, i64 %nin
  %right = icmp eq i64 %nargs, %need
  br i1 %right, label %workers, label %slow
workers:
  %nta = getelementptr i8, ptr %d, i64 {r.D_THREADS}
  %nth = load i64, ptr %nta
  %many = icmp ugt i64 %nth, 1
  br i1 %many, label %pool, label %frames
pool:
  %pa = getelementptr i8, ptr %d, i64 {r.D_POOL}
  %pl = load ptr, ptr %pa
  %la = getelementptr i8, ptr %pl, i64 {r.POOL_LIVE}
  %live = load atomic i32, ptr %la acquire, align 4
  %alive = icmp ne i32 %live, 0
  br i1 %alive, label %frames, label %slow
frames:
  %fa = getelementptr i8, ptr %d, i64 {r.D_FREE}
  %frame = load ptr, ptr %fa
  %none = icmp eq ptr %frame, null
  br i1 %none, label %slow, label %check
check:
  %ta = getelementptr i8, ptr %d, i64 {r.D_NDARRAY}
  %type = load ptr, ptr %ta
  %recs = getelementptr i8, ptr %d, i64 {r.D_RECORDS}
  %io = getelementptr i8, ptr %frame, i64 {r.FRAME_IO}
  %objs = getelementptr ptr, ptr %io, i64 %total
  br label %arg
arg:
  %i = phi i64 [ 0, %check ], [ %i1, %good ]
  %all = icmp eq i64 %i, %need
  br i1 %all, label %take, label %test
test:
  %aa = getelementptr ptr, ptr %args, i64 %i
  %a = load ptr, ptr %aa
  %ro = mul i64 %i, {r.RECORD_BYTES}
  %rec = getelementptr i8, ptr %recs, i64 %ro
  %data = call ptr @fits(ptr %a, ptr %rec, ptr %type)
  %bad = icmp eq ptr %data, null
  br i1 %bad, label %slow, label %good
good:
  %ioa = getelementptr ptr, ptr %io, i64 %i
  store ptr %data, ptr %ioa
  %i1 = add i64 %i, 1
  %apart = call i1 @apart(ptr %recs, ptr %io, i64 %i)
  br i1 %apart, label %arg, label %slow
take:
  %rest = load ptr, ptr %frame
  store ptr %rest, ptr %fa
  br i1 %into, label %direct, label %alloc
direct:
  call void @run_frame(ptr %d, ptr %frame)
  call void @diptych_give(ptr %d, ptr %frame)
  ret ptr @_Py_NoneStruct
alloc:
  %j = phi i64 [ 0, %take ], [ %j1, %made ]
  %full = icmp eq i64 %j, %nout
  br i1 %full, label %execute, label %make
make:
  %oi = add i64 %nin, %j
  %oro = mul i64 %oi, {r.RECORD_BYTES}
  %orec = getelementptr i8, ptr %recs, i64 %oro
  %onda = getelementptr i8, ptr %orec, i64 8
  %ond = load i32, ptr %onda
  %odima = getelementptr i8, ptr %orec, i64 16
  %odims = load ptr, ptr %odima
  %odea = getelementptr i8, ptr %orec, i64 24
  %ode = load ptr, ptr %odea
  call void @Py_IncRef(ptr %ode)
  %o = call ptr @PyArray_NewFromDescr(ptr %type, ptr %ode, i32 %ond, ptr %odims, ptr null, ptr null, i32 0, ptr null)
  %failed = icmp eq ptr %o, null
  br i1 %failed, label %undo, label %made
made:
  %obja = getelementptr ptr, ptr %objs, i64 %j
  store ptr %o, ptr %obja
  %oda = getelementptr i8, ptr %o, i64 {r.A_DATA}
  %od = load ptr, ptr %oda
  %oioa = getelementptr ptr, ptr %io, i64 %oi
  store ptr %od, ptr %oioa
  %j1 = add i64 %j, 1
  br label %alloc
undo:
  %u = phi i64 [ %j, %make ], [ %u1, %drop ], [ %nout, %notuple ]
  %empty = icmp eq i64 %u, 0
  br i1 %empty, label %error, label %drop
drop:
  %u1 = sub i64 %u, 1
  %ua = getelementptr ptr, ptr %objs, i64 %u1
  %uo = load ptr, ptr %ua
  call void @Py_DecRef(ptr %uo)
  br label %undo
error:
  call void @diptych_give(ptr %d, ptr %frame)
  ret ptr null
execute:
  call void @run_frame(ptr %d, ptr %frame)
  %one = icmp eq i64 %nout, 1
  br i1 %one, label %single, label %several
single:
  %result = load ptr, ptr %objs
  call void @diptych_give(ptr %d, ptr %frame)
  ret ptr %result
several:
  %tuple = call ptr @PyTuple_New(i64 %nout)
  %nomem = icmp eq ptr %tuple, null
  br i1 %nomem, label %notuple, label %fill
notuple:
  br label %undo
fill:
  %m = phi i64 [ 0, %several ], [ %m1, %put ]
  %filled = icmp eq i64 %m, %nout
  br i1 %filled, label %finish, label %put
put:
  %ma = getelementptr ptr, ptr %objs, i64 %m
  %mo = load ptr, ptr %ma
  %mr = call i32 @PyTuple_SetItem(ptr %tuple, i64 %m, ptr %mo)
  %m1 = add i64 %m, 1
  br label %fill
finish:
  call void @diptych_give(ptr %d, ptr %frame)
  ret ptr %tuple
slow:
  ret ptr @_Py_NotImplementedStruct
}}

; model(*inputs): the fast path, or whatever the descriptor's Python fallback makes of the same arguments.
define ptr @diptych_call(ptr %self, ptr %args, i64 %nargs) {{
  %r = call ptr @attempt(ptr %self, ptr %args, i64 %nargs, i1 false)
  %slow = icmp eq ptr %r, @_Py_NotImplementedStruct
  br i1 %slow, label %fall, label %out
fall:
  %sd = getelementptr i8, ptr %self, i64 {r.A_DATA}
  %d = load ptr, ptr %sd
  %fba = getelementptr i8, ptr %d, i64 {r.D_FALLBACK}
  %fb = load ptr, ptr %fba
  %v = call ptr @PyObject_Vectorcall(ptr %fb, ptr %args, i64 %nargs, ptr null)
  ret ptr %v
out:
  ret ptr %r
}}

; The same without the fallback: NotImplemented says that the fast path does not apply.
define ptr @diptych_try(ptr %self, ptr %args, i64 %nargs) {{
  %r = call ptr @attempt(ptr %self, ptr %args, i64 %nargs, i1 false)
  %slow = icmp eq ptr %r, @_Py_NotImplementedStruct
  br i1 %slow, label %fall, label %out
fall:
  call void @Py_IncRef(ptr %r)
  br label %out
out:
  ret ptr %r
}}

; run_into(*inputs, *outputs): None, or NotImplemented when the fast path does not apply.
define ptr @diptych_into(ptr %self, ptr %args, i64 %nargs) {{
  %r = call ptr @attempt(ptr %self, ptr %args, i64 %nargs, i1 true)
  call void @Py_IncRef(ptr %r)
  ret ptr %r
}}
"""


def _method(name: str) -> str:
    size = len(name) + 1
    return f"""
@name_{name} = internal constant [{size} x i8] c"{name}\\00"
@{name}_def = global {{ ptr, ptr, i32, ptr }} {{ ptr @name_{name}, ptr @{name}, i32 {r.METH_FASTCALL}, ptr null }}
"""


def call_ir() -> str:
    """The IR of `diptych_call`, `diptych_try`, `diptych_into`, `diptych_give`; needs `diptych_execute`."""
    return _CALL + "".join(_method(n) for n in ("diptych_call", "diptych_try", "diptych_into"))
