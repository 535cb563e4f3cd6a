"""Normalisation layers."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.base import dtype_name
from diptych.mxnet.gluon.block import HybridBlock

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm"]


def _listed(kwargs: dict[str, Any], channels: Any) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in kwargs.items()) + f", in_channels={channels}"


class BatchNorm(HybridBlock):
    """Normalise each channel over the batch while training, by the moving mean and variance otherwise.

    >>> from diptych.mxnet import nd
    >>> net = BatchNorm()
    >>> net.initialize()
    >>> net(nd.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    def __init__(self, axis: int = 1, momentum: float = 0.9, epsilon: float = 1e-5, center: bool = True, scale: bool = True,
                 use_global_stats: bool = False, beta_initializer: Any = "zeros", gamma_initializer: Any = "ones",
                 running_mean_initializer: Any = "zeros", running_variance_initializer: Any = "ones", in_channels: int = 0,
                 **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._kwargs = {"axis": axis, "eps": epsilon, "momentum": momentum, "fix_gamma": not scale,
                        "use_global_stats": use_global_stats}  # fmt: skip
        self._axis = axis
        if in_channels:
            self.in_channels = in_channels
        shape = (in_channels,)
        self.gamma = self.params.get("gamma", grad_req="write" if scale else "null", shape=shape, init=gamma_initializer,
                                     allow_deferred_init=True, differentiable=scale)  # fmt: skip
        self.beta = self.params.get("beta", grad_req="write" if center else "null", shape=shape, init=beta_initializer,
                                    allow_deferred_init=True, differentiable=center)  # fmt: skip
        self.running_mean = self.params.get("running_mean", grad_req="null", shape=shape, init=running_mean_initializer,
                                            allow_deferred_init=True, differentiable=False)  # fmt: skip
        self.running_var = self.params.get("running_var", grad_req="null", shape=shape, init=running_variance_initializer,
                                           allow_deferred_init=True, differentiable=False)  # fmt: skip

    def cast(self, dtype: Any) -> None:
        """Change the element type; float16 layers keep their parameters in float32."""
        super().cast("float32" if dtype_name(dtype) == "float16" else dtype)

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any) -> Any:
        """The operator BatchNorm."""
        return F.BatchNorm(x, gamma, beta, running_mean, running_var, name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_listed(self._kwargs, self.gamma.shape[0] or None)})"


class _Affine(HybridBlock):
    """gamma and beta of one extent."""

    def _affine(self, channels: int, center: bool, scale: bool, beta: Any, gamma: Any) -> None:
        self.gamma = self.params.get("gamma", grad_req="write" if scale else "null", shape=(channels,), init=gamma,
                                     allow_deferred_init=True)  # fmt: skip
        self.beta = self.params.get("beta", grad_req="write" if center else "null", shape=(channels,), init=beta,
                                    allow_deferred_init=True)  # fmt: skip


class InstanceNorm(_Affine):
    """Normalise each channel of each sample over its positions."""

    def __init__(self, axis: int = 1, epsilon: float = 1e-5, center: bool = True, scale: bool = False,
                 beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", in_channels: int = 0, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._kwargs = {"eps": epsilon, "axis": axis, "center": center, "scale": scale}
        self._axis, self._epsilon = axis, epsilon
        self._affine(in_channels, center, scale, beta_initializer, gamma_initializer)

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:
        """The operator InstanceNorm, with the channel axis brought to the second place."""
        if self._axis == 1:
            return F.InstanceNorm(x, gamma, beta, name="fwd", eps=self._epsilon)
        x = x.swapaxes(1, self._axis)
        return F.InstanceNorm(x, gamma, beta, name="fwd", eps=self._epsilon).swapaxes(1, self._axis)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_listed(self._kwargs, self.gamma.shape[0])})"


class LayerNorm(_Affine):
    """Normalise over one axis, the last unless told otherwise."""

    def __init__(self, axis: int = -1, epsilon: float = 1e-5, center: bool = True, scale: bool = True,
                 beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", in_channels: int = 0,
                 prefix: str | None = None, params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._kwargs = {"eps": epsilon, "axis": axis, "center": center, "scale": scale}
        self._axis, self._epsilon = axis, epsilon
        self._affine(in_channels, center, scale, beta_initializer, gamma_initializer)

    def hybrid_forward(self, F: Any, data: Any, gamma: Any, beta: Any) -> Any:
        """The operator LayerNorm."""
        return F.LayerNorm(data, gamma=gamma, beta=beta, axis=self._axis, eps=self._epsilon)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_listed(self._kwargs, self.gamma.shape[0])})"


class GroupNorm(_Affine):
    """Normalise each of `num_groups` groups of channels of each sample."""

    def __init__(self, num_groups: int = 1, epsilon: float = 1e-5, center: bool = True, scale: bool = True,
                 beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", prefix: str | None = None,
                 params: Any = None) -> None:  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        self._kwargs = {"eps": epsilon, "num_groups": num_groups, "center": center, "scale": scale}
        self._num_groups, self._epsilon = num_groups, epsilon
        self._affine(num_groups, center, scale, beta_initializer, gamma_initializer)

    def hybrid_forward(self, F: Any, data: Any, gamma: Any, beta: Any) -> Any:
        """The operator GroupNorm."""
        return F.GroupNorm(data, gamma=gamma, beta=beta, num_groups=self._num_groups, eps=self._epsilon)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._kwargs.items())})"
