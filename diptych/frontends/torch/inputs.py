"""Example inputs and call arguments: described, bound to forward's signature, flattened to named leaves."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diptych.errors import InputError, TypeRuleError, UnsupportedError
from diptych.frontends.torch.dtypes import ir_dtype, torch_dtype
from diptych.ir import DTYPES, TensorType, dtype_of

__all__ = ["bind", "describe", "is_tensor_like", "leaf_names", "register_trees", "shapes_as_types", "stand_in"]


def is_tensor_like(x: Any) -> bool:
    """True for what becomes a tensor input: a torch tensor, an array, or a description of one."""
    return isinstance(x, (np.ndarray, np.generic, TensorType)) or _is_torch(x) or _as_pair(x) is not None


def describe(x: Any) -> TensorType:
    """The IR type of a tensor, an array, a TensorType or a (shape, dtype) pair."""
    if isinstance(x, TensorType):
        return x
    if _is_torch(x):
        return TensorType(tuple(int(d) for d in x.shape), ir_dtype(x.dtype))
    pair = _as_pair(x)
    if pair is not None:
        return pair
    array = np.asarray(x)
    return TensorType(tuple(array.shape), dtype_of(array))


def shapes_as_types(examples: Any) -> Any:
    """Examples that hold no tensor at all: their tuples of integers are shapes of f32 tensors.

    >>> shapes_as_types({"x": (1, 3)})
    {'x': TensorType(shape=(1, 3), dtype='f32')}
    """
    if is_tensor_like(examples):
        return examples
    entries = examples.values() if isinstance(examples, Mapping) else examples
    if not isinstance(examples, (tuple, list, Mapping)) or any(_holds_tensor(e) for e in entries):
        return examples
    if _is_shape(examples):
        return (TensorType(tuple(examples)),)
    if isinstance(examples, Mapping):
        return {k: TensorType(tuple(v)) if _is_shape(v) else v for k, v in examples.items()}
    return tuple(TensorType(tuple(v)) if _is_shape(v) else v for v in examples)


def _is_shape(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and bool(x) and all(type(d) is int and d >= 0 for d in x)


def _holds_tensor(x: Any) -> bool:
    if is_tensor_like(x):
        return True
    children = x.values() if isinstance(x, Mapping) else x if isinstance(x, (tuple, list)) else ()
    return any(_holds_tensor(c) for c in children) or not (
        isinstance(x, (int, float, str, type(None), tuple, list, Mapping))
    )


def stand_in(x: Any) -> Any:
    """A torch tensor to trace with."""
    import torch

    if _is_torch(x):
        return x.detach()
    if isinstance(x, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(x))
    t = describe(x)
    return torch.zeros(t.shape, dtype=torch_dtype(t.dtype))


def _is_torch(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "torch" and hasattr(x, "detach")


def _as_pair(x: Any) -> TensorType | None:
    """((2, 3), "f32") and the like as a TensorType."""
    if not (isinstance(x, (tuple, list)) and len(x) == 2 and isinstance(x[0], (tuple, list))):
        return None
    shape, dtype = x
    if not all(isinstance(d, (int, np.integer)) and not isinstance(d, bool) for d in shape):
        return None
    if isinstance(dtype, str) and dtype in DTYPES:
        name = dtype
    elif type(dtype).__module__ == "torch":
        name = ir_dtype(dtype)
    elif isinstance(dtype, (str, type, np.dtype)):
        try:
            name = dtype_of(np.dtype(dtype))
        except (TypeError, TypeRuleError):
            return None
    else:
        return None
    return TensorType(tuple(int(d) for d in shape), name)


def register_trees(model: Any) -> None:
    """Let torch flatten the cache class of transformers where a model of that library may take or return one."""
    if "transformers" not in sys.modules and not type(model).__module__.startswith("transformers."):
        return
    with contextlib.suppress(ImportError):  # older and newer releases keep it elsewhere or register it themselves
        from transformers.integrations.executorch import register_dynamic_cache_export_support

        register_dynamic_cache_export_support()


def bind(signature: inspect.Signature | None, model: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[
        tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """Arguments in forward's own order, so that f(x, mask=m), f(x, m) and f(mask=m, x=x) are one call."""
    if signature is None:
        return tuple(args), dict(kwargs)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as e:
        raise InputError(f"{model}.forward{signature}: {e}") from None
    return bound.args, bound.kwargs


def leaf_names(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any],
               arg_names: Sequence[str] = ()) -> tuple[list[str], list[Any], Any]:  # fmt: skip
    """Names of the leaves of (args, kwargs), the leaves, and the tree's spec.

    A leaf of argument `x` is called "x", nested ones "x.0", "x.key".
    """
    import torch.utils._pytree as pytree

    names = list(arg_names)
    if signature is not None and not names:
        for p in signature.parameters.values():
            if p.kind is p.VAR_POSITIONAL:
                names += [f"{p.name}.{i}" for i in range(len(args) - len(names))]
            elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                names.append(p.name)
    names += [f"arg{i}" for i in range(len(names), len(args))]
    tree = (args, kwargs)
    pairs, _ = pytree.tree_flatten_with_path(tree, is_leaf=_is_description)
    leaves, spec = pytree.tree_flatten(tree, is_leaf=_is_description)
    found: list[str] = []
    for path, _leaf in pairs:
        head = names[path[1].idx] if path[0].idx == 0 else str(path[1].key)
        found.append(".".join([head, *map(_key, path[2:])]))
    if len(set(found)) != len(found):
        raise UnsupportedError(f"two inputs have one name: {', '.join(found)}")
    return found, leaves, spec


def _is_description(x: Any) -> bool:
    return isinstance(x, TensorType) or _as_pair(x) is not None


def _key(k: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(k, attribute):
            return str(getattr(k, attribute))
    return str(k)
