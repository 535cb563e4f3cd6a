"""Greedy suppression of overlapping boxes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diptych.codegen.builder import I64, Val
from diptych.codegen.math import Math
from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.base import emits
from diptych.kernels.nest import register_dtype
from diptych.kernels.sorting import merge_sort

if TYPE_CHECKING:
    from llvmlite import ir

    from diptych.codegen.builder import Fn, Index
    from diptych.targets.base import Target

__all__ = ["NmsParams", "make_box_nms"]


@dataclass(frozen=True, slots=True)
class NmsParams:
    """Operands: data[B, N, K], out[B, N, K]. The fields are the operator's; a work item is one image."""

    overlap: float
    valid: float
    topk: int
    box_at: int
    score_at: int
    class_at: int
    background: int
    force: bool
    centers_in: bool
    centers_out: bool
    compact: bool


def make_box_nms(data: Operand, out: Operand, params: NmsParams, target: Target) -> Kernel:
    """Suppression of data[B, N, K] as `params` has it; see the operator box_nms for what that means."""
    images, n = data.shape[:2]
    held = itemsize(register_dtype(data.dtype))
    # score, four corners, class and source row of each candidate; two orders; which are alive
    scratch = n * (5 * held + 8 + 3 * 4 + 8) + 64
    cost = 20 + prod(data.shape) * 2.0 + images * n * 60.0
    return Kernel("box_nms", params, (data, out), 1, images if n else 0, cost, scratch)


@emits("box_nms")
def emit_box_nms(fn: Fn, kernel: Kernel) -> None:
    """Image by image."""
    with fn.loop(fn.args["begin"], fn.args["end"], name="image") as image:
        _Nms(fn, kernel, image).emit()


class _Nms:
    def __init__(self, fn: Fn, kernel: Kernel, image: Index) -> None:
        self.fn, self.kernel, self.image, self.m = fn, kernel, image, Math(fn)
        self.p: NmsParams = kernel.params
        self.data, self.out = kernel.operands
        self.n, self.width = self.data.shape[1:]
        self.held = register_dtype(self.data.dtype)
        # Widest elements first: everything stays aligned.
        self.classes = fn.args["scratch"]
        self.scores = fn.at(self.classes, self.n, "i64")
        self.boxes = fn.at(self.scores, self.n, self.held)
        self.rows = fn.at(self.boxes, 4 * self.n, self.held)
        self.a = fn.at(self.rows, self.n, "i32")
        self.b = fn.at(self.a, self.n, "i32")
        self.alive = fn.at(self.b, self.n, "i32")

    # -- elements ---------------------------------------------------------------------------------------------
    def const(self, v: float) -> Val:
        return self.m.const(v, self.held)

    def load(self, row: Index, column: Index) -> Val:
        at = self.fn.dot([self.image, row, column], self.data.strides)
        v = self.fn.load(self.fn.at(self.fn.args["p0"], at, self.data.dtype), self.data.dtype)
        return self.m.cast(v, self.held)

    def store(self, v: Val, row: Index, column: Index) -> None:
        at = self.fn.dot([self.image, row, column], self.out.strides)
        self.fn.store(self.m.cast(v, self.out.dtype), self.fn.at(self.fn.args["p1"], at, self.out.dtype))

    def whole(self, v: Val) -> ir.Value:
        return self.fn.intrinsic(f"llvm.fptosi.sat.i64.{v.dtype}", I64, [v.ir])

    def get(self, array: ir.Value, i: Index, dtype: str) -> Val:
        return self.fn.load(self.fn.at(array, i, dtype), dtype)

    def put(self, array: ir.Value, i: Index, v: Val) -> None:
        self.fn.store(v, self.fn.at(array, i, v.dtype))

    def copy_row(self, source: Index, to: Index) -> None:
        with self.fn.loop(0, self.width, name="k") as k:
            self.store(self.load(source, k), to, k)

    # -- the algorithm ------------------------------------------------------------------------------------------
    def emit(self) -> None:
        fn, p = self.fn, self.p
        with fn.loop(0, self.n, name="i") as i, fn.loop(0, self.width, name="k") as k:
            self.store(self.const(-1), i, k)
        valid = self.candidates()
        best = merge_sort(
            fn, self.scores, self.held, self.a, self.b, valid, lambda x, y: self.m.cmp("gt", x, y).ir
        )  # by falling score
        count = fn.imin(valid, p.topk) if p.topk >= 0 else valid
        self.corners(best, count)
        self.suppress(best, count)
        self.write(best, count)

    def candidates(self) -> ir.Value:
        """Rows that take part: their number, scores, classes and places. Without `compact` they are written already."""
        fn, p, m = self.fn, self.p, self.m
        have = fn.var(I64, fn.index(0))
        with fn.loop(0, self.n, name="i") as i:
            score = self.load(i, p.score_at)
            fits = m.cmp("gt", score, self.const(p.valid)).ir
            label = self.whole(self.load(i, p.class_at)) if p.class_at >= 0 else fn.index(0)
            if p.class_at >= 0:
                fits = fn.b.and_(fits, fn.b.icmp_signed("!=", label, fn.index(p.background)))
            with fn.if_(fits):
                at = have.get()
                self.put(self.scores, at, score)
                self.put(self.classes, at, Val(label, "i64"))
                self.put(self.rows, at, m.cast(Val(i, "i64"), "i32"))
                if not p.compact:
                    self.copy_row(i, at)
                    self.store(self.const(-1), at, p.class_at)
                have.set(fn.iadd(at, 1))
        return have.get()

    def at(self, order: ir.Value, i: Index) -> ir.Value:
        """The candidate in place i of the order."""
        return self.fn.b.sext(self.get(order, i, "i32").ir, I64)

    def corners(self, order: ir.Value, count: Index) -> None:
        fn, p, m = self.fn, self.p, self.m
        with fn.loop(0, count, name="i") as i:
            row = self.at(self.rows, self.at(order, i))
            box = [self.load(row, p.box_at + k) for k in range(4)]
            if p.centers_in:
                half = [m.mul(v, self.const(0.5)) for v in box[2:]]
                box = [m.sub(box[0], half[0]), m.sub(box[1], half[1]), m.add(box[0], half[0]), m.add(box[1], half[1])]
            for k, v in enumerate(box):
                self.put(self.boxes, fn.iadd(fn.imul(i, 4), k), v)
            self.put(self.alive, i, fn.const(1, "i32"))

    def box(self, i: Index) -> list[Val]:
        return [self.get(self.boxes, self.fn.iadd(self.fn.imul(i, 4), k), self.held) for k in range(4)]

    def suppress(self, order: ir.Value, count: Index) -> None:
        """Each living box drops the later ones of its class that overlap it too much."""
        fn, p, m = self.fn, self.p, self.m

        def lives(i: Index) -> ir.Value:
            return fn.b.icmp_signed("!=", self.get(self.alive, i, "i32").ir, fn.const(0, "i32").ir)

        with fn.loop(0, count, name="i") as i, fn.if_(lives(i)):
            one = self.box(i)
            area = m.mul(m.sub(one[2], one[0]), m.sub(one[3], one[1]))
            own = self.get(self.classes, self.at(order, i), "i64").ir
            with fn.loop(fn.iadd(i, 1), count, name="j") as j, fn.if_(lives(j)):
                two = self.box(j)
                sides = [m.max(m.sub(m.min(one[k + 2], two[k + 2]), m.max(one[k], two[k])), self.const(0)) for k in (0, 1)]
                inter = m.mul(sides[0], sides[1])
                total = m.sub(m.add(area, m.mul(m.sub(two[2], two[0]), m.sub(two[3], two[1]))), inter)
                positive = m.cmp("gt", total, self.const(0))
                share = m.select(positive, m.div(inter, m.select(positive, total, self.const(1))), self.const(0))
                hit = m.cmp("gt" if p.compact else "ge", share, self.const(p.overlap)).ir
                if not p.force and p.class_at >= 0:
                    other = self.get(self.classes, self.at(order, j), "i64").ir
                    hit = fn.b.and_(hit, fn.b.icmp_signed("==", own, other))
                with fn.if_(hit):
                    self.put(self.alive, j, fn.const(0, "i32"))

    def write(self, order: ir.Value, count: Index) -> None:
        fn, p, m = self.fn, self.p, self.m
        free = fn.var(I64, fn.index(0))
        with fn.loop(0, count, name="i") as i:
            lives = fn.b.icmp_signed("!=", self.get(self.alive, i, "i32").ir, fn.const(0, "i32").ir)
            with fn.if_(lives if p.compact else fn.b.icmp_signed(">=", i, fn.index(0))):
                to = free.get()
                self.copy_row(self.at(self.rows, self.at(order, i)), to)
                if p.centers_in != p.centers_out:
                    box = self.box(i)
                    if p.centers_out:
                        middle = [m.mul(m.add(box[k], box[k + 2]), self.const(0.5)) for k in (0, 1)]
                        box = [*middle, m.sub(box[2], box[0]), m.sub(box[3], box[1])]
                    for k, v in enumerate(box):
                        self.store(v, to, p.box_at + k)
                if not p.compact:
                    with fn.if_(fn.b.not_(lives)):
                        self.store(self.const(-1), to, p.class_at)
                free.set(fn.iadd(to, 1))
