"""Byte offsets of the records that Python and the generated code share, and of the CPython and NumPy fields read.

Descriptor (one per model, the data of a uint64 array): counts, addresses, then one record per tensor.
Frame (one per concurrent call): link, context, barrier, pointers, the arena. Pool: one per number of threads.
"""

from __future__ import annotations

__all__ = [
    "A_DATA",
    "A_DESCR",
    "A_DIMS",
    "A_FLAGS",
    "A_ND",
    "CPUS_BYTES",
    "CTX_BARRIER",
    "DT_NUM",
    "DT_ORDER",
    "D_FALLBACK",
    "D_FREE",
    "D_NDARRAY",
    "D_OUTPUTS",
    "D_POOL",
    "D_RECORDS",
    "D_RELEASE_GIL",
    "D_RUN",
    "D_THREADS",
    "FLAGS_IN",
    "FLAGS_OUT",
    "FRAME_CTX",
    "FRAME_IO",
    "LINE",
    "METH_FASTCALL",
    "OB_TYPE",
    "POOL_BYTES",
    "POOL_CPU",
    "POOL_CPUS",
    "POOL_CTX",
    "POOL_DONE",
    "POOL_EPOCH",
    "POOL_JOB",
    "POOL_LIVE",
    "POOL_MOVES",
    "POOL_NTH",
    "POOL_SLEEPERS",
    "POOL_SPIN",
    "POOL_STOP",
    "RECORD_BYTES",
    "RECORD_FLAGS",
    "RECORD_NBYTES",
]  # fmt: skip

LINE = 128  # two cache lines: the neighbour is fetched along on x86, and some ARM cores have 128-byte lines

# PyObject, PyArrayObject_fields and PyArray_Descr on 64-bit CPython with the GIL; the same in NumPy 1.26 and 2.x
OB_TYPE = 8
A_DATA, A_ND, A_DIMS, A_DESCR, A_FLAGS = 16, 24, 32, 56, 64
DT_ORDER, DT_NUM = 26, 28
FLAGS_IN, FLAGS_OUT = 0x101, 0x501  # C_CONTIGUOUS | ALIGNED, and WRITEABLE
METH_FASTCALL = 0x80

# descriptor; the number of inputs is at 0
D_OUTPUTS, D_THREADS, D_RELEASE_GIL, D_RUN, D_POOL, D_FREE, D_FALLBACK, D_NDARRAY = (8 * i for i in range(1, 9))
D_RECORDS = 128
RECORD_BYTES = 40  # type number, flags, rank, address of the extents, NumPy's descriptor object, bytes of the tensor
RECORD_FLAGS = 4  # what an array given for it must have: FLAGS_OUT where it is written to
RECORD_NBYTES = 32

# frame; the link to the next free frame is at 0
FRAME_CTX = 64  # the ctx of the model code: arena, weights, io, barrier state
CTX_BARRIER = 24
FRAME_BARRIER = LINE  # the count of arrivals; one line further, the epoch
FRAME_IO = 3 * LINE  # pointers to inputs and outputs, then the output objects of the call, then the arena

# pool; the lock is at 0
POOL_EPOCH, POOL_JOB, POOL_NTH, POOL_CTX = LINE, LINE + 8, LINE + 16, LINE + 24
POOL_CPU = LINE + 32  # the CPU that the caller runs on
POOL_DONE = 2 * LINE
POOL_SLEEPERS = 3 * LINE
POOL_STOP, POOL_LIVE, POOL_SPIN = 4 * LINE, 4 * LINE + 4, 4 * LINE + 8
POOL_MOVES = 4 * LINE + 12  # whether workers may change the CPUs they run on: there is one for each thread
POOL_CPUS = 5 * LINE  # the CPUs that this process may use, as bits
CPUS_BYTES = 128
POOL_BYTES = 6 * LINE
