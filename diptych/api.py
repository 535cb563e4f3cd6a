"""The public names: load, compile, Model, open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diptych.errors import InputError, UnsupportedError
from diptych.frontends.graph import GraphSource
from diptych.ir import Graph, TensorType, dtype_of
from diptych.model import Model
from diptych.options import Options
from diptych.progress import default_progress

if TYPE_CHECKING:
    import os

    from diptych.frontends.base import Source
    from diptych.progress import Progress

__all__ = ["compile", "load", "open"]

DEFAULT_TUNE_SECONDS = 60.0
PathLike = "str | os.PathLike[str]"


def load(path: str | os.PathLike[str], params: str | os.PathLike[str] | None = None) -> Source:
    """Read a model file: an MXNet checkpoint (`*-symbol.json` + `*.params`) or an exported PyTorch program (`.pt2`).

    >>> import diptych
    >>> net = diptych.load("net-symbol.json", "net-0000.params")  # doctest: +SKIP
    >>> model = diptych.compile(net, {"data": (1, 3, 224, 224)})  # doctest: +SKIP

    Returns a Source: its Graph is made by `compile`, once the input shapes are known. Raises FormatError for files
    that are not what they should be, UnsupportedError when operators are missing.
    """
    if Path(path).suffix == ".pt2":
        if params is not None:
            raise InputError("a .pt2 file holds its weights: give no second file")
        from diptych.frontends import torch

        return torch.source(path)
    from diptych.frontends import mxnet

    return mxnet.load_source(path, params)


def compile(model: Any, example_inputs: Any = None, *, precision: Literal["f32"] = "f32",
            accuracy: Literal["fast", "strict"] = "fast", threads: int | None = None, target: str | None = None,
            dynamic: Mapping[str, Any] | str | None = None,
            progress: Progress | None = None, tune: bool | float = False) -> Model:  # fmt: skip
    """Compile a model to native code for this machine.

    >>> import numpy as np, diptych
    >>> from diptych.ir import TensorType
    >>> from diptych.ops.build import Builder
    >>> g = Builder("double")
    >>> x = g.input("x", TensorType((2, 3)))
    >>> model = diptych.compile(g.finish({"y": g.add(x, x)}))
    >>> model(np.ones((2, 3), np.float32))[0, 0]
    np.float32(2.0)

    model: a Graph, what `load` returned, a torch.nn.Module or an ExportedProgram.
    example_inputs: a tuple, or a dict by input name, of arrays, shapes (f32) or TensorTypes; may be left out when
        the model states its input types itself.
    precision: "f32". accuracy: "strict" keeps to direct sums. "fast" also uses Winograd convolution, whose errors are of the same order,
        but which spreads an infinity or NaN in the input to the 4x4 tile around it.
    threads: workers per call; default: the CPUs this process may use.
    target: "x86-64-v4", "x86-64-v3", "aarch64" or "numpy" (interprets); default: the best of this machine.
    dynamic: what changes from call to call and is to be served without a new compilation each time. "batch": axis 0
        of every input, a batch of independent rows. "length": axis 1 of every input that has one, a sequence. Or by
        input, {"ids": {0: "batch", 1: "length"}}, with a torch.export.Dim("length", max=512) to bound it. Calls are
        filled up to the nearest of a few lengths, each compiled when it is first met (`Model.prepare` does it before);
        where a model could see what was filled in, every length is compiled for itself, which a log entry says.
    progress: called as progress(stage, done, total) while it compiles: "passes", then "kernels" with how many are
        done, then "done"; before that "tuning" with the rounds of the search. Default: a line on standard error, when that is a terminal and it takes over two seconds.

    tune: True, or a number of seconds (True means 60), to measure the best few schedules of every layer that was not
        tuned on this processor yet, and take the fastest. What is found is kept, and used by later compilations.

    Raises UnsupportedError (with the list of what is missing) and InputError.
    """
    if precision != "f32":
        raise UnsupportedError(f"precision={precision!r}: only 'f32' is there so far")
    if accuracy not in ("fast", "strict"):
        raise InputError(f"accuracy={accuracy!r} is neither 'fast' nor 'strict'")
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads} must be at least 1")
    source = _source(model, example_inputs)
    types = _types(source, None if source is not model and hasattr(source, "flatten_inputs") else example_inputs)
    options = Options(precision, accuracy, threads or _cpu_count())
    said = None
    if dynamic is not None:
        from diptych.lengths import declared

        said = declared(dynamic, source.input_names, types)
        if hasattr(source, "vary"):  # a frontend that can trace once for all extents
            source.vary({n: ((0,) if said.batch else ()) + said.axes.get(n, ()) for n in source.input_names})
    return Model(source, types, options, target, said, progress or default_progress(), _seconds(tune))


def open(path: str | os.PathLike[str], *, threads: int | None = None, target: str | None = None,
         progress: Progress | None = None, tune: bool | float = False) -> Model:  # fmt: skip
    """Open what `Model.save` wrote; when it was opened here before, from the cache and within a fraction of a second.

    >>> model = diptych.open("net.diptych")  # doctest: +SKIP

    threads, target, progress, tune: as for `compile`. Raises FormatError for a file that is no saved model.
    """
    from diptych.artifact import SavedSource

    options = Options(threads=threads or _cpu_count())
    source = SavedSource(path)
    said, types, dynamic = None, None, source.dynamic()
    if dynamic is not None:
        from diptych.lengths import declared

        types = source.default_types()
        said = declared(dynamic, source.input_names, types)
    return Model(source, types, options, target, said, progress or default_progress(), _seconds(tune))


def _seconds(tune: bool | float) -> float:
    """How long to search; 0 for not at all."""
    if tune is True:
        return DEFAULT_TUNE_SECONDS
    if not 0 <= tune < float("inf"):
        raise InputError(f"tune={tune!r} is neither True nor a number of seconds")
    return float(tune)


def _cpu_count() -> int:
    from diptych.runtime.threads import cpu_count

    return cpu_count()


def _source(model: Any, example_inputs: Any) -> Source:
    if isinstance(model, Graph):
        return GraphSource(model)
    if hasattr(model, "graph") and hasattr(model, "input_names") and hasattr(model, "default_types"):
        return model  # type: ignore[no-any-return]
    from diptych.frontends import torch

    return torch.source(model, example_inputs)


def _types(source: Source, example_inputs: Any) -> dict[str, TensorType]:
    """Input types from what the user gave, completed by what the model states."""
    stated = source.default_types() or {}
    given: dict[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        given = dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)):
        if len(example_inputs) > len(source.input_names):
            raise InputError(f"{len(example_inputs)} example inputs given, the model takes {list(source.input_names)}")
        given = dict(zip(source.input_names, example_inputs))
    elif example_inputs is not None:
        given = {source.input_names[0]: example_inputs}
    unknown = set(given) - set(source.input_names)
    if unknown:
        raise InputError(f"unknown inputs {sorted(unknown)}; the model takes {list(source.input_names)}")
    types = {**stated, **{name: _type(name, value) for name, value in given.items()}}
    missing = [n for n in source.input_names if n not in types]
    if missing:
        raise InputError(f"the shapes of inputs {missing} are not known: give example_inputs, e.g. {{{missing[0]!r}: (1, 3, 224, 224)}}")
    return {n: types[n] for n in source.input_names}


def _type(name: str, value: Any) -> TensorType:
    if isinstance(value, TensorType):
        return value
    if isinstance(value, (tuple, list)):
        if all(isinstance(d, int) for d in value):
            return TensorType(tuple(value))
        if len(value) == 2 and isinstance(value[1], str):
            return TensorType(tuple(value[0]), value[1])
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        return TensorType(tuple(int(d) for d in array.shape), dtype_of(array))
    raise InputError(f"example input {name!r}: an array, a shape or a TensorType expected, got {type(value).__name__}")
