"""Layers under gluon.contrib."""

from __future__ import annotations

from typing import Any

from diptych.mxnet.gluon.block import Block, HybridBlock
from diptych.mxnet.gluon.nn import BatchNorm, HybridSequential, Sequential

__all__ = [
    "Concurrent", "HybridConcurrent", "Identity", "PixelShuffle1D", "PixelShuffle2D", "PixelShuffle3D", "SparseEmbedding",
    "SyncBatchNorm",
]  # fmt: skip


class Concurrent(Sequential):
    """Blocks side by side on the same input, their outputs joined along `axis`."""

    def __init__(self, axis: int = -1, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self.axis = axis

    def forward(self, x: Any, *args: Any) -> Any:
        """All outputs, joined."""
        from diptych.mxnet import ndarray

        return ndarray.concat(*[block(x) for block in self._children.values()], dim=self.axis)


class HybridConcurrent(HybridSequential):
    """HybridBlocks side by side on the same input, their outputs joined along `axis`."""

    def __init__(self, axis: int = -1, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self.axis = axis

    def hybrid_forward(self, F: Any, x: Any, *args: Any) -> Any:
        """All outputs, joined."""
        return F.concat(*[block(x) for block in self._children.values()], dim=self.axis)


class Identity(HybridBlock):
    """x itself."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """x."""
        return x


class SparseEmbedding(Block):
    """Rows of a matrix by the integers in x; the gradient has rows only where they were used."""

    def __init__(self, input_dim: int, output_dim: int, dtype: Any = "float32", weight_initializer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kwargs = {"input_dim": input_dim, "output_dim": output_dim, "dtype": dtype, "sparse_grad": True}
        self.weight = self.params.get("weight", shape=(input_dim, output_dim), init=weight_initializer, dtype=dtype,
                                      grad_stype="row_sparse", stype="row_sparse")  # fmt: skip

    def forward(self, x: Any) -> Any:
        """The operator Embedding on the rows that x needs."""
        from diptych.mxnet import ndarray

        return ndarray.Embedding(x, self.weight.row_sparse_data(x), name="fwd", **self._kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kwargs['input_dim']} -> {self._kwargs['output_dim']}, {self._kwargs['dtype']})"


class SyncBatchNorm(BatchNorm):
    """BatchNorm over the devices of one process; here there is one, the CPU."""

    def __init__(self, in_channels: int = 0, num_devices: int | None = None, momentum: float = 0.9, epsilon: float = 1e-5,
                 center: bool = True, scale: bool = True, use_global_stats: bool = False, beta_initializer: Any = "zeros",
                 gamma_initializer: Any = "ones", running_mean_initializer: Any = "zeros",
                 running_variance_initializer: Any = "ones", **kwargs: Any) -> None:  # fmt: skip
        super().__init__(1, momentum, epsilon, center, scale, use_global_stats, beta_initializer, gamma_initializer,
                         running_mean_initializer, running_variance_initializer, in_channels, **kwargs)
        self._sync = {"eps": epsilon, "momentum": momentum, "fix_gamma": not scale, "use_global_stats": use_global_stats,
                      "ndev": num_devices or 1, "key": self.prefix}  # fmt: skip

    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any) -> Any:
        """The operator SyncBatchNorm."""
        return F.contrib.SyncBatchNorm(x, gamma, beta, running_mean, running_var, name="fwd", **self._sync)


class _PixelShuffle(HybridBlock):
    """Channels to positions: each group of factors' product channels becomes a finer grid."""

    _axes = 1

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self._factors = (int(factor),) * self._axes if isinstance(factor, int) else tuple(int(f) for f in factor)
        if len(self._factors) != self._axes:
            raise AssertionError(f"wrong length {len(self._factors)}")

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        """Reshapes and a transposition."""
        n = self._axes
        if n == 1:
            (f,) = self._factors
            x = F.reshape(x, (0, -4, -1, f, 0))
            return F.reshape(F.transpose(x, (0, 1, 3, 2)), (0, 0, -3))
        if n == 2:
            f1, f2 = self._factors
            x = F.reshape(F.reshape(x, (0, -4, -1, f1 * f2, 0, 0)), (0, 0, -4, f1, f2, 0, 0))
            return F.reshape(F.transpose(x, (0, 1, 4, 2, 5, 3)), (0, 0, -3, -3))
        f1, f2, f3 = self._factors
        x = F.reshape(F.reshape(x, (0, -4, -1, f1 * f2 * f3, 0, 0, 0)), (0, 0, -4, f1, f2 * f3, 0, 0, 0))
        x = F.reshape(x, (0, 0, 0, -4, f2, f3, 0, 0, 0))
        return F.reshape(F.transpose(x, (0, 1, 5, 2, 6, 3, 7, 4)), (0, 0, -3, -3, -3))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._factors[0] if self._axes == 1 else self._factors})"


class PixelShuffle1D(_PixelShuffle):
    """(N, f C, W) to (N, C, W f)."""


class PixelShuffle2D(_PixelShuffle):
    """(N, f1 f2 C, H, W) to (N, C, H f1, W f2)."""

    _axes = 2


class PixelShuffle3D(_PixelShuffle):
    """(N, f1 f2 f3 C, D, H, W) to (N, C, D f1, H f2, W f3)."""

    _axes = 3
