"""Networks with their parameters built in: what `Prepared` becomes for inference with parameters that stay the same.

Parameters are operands, since training writes to them; native code then has to pack and fold them in every call. A call
in inference mode *seals* the arrays of its parameters: the array's own reference to its memory is put away behind a
`Seal`, which looks like a value that waits. Whoever asks for the memory, to read or to write, breaks the seal and finds
the array as it was. As long as all seals hold, nothing can have changed, and a program in which the parameters are
constants gives the same results: it is made when the calls have taken about as long as making it.

Memory that something else refers to as well (a view, another array, DLPack) is not sealed.
"""

from __future__ import annotations

import math
import sys
import weakref
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from diptych.ir.types import TensorType, dtype_of
from diptych.mxnet.ops.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.ir import Array
    from diptych.mxnet.ndarray.ndarray import NDArray
    from diptych.mxnet.ops.prepare import Prepared

__all__ = ["Fixed", "Seal", "fixed", "memory"]

_LATER = 4.0  # seconds of calls at least, before parameters that were built in once and then changed are built in again


class _Types:
    """The part of `Prepared` that an array that waits looks at: its own type."""

    __slots__ = ("out_types",)

    def __init__(self, array: Array) -> None:
        self.out_types = (TensorType(array.shape, dtype_of(array)),)


class Seal:
    """The memory of an array that nobody else refers to, until somebody asks for it."""

    __slots__ = ("__weakref__", "memory", "owner", "prepared")

    def __init__(self, owner: NDArray) -> None:
        assert owner._array is not None
        self.memory: Array = owner._array
        self.owner = weakref.ref(owner)
        self.prepared = _Types(self.memory)

    def watch(self, index: int, array: NDArray) -> None:
        """Another array is to show the memory: from now on two do, so the seal is broken."""
        self.run()
        array._array, array._pending = self.memory, None

    def run(self) -> None:
        """Give the memory back: the seal is broken."""
        owner = self.owner()
        if owner is not None and owner._array is None:
            owner._array, owner._pending = self.memory, None


def memory(x: NDArray) -> Array:
    """The memory of an array, to be read in this call only: a seal holds."""
    if x._array is None and x._pending is not None and isinstance(x._pending[0], Seal):
        return x._pending[0].memory
    return x._data


class _Held:
    """Stands in for an array, to see how many references there are to memory that it alone refers to."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        self._array = object()


def _references(x: Any) -> int:
    return sys.getrefcount(x._array)


_ALONE = _references(_Held())


def _seal(x: NDArray) -> Seal | None:
    """The seal of an array, put on it now if it has none; None where others may write to its memory."""
    if x._array is None:
        return x._pending[0] if x._pending is not None and isinstance(x._pending[0], Seal) else None
    if x._array.base is not None or not x._array.flags.owndata or _references(x) != _ALONE:
        return None
    made = Seal(x)
    x._array, x._pending = None, (made, 0)
    return made


class Fixed:
    """One network for inference with the parameters at these places of its operands."""

    def __init__(self, prepared: Prepared, places: Sequence[int]) -> None:
        self.prepared = prepared
        self.places = tuple(places)
        self.others = tuple(i for i in range(len(prepared.in_types)) if i not in set(places))
        self._seals: tuple[Seal, ...] = ()
        self._spent = 0.0  # seconds of calls since the parameters were sealed
        self._price = 0.0  # seconds that building them in took the last time
        self._program: Program | None = None

    def __call__(self, operands: Sequence[NDArray]) -> list[Array]:
        """The visible results."""
        if not self.sealed(operands):
            return self.prepared([memory(x) for x in operands])
        if self._program is not None:
            return self.prepared.called(self._program, [memory(operands[i]) for i in self.others])
        begin = perf_counter()
        results = self.prepared([memory(x) for x in operands])
        self._spent += perf_counter() - begin
        # Not before the network itself is native: then it is known to have such a form, and what making it took.
        if self.prepared.program.seconds is not None and self._spent > max(self.prepared.program.seconds, self._price):
            self._build()
        return results

    def sealed(self, operands: Sequence[NDArray]) -> bool:
        """Whether all parameters are sealed; what was built of others is forgotten."""
        params = [operands[i] for i in self.places]
        if self._seals and all(x._pending is not None and x._pending[0] is s for x, s in zip(params, self._seals)):
            return True
        if self._program is not None:
            self._price = max(self._price, _LATER)
        self._seals, self._program, self._spent = (), None, 0.0
        seals: list[Seal] = []
        for x in params:
            seal = _seal(x)
            if seal is None:
                return False
            seals.append(seal)
        self._seals = tuple(seals)
        return True

    def _build(self) -> None:
        graph = self.prepared.graph
        fixed = {graph.inputs[i]: s.memory for i, s in zip(self.places, self._seals)}
        begin = perf_counter()
        made = Program(replace(graph, inputs=tuple(graph.inputs[i] for i in self.others),
                               input_names=tuple(graph.input_names[i] for i in self.others),
                               constants={**graph.constants, **fixed}), network=True)  # fmt: skip
        native = made.compile()
        self._price = max(self._price, perf_counter() - begin) if native else math.inf
        self._program = made if native else None


def fixed(prepared: Prepared, places: tuple[int, ...]) -> Fixed | None:
    """The form of a network whose operands at these places are parameters; None for one that draws numbers or updates arrays."""
    if not places or prepared.noise or prepared.updates or not prepared.program.network:
        return None
    found = prepared.fixed.get(places)
    if found is None:
        found = prepared.fixed[places] = Fixed(prepared, places)
    return found
