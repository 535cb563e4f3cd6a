"""The run-time support code as LLVM IR: barrier, worker loop, job start, and the Python call path.

Everything here is machine code's own view of four records, all plain memory laid out by `records.py`:
the descriptor of a model, the frame of a call, the pool of workers, and the fields of NumPy's array object.
"""

from __future__ import annotations

from diptych.runtime import records as r
from diptych.runtime.elf import AARCH64, X86_64

__all__ = ["support_ir"]

# A waiting thread spins this many pauses (about 10 to 40 us), then offers its core to others at every look:
# on a machine with more threads than cores a pure spin would burn whole time slices.
_SPINS_BEFORE_YIELD = 1024

# Intrinsics and libc's syscall(), not inline assembly: that needs the target's assembly parser, and buys nothing here.
_PAUSE = {
    X86_64: ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    AARCH64: ("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
}
_FUTEX = {X86_64: 202, AARCH64: 98}  # the system call's number
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE


def _parking(machine: int, linux: bool) -> str:
    if linux:
        return f"""
declare i64 @syscall(i64, ...)
define internal void @futex(ptr %word, i64 %op, i64 %value) noinline {{
  %r = call i64 (i64, ...) @syscall(i64 {_FUTEX[machine]}, ptr %word, i64 %op, i64 %value, i64 0)
  ret void
}}
define internal void @park(ptr %word, i32 %seen) alwaysinline {{
  %value = zext i32 %seen to i64
  call void @futex(ptr %word, i64 {_WAIT}, i64 %value)
  ret void
}}
define internal void @unpark(ptr %word) alwaysinline {{
  call void @futex(ptr %word, i64 {_WAKE}, i64 2147483647)
  ret void
}}
"""
    # No futex here: a parked worker looks for work every 200 us.
    return """
declare i32 @usleep(i32)
define internal void @park(ptr %word, i32 %seen) alwaysinline {
  %r = call i32 @usleep(i32 200)
  ret void
}
define internal void @unpark(ptr %word) alwaysinline {
  ret void
}
"""


def _waiting(machine: int) -> str:
    return f"""
declare i32 @sched_yield()
{_PAUSE[machine][0]}

define internal void @pause() alwaysinline {{
  {_PAUSE[machine][1]}
  ret void
}}

; returns once *word == want (equal) or *word != want (not equal)
define internal void @await(ptr %word, i32 %want, i1 %equal) noinline {{
entry:
  br label %look
look:
  %i = phi i32 [ 0, %entry ], [ %i1, %wait ], [ %i1, %yield ]
  %v = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %v, %want
  %stay = xor i1 %same, %equal
  br i1 %stay, label %more, label %done
more:
  call void @pause()
  %i1 = add i32 %i, 1
  %long = icmp ugt i32 %i, {_SPINS_BEFORE_YIELD}
  br i1 %long, label %yield, label %wait
wait:
  br label %look
yield:
  %r = call i32 @sched_yield()
  br label %look
done:
  ret void
}}

define void @diptych_spin(i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  call void @pause()
  %i1 = add i64 %i, 1
  %go = icmp ult i64 %i1, %n
  br i1 %go, label %loop, label %done
done:
  ret void
}}

; Every thread of the run arrives; the last one opens the gate by moving the epoch on.
define void @diptych_barrier(ptr %ctx, i64 %nth) {{
entry:
  %alone = icmp ule i64 %nth, 1
  br i1 %alone, label %out, label %arrive
arrive:
  %at = getelementptr i8, ptr %ctx, i64 {r.CTX_BARRIER}
  %count = load ptr, ptr %at
  %gate = getelementptr i8, ptr %count, i64 {r.LINE}
  %epoch = load atomic i32, ptr %gate monotonic, align 4
  %before = atomicrmw add ptr %count, i32 1 acq_rel
  %n = trunc i64 %nth to i32
  %n1 = sub i32 %n, 1
  %last = icmp eq i32 %before, %n1
  br i1 %last, label %open, label %closed
open:
  store atomic i32 0, ptr %count monotonic, align 4
  %next = add i32 %epoch, 1
  store atomic i32 %next, ptr %gate release, align 4
  br label %out
closed:
  call void @await(ptr %gate, i32 %epoch, i1 false)
  br label %out
out:
  ret void
}}
"""


_POOL = f"""
; A worker's life: wait for the epoch to move, run the job, say so. Returns when the pool is stopped.
define void @diptych_worker(ptr %pool, i64 %ith) {{
entry:
  %epoch = getelementptr i8, ptr %pool, i64 {r.POOL_EPOCH}
  %jobat = getelementptr i8, ptr %pool, i64 {r.POOL_JOB}
  %nthat = getelementptr i8, ptr %pool, i64 {r.POOL_NTH}
  %ctxat = getelementptr i8, ptr %pool, i64 {r.POOL_CTX}
  %done = getelementptr i8, ptr %pool, i64 {r.POOL_DONE}
  %sleepers = getelementptr i8, ptr %pool, i64 {r.POOL_SLEEPERS}
  %stopat = getelementptr i8, ptr %pool, i64 {r.POOL_STOP}
  %spinat = getelementptr i8, ptr %pool, i64 {r.POOL_SPIN}
  %limit = load i32, ptr %spinat
  br label %look
look:
  %seen = phi i32 [ 0, %entry ], [ %seen, %again ], [ %seen, %parked ], [ %now, %run ]
  %i = phi i32 [ 0, %entry ], [ %i1, %again ], [ %i, %parked ], [ 0, %run ]
  %now = load atomic i32, ptr %epoch acquire, align 4
  %idle = icmp eq i32 %now, %seen
  br i1 %idle, label %spin, label %go
spin:
  %tired = icmp uge i32 %i, %limit
  br i1 %tired, label %sleep, label %again
again:
  call void @pause()
  %i1 = add i32 %i, 1
  br label %look
sleep:
  %s0 = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %still = load atomic i32, ptr %epoch seq_cst, align 4
  %same = icmp eq i32 %still, %seen
  br i1 %same, label %park, label %parked
park:
  call void @park(ptr %epoch, i32 %seen)
  br label %parked
parked:
  %s1 = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %look
go:
  %stop = load atomic i32, ptr %stopat acquire, align 4
  %over = icmp ne i32 %stop, 0
  br i1 %over, label %out, label %run
run:
  %job = load ptr, ptr %jobat
  %nth = load i64, ptr %nthat
  %ctx = load ptr, ptr %ctxat
  call void %job(i64 %ith, i64 %nth, ptr %ctx)
  %d = atomicrmw add ptr %done, i32 1 release
  br label %look
out:
  ret void
}}

define internal void @wake(ptr %pool) alwaysinline {{
entry:
  %epoch = getelementptr i8, ptr %pool, i64 {r.POOL_EPOCH}
  %sleepers = getelementptr i8, ptr %pool, i64 {r.POOL_SLEEPERS}
  %e = atomicrmw add ptr %epoch, i32 1 seq_cst
  %s = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %s, 0
  br i1 %any, label %rouse, label %out
rouse:
  call void @unpark(ptr %epoch)
  br label %out
out:
  ret void
}}

; 1 when the pool was idle and is now stopped for good (its lock stays taken: later runs are serial), else 0
define i32 @diptych_stop(ptr %pool) {{
entry:
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %mine = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %mine, label %stop, label %busy
stop:
  %stopat = getelementptr i8, ptr %pool, i64 {r.POOL_STOP}
  store atomic i32 1, ptr %stopat release, align 4
  call void @wake(ptr %pool)
  ret i32 1
busy:
  ret i32 0
}}

; Run the model on one frame: with the pool when it is wanted and free, else alone.
define void @diptych_execute(ptr %d, ptr %frame) {{
entry:
  %ctx = getelementptr i8, ptr %frame, i64 {r.FRAME_CTX}
  %runat = getelementptr i8, ptr %d, i64 {r.D_RUN}
  %run = load ptr, ptr %runat
  %nthat = getelementptr i8, ptr %d, i64 {r.D_THREADS}
  %nth = load i64, ptr %nthat
  %few = icmp ule i64 %nth, 1
  br i1 %few, label %alone, label %try
try:
  %poolat = getelementptr i8, ptr %d, i64 {r.D_POOL}
  %pool = load ptr, ptr %poolat
  %pair = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic
  %mine = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %mine, label %start, label %alone
start:
  %pjob = getelementptr i8, ptr %pool, i64 {r.POOL_JOB}
  %pnth = getelementptr i8, ptr %pool, i64 {r.POOL_NTH}
  %pctx = getelementptr i8, ptr %pool, i64 {r.POOL_CTX}
  %done = getelementptr i8, ptr %pool, i64 {r.POOL_DONE}
  store ptr %run, ptr %pjob
  store i64 %nth, ptr %pnth
  store ptr %ctx, ptr %pctx
  store atomic i32 0, ptr %done monotonic, align 4
  call void @wake(ptr %pool)
  call void %run(i64 0, i64 %nth, ptr %ctx)
  %n = trunc i64 %nth to i32
  %others = sub i32 %n, 1
  call void @await(ptr %done, i32 %others, i1 true)
  store atomic i32 0, ptr %pool release, align 4
  br label %out
alone:
  call void %run(i64 0, i64 1, ptr %ctx)
  br label %out
out:
  ret void
}}
"""

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

; Is %a exactly what record %rec asks for? Then its data, else null. (%want: the flags that must be set.)
define internal ptr @fits(ptr %a, ptr %rec, ptr %type, i32 %want) alwaysinline {{
entry:
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

; Is tensor %i, if it is an output that the caller gave, apart in memory from all tensors before it?
define internal i1 @apart(ptr %recs, ptr %io, i64 %i, i1 %isout) alwaysinline {{
entry:
  br i1 %isout, label %begin, label %yes
begin:
  %ia = getelementptr ptr, ptr %io, i64 %i
  %x = load i64, ptr %ia
  %io8 = mul i64 %i, {r.RECORD_BYTES}
  %ir = getelementptr i8, ptr %recs, i64 %io8
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
  %isout = icmp uge i64 %i, %nin
  %want = select i1 %isout, i32 {r.FLAGS_OUT}, i32 {r.FLAGS_IN}
  %data = call ptr @fits(ptr %a, ptr %rec, ptr %type, i32 %want)
  %bad = icmp eq ptr %data, null
  br i1 %bad, label %slow, label %good
good:
  %ioa = getelementptr ptr, ptr %io, i64 %i
  store ptr %data, ptr %ioa
  %i1 = add i64 %i, 1
  %apart = call i1 @apart(ptr %recs, ptr %io, i64 %i, i1 %isout)
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


def support_ir(machine: int, linux: bool) -> str:
    """The IR of the whole support object for one architecture."""
    methods = "".join(_method(n) for n in ("diptych_call", "diptych_try", "diptych_into"))
    return _parking(machine, linux) + _waiting(machine) + _POOL + _CALL + methods
