"""Views against NumPy's own striding: the same elements in the same places, whatever chain of movements made them."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from diptych.schedule.views import View, contiguous


def elements(view: View, base: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    strides = tuple(s * base.itemsize for s in view.strides)
    return as_strided(base[view.offset :], view.shape, strides, writeable=False) if 0 not in view.shape else np.empty(view.shape, base.dtype)


@st.composite
def divisions(draw: st.DrawFn, n: int) -> tuple[int, ...]:
    """Shapes of n elements."""
    shape: list[int] = []
    while n > 1 and len(shape) < 5:
        shape.append(draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0])))
        n //= shape[-1]
    return (*shape, n) if n > 1 else tuple(shape)


@st.composite
def chains(draw: st.DrawFn) -> tuple[View, np.ndarray, np.ndarray, bool]:  # type: ignore[type-arg]
    """A view and the NumPy array that the same movements gave, on one base; whether a broadcast took part."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    base = np.arange(prod(shape), dtype=np.float32)
    view, array, broadcasts = View(0, 0, shape, contiguous(shape), "f32"), base.reshape(shape), False
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["transpose", "slice", "reshape", "broadcast"]))
        if kind == "transpose":
            perm = tuple(draw(st.permutations(range(array.ndim))))
            view, array = view.transpose(perm), array.transpose(perm)
        elif kind == "slice":
            starts, steps, index = [], [], []
            for d in array.shape:
                step = draw(st.sampled_from([1, 1, 2, -1, -2]))
                start = draw(st.integers(0, d - 1))
                starts.append(start)
                steps.append(step)
                index.append(slice(start, None, step))
            array = array[tuple(index)]
            view = view.slice(tuple(starts), tuple(steps), array.shape)
        elif kind == "broadcast":
            new = tuple(draw(st.sampled_from([d, 3])) if d == 1 else d for d in array.shape)
            new = (draw(st.integers(1, 2)), *new) if array.ndim < 5 else new
            if prod(new) <= 2000:
                broadcasts |= new != array.shape
                view, array = view.broadcast(new), np.broadcast_to(array, new)
        else:
            new = draw(divisions(array.size))
            again = view.reshape(new)
            if again is not None:
                view, array = again, array.reshape(new)
    return view, array, base, broadcasts


@settings(max_examples=400, deadline=None)
@given(chains(), st.data())
def test_movements_are_numpys(chain: tuple[View, np.ndarray, np.ndarray, bool], data: st.DataObject) -> None:  # type: ignore[type-arg]
    view, array, base, broadcasts = chain
    assert view.shape == array.shape
    np.testing.assert_array_equal(elements(view, base), array)
    low, high = view.extent()
    touched = array.reshape(-1).astype(int) * 4
    assert (low, high) == (touched.min(), touched.max() + 4)
    assert view.is_contiguous == (array.size == 1 or [int(i) for i in array.reshape(-1)] == list(
        range(int(array.reshape(-1)[0]), int(array.reshape(-1)[0]) + array.size)))  # fmt: skip
    shape = data.draw(divisions(array.size))
    again = view.reshape(shape)
    if again is not None:
        np.testing.assert_array_equal(elements(again, base), array.reshape(shape))
    elif not broadcasts:  # never a copy where NumPy needs none
        assert not np.shares_memory(array.reshape(shape), base)


def test_of_nothing() -> None:
    view = View(0, 0, (2, 0, 3), contiguous((2, 0, 3)), "f32")
    assert view.extent() == (0, 0)
    again = view.reshape((0, 7))
    assert again is not None
    assert again.shape == (0, 7)
