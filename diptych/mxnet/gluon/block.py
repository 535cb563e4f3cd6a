"""Block: a layer or network whose forward pass is Python; its children and parameters are found by attribute."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from diptych.mxnet import initializer, ndarray
from diptych.mxnet.base import MXNetError
from diptych.mxnet.gluon.parameter import Parameter
from diptych.mxnet.gluon.parameter_dict import ParameterDict, _brief
from diptych.mxnet.gluon.scope import BlockScope, flatten, regroup
from diptych.mxnet.gluon.utils import HookHandle, indent
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.util import is_np_array

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Block", "HybridBlock", "SymbolBlock"]

_BlockScope = BlockScope
_flatten, _regroup = flatten, regroup


class Block:
    """A layer or a network: subclass it, assign children and parameters in `__init__`, compute in `forward`.

    >>> from diptych.mxnet import nd
    >>> from diptych.mxnet.gluon import Block, nn
    >>> class Net(Block):
    ...     def __init__(self, **kwargs):
    ...         super().__init__(**kwargs)
    ...         with self.name_scope():
    ...             self.dense = nn.Dense(3)
    ...
    ...     def forward(self, x):
    ...         return nd.relu(self.dense(x))
    >>> net = Net()
    >>> net.initialize()
    >>> net(nd.ones((2, 4))).shape
    (2, 3)
    """

    def __init__(self, prefix: str | None = None, params: ParameterDict | None = None) -> None:
        self._empty_prefix = prefix == ""
        self._prefix, self._params = BlockScope.create(prefix, params, self._alias())
        self._name = self._prefix[:-1] if self._prefix.endswith("_") else self._prefix
        self._scope = BlockScope(self)
        self._children: OrderedDict[str, Block] = OrderedDict()
        self._reg_params: dict[str, Parameter] = {}
        self._forward_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._forward_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    def __repr__(self) -> str:
        inner = "\n".join(f"  ({k}): {indent(repr(b), 2)}" for k, b in self.__dict__.items() if isinstance(b, Block))
        return f"{type(self).__name__}(\n{inner}\n)"

    def __setattr__(self, name: str, value: Any) -> None:
        existing = self.__dict__.get(name)
        if isinstance(existing, (Parameter, Block)) and not isinstance(value, type(existing)):
            raise TypeError(f"Changing attribute type for {self.name} from {type(existing)} to {type(value)}is not allowed.")
        if isinstance(value, Block):
            self.register_child(value, name)
        elif isinstance(value, Parameter):
            if name in self._reg_params:
                raise AssertionError(f"{name} is a parameter and cannot be set to another: blocks share "
                                     "parameters by Block(params=other.params)")  # fmt: skip
            self._reg_params[name] = value
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for k, v in self.__dict__.items():
            made.__dict__[k] = BlockScope(made) if k == "_scope" else copy.deepcopy(v, memo)
        return made

    def _alias(self) -> str:
        return type(self).__name__.lower()

    # -- names ------------------------------------------------------------------------------------------------
    @property
    def prefix(self) -> str:
        """What the names of the block's parameters begin with."""
        return self._prefix

    @property
    def name(self) -> str:
        """The prefix without its last underscore."""
        return self._name

    def name_scope(self) -> BlockScope:
        """A context in which new blocks and parameters get names below this block's."""
        return self._scope

    # -- parameters -------------------------------------------------------------------------------------------
    @property
    def params(self) -> ParameterDict:
        """The block's own parameters, without those of its children."""
        return self._params

    def collect_params(self, select: str | None = None) -> ParameterDict:
        """The parameters of the block and all its children; with `select`, those whose names match it."""
        self._check_containers()
        found = ParameterDict(self._params.prefix)
        if select is None:
            found.update(self.params)
        else:
            pattern = re.compile(select)
            for name, value in self.params.items():
                if pattern.match(name):
                    found._params[name] = value
        for child in self._children.values():
            found.update(child.collect_params(select=select))
        return found

    def _check_containers(self) -> None:
        children = {id(b) for b in self._children.values()}

        for key, value in self.__dict__.items():
            if isinstance(value, (list, tuple, dict)) and not key.startswith("_") and _holds_other(value, children):
                warnings.warn(f'{type(self).__name__}.{key} is a plain container of blocks, whose parameters are not '
                              "found: use register_child() on each, or "
                              "nn.Sequential / nn.HybridSequential", stacklevel=3)  # fmt: skip

    def _collect_params_with_prefix(self, prefix: str = "") -> dict[str, Parameter]:
        prefix = prefix + "." if prefix else ""
        found = {prefix + k: v for k, v in self._reg_params.items()}
        for name, child in self._children.items():
            found.update(child._collect_params_with_prefix(prefix + name))
        return found

    def initialize(self, init: Any = None, ctx: Any = None, verbose: bool = False, force_reinit: bool = False) -> None:
        """Initialise all parameters, by `init` (Uniform unless told otherwise) where they have no own initialiser."""
        self.collect_params().initialize(initializer.Uniform() if init is None else init, ctx, verbose, force_reinit)

    def save_parameters(self, filename: str, deduplicate: bool = False) -> None:
        """Write the parameters to a file of MXNet's format, named by structure ("features.0.weight")."""
        params = self._collect_params_with_prefix()
        if deduplicate:
            params = {name: p for p, name in reversed([(p, n) for n, p in reversed(params.items())])}
            first: dict[int, str] = {}
            params = {n: p for n, p in params.items() if first.setdefault(id(p), n) == n}
        ndarray.save(filename, {k: p._reduce() for k, p in params.items()})

    def save_params(self, filename: str) -> None:
        """The old form of save_parameters, with full names."""
        warnings.warn("save_params is the old name of save_parameters "
                      "(for SymbolBlock.imports: export)", stacklevel=2)  # fmt: skip
        try:
            self.collect_params().save(filename, strip_prefix=self.prefix)
        except ValueError as e:
            raise ValueError(f"{e}\nsave_params is an old name, and save_parameters may do it.") from e

    def load_parameters(self, filename: str, ctx: Any = None, allow_missing: bool = False, ignore_extra: bool = False,
                        cast_dtype: bool = False, dtype_source: str = "current") -> None:  # fmt: skip
        """Read parameters from a file of `save_parameters`, `export` or MXNet itself."""
        loaded = ndarray.load(filename)
        if not isinstance(loaded, dict):
            if not loaded and not self._collect_params_with_prefix():
                return
            raise ValueError(f"{filename} holds arrays without names")
        params = self._collect_params_with_prefix()
        if not loaded and not params:
            return
        if not any("." in k for k in loaded):  # full names, as old files and `export` have them
            self.collect_params().load(filename, ctx, allow_missing, ignore_extra, self.prefix if not _full(loaded, self) else "",
                                       cast_dtype, dtype_source)  # fmt: skip
            return
        self.load_dict(loaded, ctx, allow_missing, ignore_extra, cast_dtype, dtype_source, _source=f"file '{filename}'")

    def load_params(self, filename: str, ctx: Any = None, allow_missing: bool = False, ignore_extra: bool = False) -> None:
        """The old name of load_parameters."""
        warnings.warn("load_params is an old name: use load_parameters", stacklevel=2)
        self.load_parameters(filename, ctx, allow_missing, ignore_extra)

    def load_dict(self, param_dict: dict[str, NDArray], ctx: Any = None, allow_missing: bool = False, ignore_extra: bool = False,
                  cast_dtype: bool = False, dtype_source: str = "current", _source: str = "param_dict") -> None:  # fmt: skip
        """Take parameters from a dictionary of arrays named by structure."""
        given = {k[4:] if k.startswith(("arg:", "aux:")) else k: v for k, v in param_dict.items()}
        params = self._collect_params_with_prefix()
        same: dict[int, list[str]] = {}
        for name, p in params.items():
            same.setdefault(id(p), []).append(name)
        if not allow_missing:
            for name, p in params.items():
                if not any(n in given for n in same[id(p)]):
                    raise AssertionError(
                        f"{_source} has no '{name}'. It has {_brief(given)}. "
                        "allow_missing=True leaves such parameters as they are")  # fmt: skip
        for name, value in given.items():
            if name in params:
                params[name]._load_init(value, ctx, cast_dtype, dtype_source)
            elif not ignore_extra:
                raise ValueError(f"Parameter '{name}' loaded from {_source} is not present in Block, which contains parameters "
                                 f"{_brief(params)}. Set ignore_extra=True to ignore. ")  # fmt: skip

    # -- models with structure --------------------------------------------------------------------------------
    def save(self, prefix: str) -> None:
        """Write `prefix-model.json` (the tree of blocks with the graphs of hybridized ones) and `prefix-model.params`."""
        count = 0

        def describe(block: Block, into: dict[str, Any]) -> None:
            nonlocal count
            entry: dict[str, Any] = {"orig_name": block.name}
            into[type(block).__name__.lower() + str(count)] = entry
            if isinstance(block, HybridBlock):
                entry["hybridized"] = bool(block._cached_graph)
                if block._cached_graph:
                    inputs, out = block._cached_graph
                    entry.update(in_format=block._in_format, out_format=block._out_format,
                                 inputs=[s.tojson() for s in inputs], symbol=out.tojson())  # fmt: skip
            children: dict[str, str] = {}
            entry["children"] = children
            for key, child in block._children.items():
                count += 1
                children[child.name] = key
                describe(child, entry)

        model: dict[str, Any] = {}
        describe(self, model)
        with open(prefix + "-model.json", "w", encoding="utf-8") as f:
            json.dump(model, f)
        self.save_parameters(prefix + "-model.params")

    def load(self, prefix: str) -> None:
        """Read what `save` wrote into this block, which must have the same structure."""
        from diptych.mxnet import symbol

        with open(prefix + "-model.json", encoding="utf-8") as f:
            model = json.load(f)
        renamed: dict[str, str] = {}
        count = 0

        def restore(block: Block, found: dict[str, Any]) -> None:
            nonlocal count
            key = type(block).__name__.lower() + str(count)
            if key not in found:
                raise MXNetError(f"{prefix}-model.json has no block {key}; the block must have the structure of the one saved")
            entry = found[key]
            for name in block.params:
                renamed[name] = f"{entry['orig_name']}_{name[len(block.params.prefix):]}"
            if isinstance(block, HybridBlock) and entry.get("hybridized"):
                block._in_format, block._out_format = entry["in_format"], entry["out_format"]
                block._cached_graph = [symbol.load_json(s) for s in entry["inputs"]], symbol.load_json(entry["symbol"])
                block._active = True
            for child in block._children.values():
                count += 1
                restore(child, entry)
            saved = list(entry["children"].values())  # in the order of the children, whose names may differ now
            block._children = OrderedDict(zip(saved, block._children.values(), strict=True))

        restore(self, model)
        for block in self._walk():
            if isinstance(block, HybridBlock):
                block._graph_names = renamed
        self.load_parameters(prefix + "-model.params")

    def _walk(self) -> list[Block]:
        return [self, *(b for c in self._children.values() for b in c._walk())]

    # -- children ---------------------------------------------------------------------------------------------
    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make a block a child of this one."""
        self._children[str(len(self._children)) if name is None else name] = block

    def apply(self, fn: Callable[[Block], Any]) -> Block:
        """Call a function on all children, then on the block itself."""
        for child in self._children.values():
            child.apply(fn)
        fn(self)
        return self

    def hybridize(self, active: bool = True, **kwargs: Any) -> None:
        """Make the HybridBlocks below run as compiled graphs."""
        for child in self._children.values():
            child.hybridize(active, **kwargs)

    def cast(self, dtype: Any) -> None:
        """Change the element type of all parameters."""
        for child in self._children.values():
            child.cast(dtype)
        for param in self.params.values():
            param.cast(dtype)

    # -- hooks ------------------------------------------------------------------------------------------------
    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(block, inputs)` before every forward pass."""
        handle = HookHandle()
        handle.attach(self._forward_pre_hooks, hook)
        return handle

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call `hook(block, inputs, outputs)` after every forward pass."""
        handle = HookHandle()
        handle.attach(self._forward_hooks, hook)
        return handle

    def register_op_hook(self, callback: Callable[..., Any], monitor_all: bool = False) -> None:
        """Call `callback(name of the output, operator, array)` for every operator inside the hybridized blocks."""
        for child in self._children.values():
            child.register_op_hook(callback, monitor_all)

    # -- running ----------------------------------------------------------------------------------------------
    def __call__(self, *args: Any) -> Any:
        for hook in self._forward_pre_hooks.values():
            hook(self, args)
        out = self.forward(*args)
        for hook in self._forward_hooks.values():
            hook(self, args, out)
        if is_np_array():
            check_numpy_like(out)
        return out

    def forward(self, *args: Any) -> Any:
        """The computation; subclasses define it."""
        raise NotImplementedError

    def summary(self, *inputs: Any) -> None:
        """Print a table of the layers with their output shapes and numbers of parameters, for these inputs."""
        from diptych.mxnet.gluon.summary import summarize

        summarize(self, inputs)


def check_numpy_like(out: Any) -> None:
    """Refuse arrays and symbols of the classic interface among the outputs of a block that runs in NumPy-like mode."""
    from diptych.mxnet.numpy.multiarray import ndarray
    from diptych.mxnet.symbol.np_symbol import NumpySymbol
    from diptych.mxnet.symbol.symbol import Symbol

    if isinstance(out, (list, tuple)):
        for x in out:
            check_numpy_like(x)
    elif isinstance(out, (NDArray, Symbol)) and not isinstance(out, (ndarray, NumpySymbol)):
        raise TypeError("Block's output ndarrays/symbols must be of type `mxnet.numpy.ndarray` or `mxnet.symbol.numpy._Symbol` in "
                        f"NumPy-like mode, while got output type {type(out).__name__}; call its as_np_ndarray()")  # fmt: skip


def _holds_other(value: Any, known: set[int]) -> bool:
    """Whether lists, tuples and dicts hold, at any depth, a block that is none of `known` (by identity)."""
    if isinstance(value, (list, tuple)):
        return any(_holds_other(v, known) for v in value)
    if isinstance(value, dict):
        return any(_holds_other(v, known) for v in value.values())
    return isinstance(value, Block) and id(value) not in known


def _full(loaded: dict[str, Any], block: Block) -> bool:
    """Whether the file names parameters in full (arg:net0_dense0_weight), as `export` does."""
    names = {k[4:] if k.startswith(("arg:", "aux:")) else k for k in loaded}
    return any(k.startswith(("arg:", "aux:")) for k in loaded) and bool(names & set(block.collect_params().keys()))


from diptych.mxnet.gluon.hybrid import HybridBlock  # noqa: E402  (they build on Block; scripts find them here)
from diptych.mxnet.gluon.symbol_block import SymbolBlock  # noqa: E402
