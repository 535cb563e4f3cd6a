"""Inputs of any length: calls are filled up to the nearest of a few compiled lengths, where that is shown to be exact."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, InputError
from diptych.ir import TensorType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.compiled import Compiled
    from diptych.frontends.base import Source
    from diptych.ir import Graph
    from diptych.passes.length import Padded

__all__ = ["Declared", "Lengths", "bucket_of", "declared"]

Array = np.ndarray[Any, Any]
Axes = dict[str, tuple[int, ...]]

EXACT = 16  # programs for one length each that are kept, where filling up is not safe
_LOG = logging.getLogger("diptych")


@dataclass(frozen=True, slots=True)
class Declared:
    """What `dynamic=` says: whether axis 0 is a batch, and which axes share the length."""

    batch: bool
    axes: Axes
    name: str = "length"
    limit: int | None = None


def declared(dynamic: Any, names: Sequence[str], types: Mapping[str, TensorType]) -> Declared:
    """`dynamic=` as given to `compile`: None, "batch", "length", or {input: {axis: name or torch.export.Dim}}."""
    if dynamic is None or dynamic == "batch":
        return Declared(dynamic == "batch", {})
    if dynamic == "length":
        axes: Axes = {n: (1,) for n in names if types[n].rank > 1}
        if not axes:
            raise InputError("dynamic='length' means axis 1 of the inputs, and none has one")
        return Declared(False, axes)
    if not isinstance(dynamic, Mapping):
        raise InputError(f"dynamic={dynamic!r}: 'batch', 'length' or {{input name: {{axis: 'length'}}}} expected")
    found: Axes = {}
    batch: set[str] = set()
    dims: dict[str, int | None] = {}
    for name, own in dynamic.items():
        if name not in names:
            raise InputError(f"dynamic names the input {name!r}; the model takes {list(names)}")
        if not isinstance(own, Mapping):
            own = dict.fromkeys(own, "length")  # {input: (axes,)}
        for axis, dim in own.items():
            rank = types[name].rank
            if not isinstance(axis, int) or not -rank <= axis < rank:
                raise InputError(f"dynamic: input {name!r} is {types[name]} and has no axis {axis!r}")
            label = dim if isinstance(dim, str) else getattr(dim, "__name__", None)
            if label is None:
                raise InputError(f"dynamic: axis {axis} of {name!r} needs a name or a torch.export.Dim, not {dim!r}")
            if label == "batch":
                if axis % rank:
                    raise InputError(f"dynamic: the batch of {name!r} must be axis 0, not {axis}")
                batch.add(name)
                continue
            most = getattr(dim, "max", None)
            dims.setdefault(label, int(most) if most is not None and most < 1 << 30 else None)
            found[name] = tuple(sorted({*found.get(name, ()), axis % rank}))
    if len(dims) > 1:
        raise InputError(f"dynamic: one length at a time is served, {sorted(dims)} are declared; give one of them")
    if batch and batch != set(names):
        raise InputError(f"dynamic: the batch must be axis 0 of every input; {sorted(set(names) - batch)} lack it")
    label, limit = next(iter(dims.items())) if dims else ("length", None)
    return Declared(bool(batch), found, label, limit)


def bucket_of(length: int) -> int:
    """The compiled length that serves `length`: multiples of 8 up to 64, then four to a doubling.

    >>> [bucket_of(n) for n in (1, 9, 64, 65, 130, 500)]
    [8, 16, 64, 80, 160, 512]
    """
    step = max(8, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


class Lengths:
    """The programs of one model for all lengths of its declared axes; `run` picks, fills up and cuts off."""

    def __init__(self, source: Source, types: Mapping[str, TensorType], dynamic: Declared,
                 build: Callable[[Graph], Compiled], fixed: bool) -> None:  # fmt: skip
        """`fixed`: the source has one Graph, whose length is the most that can be served."""
        self.dynamic = dynamic
        self._source, self._names, self._build = source, tuple(types), build
        self._example = dict(types)
        self.graph = source.graph(types)
        self.inputs, self.outputs = tuple(types.items()), tuple(self.graph.output_types().items())
        self._fixed = fixed
        self._lock = threading.Lock()
        self._programs: dict[tuple[tuple[TensorType, ...], int], tuple[Compiled, tuple[tuple[int, ...], ...]] | None] = {}
        self._exact: OrderedDict[tuple[TensorType, ...], Compiled] = OrderedDict()
        self.length = self._length([np.empty(t.shape, np.bool_) for t in types.values()])
        if self._fixed and (dynamic.limit or self.length) > self.length:
            raise InputError(
                f"dynamic: this graph is fixed; made for length {self.length}, it cannot serve up to {dynamic.limit}"
            )
        self.limit = self.length if self._fixed else dynamic.limit
        self.refused = self._check()
        if self.refused is not None:
            if self._fixed:
                raise InputError(f"dynamic: this graph serves no other length: {self.refused}")
            _LOG.warning(
                "%s: every length is compiled for itself (the last %d are kept), since filling up may change the result: %s",
                source.name, EXACT, self.refused,
            )  # fmt: skip

    @property
    def main(self) -> Compiled:
        """The program that serves the length of the example."""
        types = tuple(self._example.values())
        found = None if self.refused is not None else self._program(types, self._bucket(self.length))
        return self._for_exactly(types) if found is None else found[0]

    @property
    def compiled(self) -> list[int]:
        """The lengths there are programs for now."""
        return sorted({bucket for (_, bucket), made in self._programs.items() if made is not None})

    def _check(self) -> str | None:
        """Why calls cannot be filled up; None when they can. Looks at the graphs for two lengths."""
        from diptych.passes.length import Unpaddable, pad_length

        try:
            pad_length(self.graph, self.dynamic.axes)
            if not self._fixed and self.length > 2:
                self._compare(self.graph, list(self._example.values()), self.length - 1)
        except Unpaddable as e:
            return str(e)
        return None

    def _compare(self, graph: Graph, types: Sequence[TensorType], length: int) -> None:
        """Unpaddable unless the model for a smaller length is the beginning of this one."""
        from diptych.passes.fold import fold_constants
        from diptych.passes.length import Unpaddable, pad_length, same_program

        short = self._source.graph(self._types(types, length))
        cut = pad_length(graph, self.dynamic.axes, length, masked=False)
        whole = pad_length(short, self.dynamic.axes, masked=False)
        if not same_program(fold_constants(cut.graph), fold_constants(whole.graph)):
            raise Unpaddable(f"the model for length {length} is not the beginning of that for a larger one")

    def _types(self, like: Sequence[TensorType], length: int) -> dict[str, TensorType]:
        found = {}
        for name, t in zip(self._names, like, strict=True):
            axes = self.dynamic.axes.get(name, ())
            found[name] = t.with_shape(tuple(length if i in axes else d for i, d in enumerate(t.shape)))
        return found

    def _length(self, arrays: Sequence[Array]) -> int:
        """The length of a call, which all declared axes must have."""
        seen = {(n, i): a.shape[i] for n, a in zip(self._names, arrays, strict=True) for i in self.dynamic.axes.get(n, ())}
        if len(set(seen.values())) != 1:
            raise InputError(
                f"the declared axes must have one {self.dynamic.name}: "
                + ", ".join(f"axis {i} of {n!r} has {d}" for (n, i), d in seen.items())
            )
        length = int(next(iter(seen.values())))
        if length < 1:
            raise InputError(f"the {self.dynamic.name} of the inputs is 0: give at least one position")
        return length

    def longest(self) -> tuple[Graph, dict[str, TensorType], dict[str, dict[int, str]]]:
        """The Graph for the largest length there may be, its inputs, and the declaration, for a file of its own."""
        if self.refused is not None:
            raise InputError(f"a saved model has one Graph, and this one serves no other length: {self.refused}")
        types = self._types(list(self._example.values()), self.limit or self.length)
        named = {n: dict.fromkeys(own, self.dynamic.name) for n, own in self.dynamic.axes.items()}
        return self._source.graph(types), types, named

    # -- calling ------------------------------------------------------------------------------------------------
    def run(self, arrays: Sequence[Array], types: tuple[TensorType, ...]) -> Any:
        """The model on arrays of these types (right dtypes and ranks)."""
        length = self._length(arrays)
        if self.limit is not None and length > self.limit:
            raise InputError(f"the {self.dynamic.name} is {length}, the model serves up to {self.limit}; shorten the input or declare more")
        found = None if self.refused is not None else self._program(types, self._bucket(length))
        if found is None:
            try:
                return self._for_exactly(types).call(*arrays)
            except DiptychError as e:
                raise InputError(
                    f"the model cannot be made for {self.dynamic.name} {length}; is that over the model's own maximum? {e}"
                ) from e
        compiled, cuts = found
        bucket = self._bucket(length)
        filled = [_fill(a, self.dynamic.axes.get(n, ()), bucket) for n, a in zip(self._names, arrays, strict=True)]
        result = compiled.call(*filled, np.array(length))
        outs = result if isinstance(result, tuple) else (result,)
        kept = tuple(_cut(o, axes, length) for o, axes in zip(outs, cuts, strict=True))
        return kept[0] if len(kept) == 1 else kept

    def prepare(self, length: int) -> None:
        """Have the program that serves this length."""
        types = tuple(self._types(list(self._example.values()), length).values())
        if self.refused is not None or self._program(types, self._bucket(length)) is None:
            self._for_exactly(types)

    def _bucket(self, length: int) -> int:
        bucket = bucket_of(length)
        return bucket if self.limit is None else min(bucket, self.limit)

    def _program(self, types: tuple[TensorType, ...], bucket: int) -> tuple[Compiled, tuple[tuple[int, ...], ...]] | None:
        wanted = tuple(self._types(types, bucket).values())
        found = self._programs.get((wanted, bucket), ())
        if found == ():
            with self._lock:
                found = self._programs.get((wanted, bucket), ())
                if found == ():
                    found = self._programs[wanted, bucket] = self._make(wanted, bucket)
        return found  # type: ignore[return-value]

    def _make(self, types: tuple[TensorType, ...], bucket: int) -> tuple[Compiled, tuple[tuple[int, ...], ...]] | None:
        """The program of a bucket; None where the model cannot be made for it (it lies beyond the model's positions)."""
        from diptych.passes.length import Unpaddable, pad_length

        given = dict(zip(self._names, types, strict=True))
        try:
            if self._fixed:
                padded: Padded = pad_length(self.graph, self.dynamic.axes, bucket)
            else:
                whole = self._source.graph(given)
                padded = pad_length(whole, self.dynamic.axes)
                least = next(n for n in range(2, bucket + 1) if self._bucket(n) == bucket)
                self._compare(whole, types, least)
        except (Unpaddable, DiptychError) as e:
            _LOG.info("%s: no program for %s %d: %s", self._source.name, self.dynamic.name, bucket, e)
            return None
        return self._build(padded.graph), tuple(padded.outputs.values())

    def _for_exactly(self, types: tuple[TensorType, ...]) -> Compiled:
        with self._lock:
            found = self._exact.pop(types, None)
            if found is None:
                graph = self._source.graph(dict(zip(self._names, types, strict=True)))
                found = self._build(graph)
            self._exact[types] = found
            while len(self._exact) > EXACT:
                self._exact.popitem(last=False)
        return found


def _fill(array: Array, axes: Sequence[int], extent: int) -> Array:
    """The array with its last position repeated up to `extent`: what is filled in is as tame as what was there."""
    if not axes or array.shape[axes[0]] == extent:
        return array
    if len(axes) > 1:
        return np.pad(array, [(0, extent - d if i in axes else 0) for i, d in enumerate(array.shape)], "edge")
    out = np.empty(tuple(extent if i in axes else d for i, d in enumerate(array.shape)), array.dtype)
    lead = (slice(None),) * axes[0]
    length = array.shape[axes[0]]
    out[(*lead, slice(0, length))] = array
    out[(*lead, slice(length, None))] = array[(*lead, slice(length - 1, length))]
    return out


def _cut(array: Array, axes: Sequence[int], length: int) -> Array:
    if not axes:
        return array
    return np.ascontiguousarray(array[tuple(slice(0, length) if i in axes else slice(None) for i in range(array.ndim))])
