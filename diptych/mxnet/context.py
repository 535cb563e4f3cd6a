"""Devices: there is the CPU; asking for a GPU is possible, using it is an error that says so."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from diptych.mxnet.base import MXNetError

__all__ = ["Context", "cpu", "cpu_pinned", "cpu_shared", "current_context", "device", "gpu", "gpu_memory_info", "num_gpus"]


class _ContextType(type):
    """Gives `Context` the attribute `default_ctx`, per thread, which may be assigned to."""

    @property
    def default_ctx(cls) -> Context:
        """The context in force, as `current_context()`."""
        return current_context()

    @default_ctx.setter
    def default_ctx(cls, value: Context) -> None:
        Context._default_ctx.value = value


class Context(metaclass=_ContextType):
    """A device, as in `mx.cpu()`; also a context manager that makes it the default.

    >>> Context("cpu", 1), Context("cpu") == cpu(0)
    (cpu(1), True)
    """

    devtype2str: ClassVar[dict[int, str]] = {1: "cpu", 2: "gpu", 3: "cpu_pinned", 5: "cpu_shared"}
    devstr2type: ClassVar[dict[str, int]] = {v: k for k, v in devtype2str.items()}
    _default_ctx: ClassVar[threading.local] = threading.local()

    device_typeid: int
    device_id: int

    def __init__(self, device_type: str | Context, device_id: int = 0) -> None:
        if isinstance(device_type, Context):
            self.device_typeid, self.device_id = device_type.device_typeid, device_type.device_id
        else:
            if device_type not in self.devstr2type:
                raise MXNetError(f"{device_type!r} is not a device; use {', '.join(self.devstr2type)}")
            self.device_typeid, self.device_id = self.devstr2type[device_type], device_id
        self._old: list[Context] = []

    @property
    def device_type(self) -> str:
        """The kind of device: cpu, gpu, cpu_pinned or cpu_shared."""
        return self.devtype2str[self.device_typeid]

    def __hash__(self) -> int:
        return hash((self.device_typeid, self.device_id))

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Context) and self.device_typeid == other.device_typeid
                and self.device_id == other.device_id)  # fmt: skip

    def __str__(self) -> str:
        return f"{self.device_type}({self.device_id})"

    __repr__ = __str__

    def __enter__(self) -> Context:
        self._old.append(current_context())
        Context._default_ctx.value = self
        return self

    def __exit__(self, *exc: object) -> None:
        Context._default_ctx.value = self._old.pop()

    def empty_cache(self) -> None:
        """Nothing is kept back on the CPU: this does nothing."""


def usable(ctx: Context) -> Context:
    """The context itself when arrays can live there; an MXNetError for a GPU."""
    if ctx.device_typeid == 2:
        raise MXNetError(f"{ctx}: there is no GPU support; use mx.cpu(), or `mx.gpu() if mx.context.num_gpus() else mx.cpu()`")
    return ctx


def cpu(device_id: int = 0) -> Context:
    """The CPU."""
    return Context("cpu", device_id)


def cpu_pinned(device_id: int = 0) -> Context:
    """Page-locked memory of the CPU; here the same as the CPU."""
    return Context("cpu_pinned", device_id)


def cpu_shared(device_id: int = 0) -> Context:
    """Memory shared between processes; here the same as the CPU."""
    return Context("cpu_shared", device_id)


def gpu(device_id: int = 0) -> Context:
    """A GPU by name; making an array there is an error."""
    return Context("gpu", device_id)


def num_gpus() -> int:
    """How many GPUs can be used: none."""
    return 0


def gpu_memory_info(device_id: int = 0) -> Any:
    """An error: there is no GPU support."""
    raise MXNetError("there is no GPU support, so no memory of one to ask for")


def current_context() -> Context:
    """The context that new arrays are made in: the innermost `with ctx:` of this thread, cpu(0) outside of any."""
    found = getattr(Context._default_ctx, "value", None)
    if found is None:
        found = Context("cpu", 0)
        Context._default_ctx.value = found
    return found


device = Context
