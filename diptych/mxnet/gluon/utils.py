"""Helpers for training on several contexts, gradient clipping, files."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import shutil
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import ndarray
from diptych.mxnet.imperative import wrap
from diptych.mxnet.ndarray.ndarray import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HookHandle", "check_sha1", "clip_global_norm", "download", "replace_file", "shape_is_known", "split_and_load", "split_data"]


def split_data(data: NDArray, num_slice: int, batch_axis: int = 0, even_split: bool = True) -> list[NDArray]:
    """An array in `num_slice` parts along the batch; ValueError when that is uneven and `even_split`.

    >>> from diptych.mxnet import nd
    >>> [x.shape for x in split_data(nd.zeros((5, 2)), 2, even_split=False)]
    [(3, 2), (2, 2)]
    """
    size = data.shape[batch_axis]
    if even_split and size % num_slice:
        raise ValueError(f"{data.shape} has no {num_slice} equal slices along axis {batch_axis}: choose a "
                         f"batch of a multiple of {num_slice}, or even_split=False")  # fmt: skip
    step, more = divmod(size, num_slice)  # the first parts are longer by one where it is uneven
    ends = list(itertools.accumulate([step + 1] * more + [step] * (num_slice - more), initial=0))
    if batch_axis == 0:
        return [data[a:b] if a < b else wrap(data._data[:0].copy()) for a, b in itertools.pairwise(ends)]
    return [ndarray.slice_axis(data, batch_axis, a, b) for a, b in itertools.pairwise(ends)]


def split_and_load(data: Any, ctx_list: list[Any], batch_axis: int = 0, even_split: bool = True) -> list[NDArray]:
    """`split_data` with each part in its context."""
    if not isinstance(data, NDArray):
        data = ndarray.array(data, ctx=ctx_list[0])
    if len(ctx_list) == 1:
        return [data.as_in_context(ctx_list[0])]
    return [x.as_in_context(c) for x, c in zip(split_data(data, len(ctx_list), batch_axis, even_split), ctx_list)]


def clip_global_norm(arrays: list[NDArray], max_norm: float, check_isfinite: bool = True) -> Any:
    """Scale arrays in place so that the 2-norm of them all is at most `max_norm`; the norm as a number, or as an array of
    one element with check_isfinite=False.

    >>> from diptych.mxnet import nd
    >>> x = nd.array([3.0, 4.0])
    >>> norm = clip_global_norm([x], 1.0)
    >>> round(norm, 4), round(float(x[0].asscalar()), 4)
    (5.0, 0.6)
    """
    if not arrays:
        raise AssertionError("clip_global_norm needs at least one array")
    total = np.float32(sum(float(np.vdot(a._data, a._data)) if a._data.dtype != np.float16 else
                           float(np.vdot(a._data.astype(np.float32), a._data.astype(np.float32))) for a in arrays) ** 0.5)  # fmt: skip
    if check_isfinite and not math.isfinite(total):
        warnings.warn("the norm is not finite: clipping means nothing here", stacklevel=2)
    with np.errstate(invalid="ignore"):
        scale = max_norm / (total + 1e-8)
        if not scale >= 1.0:
            for a in arrays:
                a._data *= a._data.dtype.type(scale)
    return float(total) if check_isfinite else ndarray.array([total])


def indent(text: str, spaces: int) -> str:
    """Text with all lines but the first moved to the right."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line for line in rest)])


_indent = indent


def check_sha1(filename: str, sha1_hash: str) -> bool:
    """Whether a file has this SHA-1."""
    with open(filename, "rb") as f:
        return hashlib.file_digest(f, "sha1").hexdigest() == sha1_hash


def replace_file(src: str, dst: str) -> None:
    """Put a file in the place of another at one stroke."""
    os.replace(src, dst)


def download(url: str, path: str | None = None, overwrite: bool = False, sha1_hash: str | None = None, retries: int = 5,
             verify_ssl: bool = True) -> str:  # fmt: skip
    """Fetch a file and return where it is; one that is there already with the right SHA-1 is kept."""
    import ssl
    import tempfile
    import urllib.request

    name = url.rsplit("/", 1)[-1]
    target = name if path is None else os.path.join(path, name) if os.path.isdir(os.path.expanduser(path)) else path
    target = os.path.expanduser(target)
    if retries < 0:
        raise AssertionError("retries must not be negative")
    if not overwrite and os.path.exists(target) and (not sha1_hash or check_sha1(target, sha1_hash)):
        return target
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    context = ssl.create_default_context() if verify_ssl else ssl._create_unverified_context()
    for attempt in range(retries + 1):
        handle, part = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(target)))
        try:
            with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, context=context) as answer:
                shutil.copyfileobj(answer, out)
            if sha1_hash and not check_sha1(part, sha1_hash):
                raise UserWarning(f"{target} was fetched, but its SHA-1 is not the one expected")
            replace_file(part, target)
            return target
        except Exception:
            os.unlink(part)
            if attempt == retries:
                raise
    return target


def shape_is_known(shape: Any) -> bool:
    """Whether all extents of a shape are known."""
    from diptych.mxnet.gluon.parameter import known

    return known(shape)


class HookHandle:
    """What `register_forward_hook` returns: `detach()` takes the hook off again."""

    def __init__(self) -> None:
        self._hooks: Any = None
        self._id: int | None = None

    def attach(self, hooks: OrderedDict[int, Callable[..., Any]], hook: Callable[..., Any]) -> None:
        """Put a hook into a dictionary of hooks."""
        if self._hooks is not None:
            raise AssertionError("the handle belongs to a hook already")
        self._id = id(hook)
        hooks[self._id] = hook
        self._hooks = hooks

    def detach(self) -> None:
        """Take the hook off."""
        if self._hooks is not None and self._id in self._hooks:
            del self._hooks[self._id]

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()
