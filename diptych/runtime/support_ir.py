"""The run-time support code as LLVM IR: barrier, worker loop, job start; the Python call path is in `call_ir.py`.

Everything here is machine code's own view of four records, all plain memory laid out by `records.py`:
the descriptor of a model, the frame of a call, the pool of workers, and the fields of NumPy's array object.
"""

from __future__ import annotations

from diptych.runtime import records as r
from diptych.runtime.call_ir import call_ir
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
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define internal i32 @cpu() alwaysinline {{
  %cpu = call i32 @sched_getcpu()
  ret i32 %cpu
}}

; A thread just woken is often put on the CPU of its waker, and stays there for milliseconds: two threads that wait for
; each other then share one core. A worker that finds itself there leaves for the other CPUs of this process.
define internal void @part(ptr %pool) alwaysinline {{
entry:
  %at = getelementptr i8, ptr %pool, i64 {r.POOL_CPU}
  %theirs = load i32, ptr %at
  %own = call i32 @sched_getcpu()
  %same = icmp eq i32 %own, %theirs
  br i1 %same, label %ask, label %out
ask:
  %mayat = getelementptr i8, ptr %pool, i64 {r.POOL_MOVES}
  %may = load i32, ptr %mayat
  %no = icmp eq i32 %may, 0
  br i1 %no, label %out, label %leave
leave:
  call void @leave(ptr %pool, i32 %own)
  br label %out
out:
  ret void
}}

define internal void @leave(ptr %pool, i32 %cpu) noinline {{
entry:
  %set = alloca [{r.CPUS_BYTES} x i8], align 8
  %all = getelementptr i8, ptr %pool, i64 {r.POOL_CPUS}
  call void @llvm.memcpy.p0.p0.i64(ptr %set, ptr %all, i64 {r.CPUS_BYTES}, i1 false)
  %known = icmp ult i32 %cpu, {8 * r.CPUS_BYTES}
  br i1 %known, label %clear, label %out
clear:
  %byte = lshr i32 %cpu, 3
  %bit = and i32 %cpu, 7
  %one = shl i32 1, %bit
  %bit8 = trunc i32 %one to i8
  %others = xor i8 %bit8, -1
  %at = getelementptr i8, ptr %set, i32 %byte
  %old = load i8, ptr %at
  %new = and i8 %old, %others
  store i8 %new, ptr %at
  %r = call i32 @sched_setaffinity(i32 0, i64 {r.CPUS_BYTES}, ptr %set)
  br label %out
out:
  ret void
}}

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
define internal i32 @cpu() alwaysinline {
  ret i32 -1
}
define internal void @part(ptr %pool) alwaysinline {
  ret void
}
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
  call void @part(ptr %pool)
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
  %pcpu = getelementptr i8, ptr %pool, i64 {r.POOL_CPU}
  %cpu = call i32 @cpu()
  store i32 %cpu, ptr %pcpu
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


def support_ir(machine: int, linux: bool) -> str:
    """The IR of the whole support object for one architecture."""
    return _parking(machine, linux) + _waiting(machine) + _POOL + call_ir()
