"""What this build has (`mx.runtime`): MXNet's list of compile-time features, nearly all of which are absent here."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Feature", "Features", "feature_list"]

_NAMES = ["CUDA", "CUDNN", "NCCL", "CUDA_RTC", "TENSORRT", "CPU_SSE", "CPU_SSE2", "CPU_SSE3", "CPU_SSE4_1", "CPU_SSE4_2", "CPU_SSE4A", "CPU_AVX", "CPU_AVX2", "OPENMP", "SSE", "F16C", "JEMALLOC", "BLAS_OPEN", "BLAS_ATLAS", "BLAS_MKL", "BLAS_APPLE", "LAPACK", "MKLDNN", "OPENCV", "CAFFE", "PROFILER", "DIST_KVSTORE", "CXX14", "INT64_TENSOR_SIZE", "SIGNAL_HANDLER", "DEBUG", "TVM_OP"]
_PRESENT = frozenset({"LAPACK", "INT64_TENSOR_SIZE", "F16C"})


class Feature(NamedTuple):
    """One feature by name, and whether it is there."""

    name: str
    enabled: bool

    def __repr__(self) -> str:
        return f"{'✔' if self.enabled else '✖'} {self.name}"


def feature_list() -> list[Feature]:
    """All features."""
    return [Feature(n, n in _PRESENT) for n in _NAMES]


class Features(dict[str, Feature]):
    """The features by name.

    >>> Features().is_enabled("CUDA")
    False
    """

    instance: Features | None = None

    def __new__(cls) -> Features:
        if cls.instance is None:
            cls.instance = super().__new__(cls)
            dict.__init__(cls.instance, {f.name: f for f in feature_list()})
        return cls.instance

    def __init__(self) -> None:
        """There is one object of this class; it is filled when it is made."""

    def __repr__(self) -> str:
        return str(list(self.values()))

    def is_enabled(self, feature_name: str) -> bool:
        """Whether a feature is there; a RuntimeError for a name MXNet does not know."""
        name = feature_name.upper()
        if name not in self:
            raise RuntimeError(f"no feature is named {name!r}; there are {', '.join(self)}")
        return self[name].enabled
