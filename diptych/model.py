"""Model: what `compile` returns. Callable, thread-safe; compiles anew (and keeps the result) for other input shapes."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import DiptychError, InputError
from diptych.ir import TensorType, dtype_of, numpy_dtype

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from diptych.compiled import Compiled
    from diptych.frontends.base import Source
    from diptych.ir import Graph
    from diptych.lengths import Declared, Lengths
    from diptych.options import Options
    from diptych.progress import Progress
    from diptych.schedule.plan import Plan

__all__ = ["Model"]

Array = np.ndarray[Any, Any]


class Model:
    """A compiled model. Call it with arrays by position or by input name.

    Takes NumPy arrays, torch tensors and anything with DLPack, and answers in kind: one array for a single output,
    else a tuple in the graph's order. May be called from many threads at once.
    """

    def __init__(self, source: Source, types: Mapping[str, TensorType] | None, options: Options,
                 target: str | None = None, dynamic: Declared | None = None, progress: Progress | None = None,
                 tune: float = 0.0) -> None:  # fmt: skip
        from diptych.compiled import Compiled  # the runtime: only who makes a model pays for it

        self._source = source
        self._progress = progress
        self._options = options
        self._target = target
        self._tune = tune
        self._batch = dynamic is not None and dynamic.batch
        self._lock = threading.Lock()
        self._compiled: dict[tuple[TensorType, ...], Compiled] = {}
        self._lengths: Lengths | None = None
        fingerprint = getattr(source, "fingerprint", None)
        if types is None and fingerprint is not None:
            # The cache may hold all of it: then the source is not read, and not even its types are known before.
            self._main = Compiled(lambda: source.graph({}), lambda _: fingerprint(), options, target, progress, tune=tune)
            self._compiled[tuple(t for _, t in self._main.inputs)] = self._main
        else:
            types = types or source.default_types()
            if types is None:
                raise InputError("the input types are not known: give example_inputs")
            if dynamic is not None and dynamic.axes:
                self._lengths = self._prepare_lengths({n: types[n] for n in source.input_names}, dynamic)
                self._main = self._lengths.main
            else:
                self._main = self._for(tuple(types[n] for n in source.input_names), tuple(source.input_names))
        self.input_types: dict[str, TensorType] = dict(self._main.inputs if self._lengths is None else self._lengths.inputs)
        self.output_types: dict[str, TensorType] = dict(self._main.outputs if self._lengths is None else self._lengths.outputs)
        self.input_names: tuple[str, ...] = tuple(self.input_types)
        self.output_names: tuple[str, ...] = tuple(self.output_types)
        self._structured = hasattr(source, "unflatten_outputs") and not getattr(source, "is_flat", False)
        self._fast: Callable[..., Any] = self._main.call if self._lengths is None else self._run_positional
        self._sizes = self._prepare_batches() if self._batch else {}

    def __repr__(self) -> str:
        ins = ", ".join(f"{n}: {t}" for n, t in self.input_types.items())
        outs = ", ".join(f"{n}: {t}" for n, t in self.output_types.items())
        return f"Model({self._main.name}: ({ins}) -> ({outs}))"

    @property
    def graph(self) -> Graph:
        """The Graph that was compiled first; with a dynamic length, the one for the length of the example."""
        return self._main.graph if self._lengths is None else self._lengths.graph

    def _for(self, types: tuple[TensorType, ...], names: tuple[str, ...] = ()) -> Compiled:
        from diptych.compiled import Compiled
        from diptych.fingerprint import of_graph

        found = self._compiled.get(types)
        if found is None:
            with self._lock:
                found = self._compiled.get(types)
                if found is None:
                    graph = self._source.graph(dict(zip(names or self.input_names, types, strict=True)))
                    found = self._compiled[types] = Compiled(
                        lambda: graph, lambda g: None if g is None else of_graph(g), self._options, self._target, self._progress,
                        tune=self._tune,
                    )
        return found

    # -- calling ----------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **named: Any) -> Any:
        if self._structured or named or not args:
            return self._general(args, named)
        try:
            if type(args[0]) is np.ndarray:
                return self._fast(*args)
            if _is_torch(args[0]):
                result = self._fast(*[x.numpy() for x in args])
                return tuple(map(_torch_back, result)) if type(result) is tuple else _torch_back(result)
        except (InputError, AttributeError, RuntimeError, TypeError):  # torch's own errors: gradients, devices, dtypes
            pass
        return self._general(args, named)

    def _general(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Any call: by name, with torch tensors, nested inputs, other shapes."""
        like = next((x for x in _leaves((*args, *named.values()))), None)
        if self._structured:
            values = list(self._source.flatten_inputs(args, named))  # type: ignore[attr-defined]
        else:
            values = self._bind(args, named)
        arrays = [_to_numpy(name, v) for name, v in zip(self.input_names, values, strict=True)]
        result = self._run(arrays)
        answer = _torch_back if _is_torch(like) else None
        outs = result if isinstance(result, tuple) else (result,)
        if answer is not None:
            outs = tuple(answer(o) for o in outs)
        if self._structured:
            return self._source.unflatten_outputs(list(outs))  # type: ignore[attr-defined]
        return outs[0] if len(outs) == 1 else outs

    def _bind(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
        names = self.input_names
        expected = ", ".join(f"{n}: {t}" for n, t in self.input_types.items())
        if len(args) > len(names):
            raise InputError(f"{len(args)} inputs given, the model takes {len(names)}: {expected}")
        bound = dict(zip(names, args))
        for name, value in named.items():
            if name not in names:
                raise InputError(f"unknown input {name!r}; the model takes {expected}")
            if name in bound:
                raise InputError(f"input {name!r} is given twice")
            bound[name] = value
        missing = [n for n in names if n not in bound]
        if missing:
            raise InputError(f"inputs {missing} are missing; the model takes {expected}")
        return [bound[n] for n in names]

    def _run(self, arrays: Sequence[Array]) -> Any:
        if not self._batch or any(
            a.ndim != t.rank or a.ndim == 0 or self._rest(n, a.shape) != self._rest(n, t.shape) or len(a) != len(arrays[0])
            for a, (n, t) in zip(arrays, self.input_types.items(), strict=True)
        ):
            return self._one(arrays)
        return self._batches(arrays)

    def _run_positional(self, *arrays: Any) -> Any:
        if len(arrays) != len(self.input_names) or any(type(a) is not np.ndarray for a in arrays):
            raise InputError(f"the model takes the arrays {list(self.input_names)}")
        return self._run(arrays)

    def _rest(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What of a shape neither a dynamic batch nor a dynamic length changes."""
        axes = () if self._lengths is None else self._lengths.dynamic.axes.get(name, ())
        return tuple(d for i, d in enumerate(shape) if i and i not in axes)

    def _one(self, arrays: Sequence[Array]) -> Any:
        """One run: by the program for these shapes, or by one for more positions."""
        if self._lengths is None:
            return self._pick(arrays).call(*arrays)
        return self._lengths.run(arrays, self._typed(arrays))

    def _batches(self, arrays: Sequence[Array]) -> Any:
        """A batch of any size, in pieces of the compiled sizes; a last piece too small is filled up with its own rows."""
        rows, at = len(arrays[0]), 0
        parts: list[list[Array]] = []
        sizes = sorted(self._sizes, reverse=True)
        while at < rows or not parts:
            size = next((s for s in sizes if s <= rows - at), sizes[-1])
            take = min(size, rows - at)
            piece = [np.ascontiguousarray(a[at : at + take]) for a in arrays]
            if take < size:
                piece = [np.resize(p, (size, *p.shape[1:])) if take else np.zeros((size, *p.shape[1:]), p.dtype)
                         for p in piece]  # fmt: skip
            result = self._one(piece)
            outs = result if isinstance(result, tuple) else (result,)
            parts.append([o[:take] for o in outs])
            at += take
        joined = [p[0] if len(p) == 1 else np.concatenate(p) for p in zip(*parts, strict=True)]
        return tuple(joined) if len(joined) > 1 else joined[0]

    def _prepare_lengths(self, types: Mapping[str, TensorType], dynamic: Declared) -> Lengths:
        from diptych.artifact import SavedSource
        from diptych.compiled import Compiled
        from diptych.fingerprint import of_graph
        from diptych.frontends.graph import GraphSource
        from diptych.lengths import Lengths
        from diptych.runtime.shared import SharedWeights

        shared = SharedWeights()

        def build(graph: Graph) -> Compiled:
            def content(g: Graph | None) -> str | None:
                return None if g is None else of_graph(g)

            return Compiled(lambda: graph, content, self._options, self._target, self._progress, shared, self._tune)

        return Lengths(self._source, types, dynamic, build, isinstance(self._source, (GraphSource, SavedSource)))

    def prepare(self, lengths: Sequence[int]) -> Model:
        """Compile now what calls of these lengths will need, for a model with a dynamic length."""
        if self._lengths is None:
            raise InputError("the model has no dynamic length: compile it with dynamic='length'")
        for length in lengths:
            self._lengths.prepare(length)
        return self

    def _prepare_batches(self) -> set[int]:
        """The compiled batch sizes: the example's, and 1 where the model can be made for it."""
        from diptych.artifact import SavedSource
        from diptych.frontends.graph import GraphSource
        from diptych.passes.batch import mixing_node

        why = mixing_node(self.graph)
        if why is not None:
            raise InputError(f"dynamic='batch': the rows of the batch are not independent, or not shown to be: {why}")
        types = self.input_types
        size = next(iter(types.values())).shape[0]
        if size == 0:
            raise InputError("dynamic='batch' needs example inputs with at least one row")
        if size == 1 or isinstance(self._source, (GraphSource, SavedSource)):
            return {size}
        if self._lengths is None:
            self._for(tuple(t.with_shape((1, *t.shape[1:])) for t in types.values()))
        return {size, 1}

    def _pick(self, arrays: Sequence[Array]) -> Compiled:
        """The compiled form for these arrays; another shape of the same rank and dtype compiles another form."""
        types = self._typed(arrays)
        try:
            return self._for(types)
        except DiptychError as e:
            given = ", ".join(f"{n}: {t}" for n, t in zip(self.input_names, types, strict=True))
            made = ", ".join(f"{n}: {t}" for n, t in self.input_types.items())
            raise InputError(f"the model was compiled for {made} and cannot be made for {given}: {e}") from e

    def _typed(self, arrays: Sequence[Array]) -> tuple[TensorType, ...]:
        """The types of a call, whose dtypes and ranks must be the model's."""
        types = []
        for (name, t), a in zip(self.input_types.items(), arrays, strict=True):
            if t.dtype == "bf16" and (a.dtype == np.uint16 or a.dtype.name == "bfloat16"):
                pass  # bit patterns, or ml_dtypes' own type: the call takes both
            elif dtype_of(a) != t.dtype:
                raise InputError(f"input {name!r}: dtype {t.dtype} expected, {a.dtype} given; convert it first")
            if a.ndim != len(t.shape):
                raise InputError(f"input {name!r}: {t} expected, shape {a.shape} given")
            types.append(TensorType(tuple(int(d) for d in a.shape), t.dtype))
        return tuple(types)

    @property
    def threads(self) -> int:
        """Workers per call of the main compilation."""
        return 1 if self._main.executable is None else self._main.executable.threads

    # -- looking inside -----------------------------------------------------------------------------------------
    @property
    def plan(self) -> Plan | None:
        """The plan of the main compilation (None on the NumPy target)."""
        return self._main.plan

    def describe(self) -> str:
        """What was fused into which kernel, and the memory it takes."""
        plan = self._main.plan
        if plan is None:
            return f"{self!r}: interpreted by NumPy\n{self.graph}"
        lines = [
            repr(self),
            f"{len(plan.steps)} steps, {len(plan.kernels)} distinct kernels, arena {plan.arena_bytes / 1e6:.2f} MB, "
            f"weights {plan.constants.nbytes / 1e6:.2f} MB",
        ]
        for step, fused in zip(plan.steps, plan.fused, strict=True):
            kernel = plan.kernels[step.kernel]
            how = "one thread" if step.serial else f"{kernel.work} items"
            lines.append(f"  {kernel.kind:16} {how:12} {'+'.join(fused)}  [{step.name}]")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph, its weights and a test vector to one file; `diptych.open` reads it.

        With a dynamic length, the file serves lengths up to the declared maximum, else up to that of the example.
        """
        from diptych.artifact import write
        from diptych.passes.affine import fold_affine
        from diptych.passes.fold import fold_constants

        rng = np.random.default_rng(0)
        given = {}
        graph, types, dynamic = self.graph, self.input_types, None
        if self._lengths is not None:
            graph, types, dynamic = self._lengths.longest()
        for name, t in types.items():
            sample = rng.standard_normal(t.shape) if t.dtype[0] == "f" else rng.integers(0, 2, t.shape)
            given[name] = sample.astype(numpy_dtype(t.dtype))
        result = self._one(list(given.values()))
        outs = result if isinstance(result, tuple) else (result,)
        # With batch normalisation folded already: opening the file is then that much quicker.
        write(path, fold_affine(fold_constants(graph)), given, dict(zip(self.output_names, outs, strict=True)), dynamic)


def _leaves(x: Any) -> Any:
    """Arrays and tensors in nested tuples, lists and dicts."""
    if isinstance(x, dict):
        x = tuple(x.values())
    if isinstance(x, (tuple, list)):
        for y in x:
            yield from _leaves(y)
    elif hasattr(x, "shape"):
        yield x


def _is_torch(x: Any) -> bool:
    return type(x).__module__.startswith("torch")


def _to_numpy(name: str, x: Any) -> Array:
    if isinstance(x, np.ndarray):
        return x
    if _is_torch(x):
        return x.detach().contiguous().numpy()  # type: ignore[no-any-return]
    if hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    if hasattr(x, "__array__") or isinstance(x, (int, float, bool, np.generic)):
        return np.asarray(x)
    raise InputError(f"input {name!r}: an array expected (NumPy, torch, DLPack), got {type(x).__name__}")


def _torch_back(x: Array) -> Any:
    return sys.modules["torch"].from_numpy(x)  # there: the caller has just handed us one of its tensors
