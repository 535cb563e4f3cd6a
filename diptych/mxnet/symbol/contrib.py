"""`mx.sym.contrib`: operators of the `_contrib_` prefix, and control flow."""

from __future__ import annotations

from math import log
from typing import Any

from diptych.mxnet.symbol.control_flow import cond, foreach, while_loop
from diptych.mxnet.symbol.register import module_getattr

__all__ = ["cond", "foreach", "rand_zipfian", "while_loop"]

_lookup = module_getattr("contrib")


def __getattr__(name: str) -> Any:
    return _lookup(name)


def rand_zipfian(true_classes: Any, num_sampled: int, range_max: int) -> tuple[Any, Any, Any]:
    """Classes below range_max drawn log-uniformly, and how often the true and the drawn ones are to be expected among them."""
    from diptych.mxnet.symbol import random

    whole = log(range_max + 1)
    drawn = random.uniform(0, whole, shape=(num_sampled,), dtype="float64")  # the logarithm of a class plus one
    classes = (drawn.exp() - 1).astype("int64") % range_max

    def expected(c: Any) -> Any:
        c = c.astype("float64")
        return ((c + 2) / (c + 1)).log() / whole * num_sampled

    return classes, expected(true_classes), expected(classes)
