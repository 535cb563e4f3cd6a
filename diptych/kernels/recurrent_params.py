"""What the kernel of a recurrent layer is told: its sizes, its tiles, what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diptych.ir.kernel import Kernel, Operand
from diptych.ir.types import itemsize
from diptych.kernels.recurrent_units import GATES, Units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.targets.base import Target

__all__ = ["STEP_NS", "Ahead", "RecurrentParams", "make_recurrent"]

STEP_NS = 4000.0  # a time step shorter than this is not worth a meeting of the threads


@dataclass(frozen=True, slots=True)
class Ahead:
    """The input's shares are worked out here too, some steps ahead of their use (see `recurrent_ahead`)."""

    inputs: int  # depth of the input product
    depth: int  # elements of it that go with one block of units
    turns: int  # elements of h for each of them


@dataclass(frozen=True, slots=True)
class RecurrentParams:
    """Operands: shares[T, N, gates by blocks], w[blocks][pass][P][gate][unit], (gru: b_hh by blocks), (projected:
    w_hr[blocks of P][H][unit]), h0[N, P], (lstm: c0[N, H]), (ragged: lengths[N], i64); then the outputs y[T, N, P], h,
    (lstm: c), (projected: room for the cells' outputs [N, H]). P, the width of h, is H where nothing is projected. The
    last axis of each is dense."""

    steps: int
    rows: int
    hidden: int
    units: Units
    reverse: bool
    activation: str  # of rnn
    dtype: str
    ahead: Ahead | None = None
    ragged: bool = False  # rows end at lengths of their own; their state stays what it was there
    width: int = 0  # of h, where it is projected
    projection: Units | None = None
    streamed: bool = False  # the weights come from beyond L2 at every step
    clip: tuple[float, float] | None = None  # of an lstm's cells
    clip_nan: bool = False  # a NaN becomes the lower limit

    @property
    def depth(self) -> int:
        """The width of h."""
        return self.width or self.hidden

    @property
    def blocks(self) -> int:
        return -(-self.hidden // self.units.block)

    def __str__(self) -> str:
        return f"T={self.steps} N={self.rows} H={self.hidden} {self.units}{' reverse' if self.reverse else ''}"


def make_recurrent(kind: str, inputs: Sequence[Operand], outputs: Sequence[Operand], units: Units, target: Target, *,
                   reverse: bool = False, activation: str = "tanh", ahead: Ahead | None = None, ragged: bool = False,
                   projection: Units | None = None, clip: tuple[float, float] | None = None, clip_nan: bool = False) -> Kernel:  # fmt: skip
    """The kernel of kind "lstm", "gru" or "rnn"; operands as RecurrentParams or `recurrent_ahead` has them."""
    y = outputs[0]
    steps, rows, width = y.shape
    hidden = width if projection is None else outputs[2].shape[1]
    weight_bytes = (GATES[kind] * hidden * width + (0 if projection is None else hidden * width)) * itemsize(y.dtype)
    params = RecurrentParams(steps, rows, hidden, units, reverse, activation, y.dtype, ahead, ragged,
                             0 if projection is None else width, projection, rows > 1 and weight_bytes > target.l2, clip, clip_nan)  # fmt: skip
    every = [*inputs, *outputs]
    assert all(o.strides[-1] == 1 or o.shape[-1] == 1 for o in every), "the last axis of every operand must be dense"
    multiplied = max(rows * weight_bytes / itemsize(y.dtype) / 30, weight_bytes / (70 if weight_bytes < target.l2 else 25))
    if ahead is not None:
        multiplied *= 1.3
    step = 100 + multiplied + rows * hidden * GATES[kind] * 20 / units.lanes / 6
    work = params.blocks if step > STEP_NS else 1
    kind = kind if ahead is None else f"{kind}_ahead"
    return Kernel(kind, params, tuple(every), len(outputs), work, step * steps, cooperative=True)
