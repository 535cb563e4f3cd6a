"""`mx.libinfo`: the version of the API; there is no library of C++ to be found."""

from __future__ import annotations

__all__ = ["__version__", "find_include_path", "find_lib_path"]

__version__ = "1.9.1"


def find_lib_path(prefix: str = "libmxnet") -> list[str]:
    """RuntimeError: there is no libmxnet. In MXNet: where it lies."""
    raise RuntimeError(f"Cannot find the MXNet library: there is no {prefix} here, diptych generates its kernels in Python")


def find_include_path() -> str:
    """RuntimeError: there are no headers, because there is no library."""
    raise RuntimeError("Cannot find the MXNet include path: there is no C++ library here, diptych generates its kernels in Python")
