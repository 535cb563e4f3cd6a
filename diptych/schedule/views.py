"""View: a strided window on a buffer. Movement operators turn into views where strides can say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from diptych.ir.kernel import Operand
from diptych.ir.types import itemsize

__all__ = ["View", "contiguous"]


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides, in elements.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for d in reversed(shape):
        strides.append(step)
        step *= max(d, 1)
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class View:
    """Elements of buffer `buffer`, from `offset` on, with these extents and strides (in elements)."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def operand(self) -> Operand:
        return Operand(self.shape, self.strides, self.dtype)

    @property
    def byte_offset(self) -> int:
        return self.offset * itemsize(self.dtype)

    def extent(self) -> tuple[int, int]:
        """First and one-past-last byte touched."""
        if 0 in self.shape:
            return self.byte_offset, self.byte_offset
        low = sum(min(0, (d - 1) * s) for d, s in zip(self.shape, self.strides, strict=True))
        high = sum(max(0, (d - 1) * s) for d, s in zip(self.shape, self.strides, strict=True))
        size = itemsize(self.dtype)
        return (self.offset + low) * size, (self.offset + high + 1) * size

    def extents(self) -> Iterator[tuple[int, int]]:
        """The same, for each of the outermost entries if they lie one behind the other with room between."""
        low, high = self.extent()
        wide = [(s, i) for i, (d, s) in enumerate(zip(self.shape, self.strides, strict=True)) if d > 1]
        step, axis = max(wide, default=(0, 0))
        size = itemsize(self.dtype)
        inner = high - low - (self.shape[axis] - 1) * step * size if step > 0 else high - low
        if low < high and 0 < inner < step * size:
            for i in range(self.shape[axis]):
                yield low + i * step * size, low + i * step * size + inner
        else:
            yield low, high

    @property
    def is_contiguous(self) -> bool:
        expected = contiguous(self.shape)
        return all(d <= 1 or s == e for d, s, e in zip(self.shape, self.strides, expected, strict=True))

    def transpose(self, perm: tuple[int, ...]) -> View:
        return View(self.buffer, self.offset, tuple(self.shape[p] for p in perm), tuple(self.strides[p] for p in perm),
                    self.dtype)  # fmt: skip

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """As NumPy broadcasts; new and stretched axes get stride 0."""
        lead = len(shape) - len(self.shape)
        strides = (0,) * lead + tuple(
            0 if own == 1 and new != 1 else s
            for own, new, s in zip(self.shape, shape[lead:], self.strides, strict=True)
        )
        return View(self.buffer, self.offset, shape, strides, self.dtype)

    def slice(self, starts: tuple[int, ...], steps: tuple[int, ...], shape: tuple[int, ...]) -> View:
        """Basic slice; `shape` is the result's."""
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        strides = tuple(s * step for s, step in zip(self.strides, steps, strict=True))
        return View(self.buffer, offset, shape, strides, self.dtype)

    def only(self, axes: list[int]) -> View:
        """Just these axes; the others must have extent 1."""
        return View(self.buffer, self.offset, tuple(self.shape[i] for i in axes),
                    tuple(self.strides[i] for i in axes), self.dtype)  # fmt: skip

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in row-major order under other extents, or None when strides cannot say it."""
        if prod(shape) != prod(self.shape):
            raise ValueError(f"cannot reshape {self.shape} to {shape}")
        if 0 in shape:
            return View(self.buffer, self.offset, shape, contiguous(shape), self.dtype)
        # Runs of old axes that lie densely in one another behave as one axis: cut those into the new extents.
        old = [(d, s) for d, s in zip(self.shape, self.strides, strict=True) if d != 1]
        runs: list[list[int]] = []  # [extent, innermost stride]
        for d, s in old:
            if runs and runs[-1][1] == d * s:
                runs[-1][0] *= d
                runs[-1][1] = s
            else:
                runs.append([d, s])
        strides: list[int] = []
        run = len(runs) - 1
        left = runs[run][0] if runs else 1
        step = runs[run][1] if runs else 1
        for d in reversed(shape):
            if d == 1:
                strides.append(0)
                continue
            if left == 1:
                run -= 1
                if run < 0:
                    return None
                left, step = runs[run]
            if left % d:
                return None
            strides.append(step)
            left //= d
            step *= d
        return View(self.buffer, self.offset, shape, tuple(reversed(strides)), self.dtype)
