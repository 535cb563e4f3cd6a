"""Random test data and checks of random generators, shown through `mx.test_utils`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.random as rnd

import diptych.mxnet as mx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "assign_each", "assign_each2", "chi_square_check", "collapse_sum_like", "compare_ndarray_tuple", "compare_optimizer",
    "create_2d_tensor", "create_sparse_array", "create_sparse_array_zd", "create_vector", "gen_buckets_probs_with_ppf",
    "get_identity_mat", "get_identity_mat_batch", "mean_check", "new_matrix_with_real_eigvals_2d",
    "new_matrix_with_real_eigvals_nd", "new_orthonormal_matrix_2d", "new_sym_matrix_with_real_eigvals_2d",
    "new_sym_matrix_with_real_eigvals_nd", "np_reduce", "rand_coord_2d", "rand_ndarray", "rand_shape_2d", "rand_shape_3d",
    "rand_shape_nd", "rand_sparse_ndarray", "random_arrays", "random_sample", "random_uniform_arrays", "var_check",
    "verify_generator",
]  # fmt: skip


def random_arrays(*shapes: Any) -> Any:
    """Normal float32 arrays of these shapes."""
    made = [np.array(rnd.randn(*s), np.float32) for s in shapes]
    return made[0] if len(made) == 1 else made


def random_uniform_arrays(*shapes: Any, **kwargs: Any) -> list[Any]:
    """Uniform arrays of these shapes (low=0, high=1, dtype=float32)."""
    low, high, dtype = kwargs.get("low", 0.0), kwargs.get("high", 1.0), kwargs.get("dtype", np.float32)
    return [rnd.uniform(low, high, size=s).astype(dtype) for s in shapes]


def random_sample(population: Any, k: int) -> list[Any]:
    """k distinct elements, in their order."""
    return [population[i] for i in sorted(random.sample(range(len(population)), k))]


def rand_ndarray(shape: Any, stype: str = "default", density: Any = None, dtype: Any = None, modifier_func: Any = None,
                 shuffle_csr_indices: bool = False, distribution: Any = None, ctx: Any = None) -> Any:  # fmt: skip
    """A normal NDArray."""
    if stype != "default":
        return rand_sparse_ndarray(shape, stype, density, dtype, modifier_func=modifier_func)[0]
    return mx.nd.array(random_arrays(shape), dtype=dtype, ctx=ctx)


def rand_sparse_ndarray(shape: Any, stype: str, density: float | None = None, dtype: Any = None, distribution: Any = None,
                        data_init: Any = None, rsp_indices: Any = None, modifier_func: Any = None,
                        shuffle_csr_indices: bool = False, ctx: Any = None) -> Any:  # fmt: skip
    """A random sparse array, and its parts."""
    density = rnd.rand() if density is None else density
    dtype = np.float32 if dtype is None else dtype
    values = np.full(shape, data_init, dtype) if data_init is not None else rnd.uniform(size=shape).astype(dtype)
    if modifier_func is not None:
        values = assign_each(values, modifier_func).astype(dtype)
    if stype == "row_sparse":
        keep = np.zeros(shape[0], bool)
        keep[rnd.rand(shape[0]) < density if rsp_indices is None else np.asarray(rsp_indices)] = True
        values[~keep] = 0
        made = mx.nd.array(values, dtype=dtype).tostype(stype)
        return made, (made.data.asnumpy(), made.indices.asnumpy())
    values[rnd.rand(*shape) >= density] = 0
    made = mx.nd.array(values, dtype=dtype).tostype(stype)
    return made, (made.indptr.asnumpy(), made.indices.asnumpy(), made.data.asnumpy())


def create_sparse_array(shape: Any, stype: str, data_init: Any = None, rsp_indices: Any = None, dtype: Any = None,
                        modifier_func: Any = None, density: float = 0.5, shuffle_csr_indices: bool = False) -> Any:  # fmt: skip
    """A random sparse array."""
    return rand_sparse_ndarray(shape, stype, density, dtype, None, data_init, rsp_indices, modifier_func)[0]


def create_sparse_array_zd(shape: Any, stype: str, density: float, data_init: Any = None, rsp_indices: Any = None,
                           dtype: Any = None, modifier_func: Any = None, shuffle_csr_indices: bool = False) -> Any:  # fmt: skip
    """A random sparse array; density 0 gives an empty one."""
    return create_sparse_array(shape, stype, data_init, [] if density == 0 else rsp_indices, dtype, modifier_func, density)


def rand_shape_2d(dim0: int = 10, dim1: int = 10, allow_zero_size: bool = False) -> tuple[int, ...]:
    """A random shape of two axes."""
    low = 0 if allow_zero_size else 1
    return int(rnd.randint(low, dim0 + 1)), int(rnd.randint(low, dim1 + 1))


def rand_shape_3d(dim0: int = 10, dim1: int = 10, dim2: int = 10, allow_zero_size: bool = False) -> tuple[int, ...]:
    """A random shape of three axes."""
    low = 0 if allow_zero_size else 1
    return int(rnd.randint(low, dim0 + 1)), int(rnd.randint(low, dim1 + 1)), int(rnd.randint(low, dim2 + 1))


def rand_shape_nd(num_dim: int, dim: int = 10, allow_zero_size: bool = False) -> tuple[int, ...]:
    """A random shape of `num_dim` axes."""
    return tuple(int(d) for d in rnd.randint(0 if allow_zero_size else 1, dim + 1, size=num_dim))


def rand_coord_2d(x_low: int, x_high: int, y_low: int, y_high: int) -> tuple[Any, Any]:
    """A random point."""
    return rnd.randint(x_low, x_high, dtype=np.int64), rnd.randint(y_low, y_high, dtype=np.int64)


def np_reduce(dat: Any, axis: Any, keepdims: bool, numpy_reduce_func: Callable[..., Any]) -> Any:
    """Reduce over several axes with a NumPy function of one."""
    axes = [axis] if isinstance(axis, int) else list(axis) if axis is not None else list(range(dat.ndim))
    out = dat
    for a in sorted(axes, reverse=True):
        out = numpy_reduce_func(out, axis=a)
    if keepdims:
        out = np.asarray(out).reshape([1 if i in axes else d for i, d in enumerate(dat.shape)])
    return out


def assign_each(the_input: Any, function: Any) -> Any:
    """A function applied to each element."""
    return np.array(the_input) if function is None else np.vectorize(function)(the_input)


def assign_each2(input1: Any, input2: Any, function: Any) -> Any:
    """A function of two applied to each pair of elements."""
    return np.array(input1) if function is None else np.vectorize(function)(input1, input2)


def create_2d_tensor(rows: int, columns: int, dtype: Any = np.int64) -> Any:
    """Row i holds i."""
    return mx.nd.array(np.repeat(np.arange(rows)[:, None], columns, 1), dtype=dtype)


def create_vector(size: int, dtype: Any = np.int64) -> Any:
    """0, 1, 2, ..."""
    return mx.nd.arange(0, size, dtype=dtype)


def get_identity_mat(size: int) -> Any:
    """The unit matrix."""
    return np.eye(size)


def get_identity_mat_batch(size: int) -> Any:
    """Two unit matrices."""
    return np.stack([np.eye(size)] * 2)


def collapse_sum_like(a: Any, shape: Sequence[int]) -> Any:
    """A broadcast array summed back to `shape`."""
    out = np.asarray(a)
    while out.ndim > len(shape):
        out = out.sum(0)
    axes = tuple(i for i, d in enumerate(shape) if d == 1 and out.shape[i] != 1)
    return out.sum(axes, keepdims=True) if axes else out


# -- random generators ------------------------------------------------------------------------------------------------
def gen_buckets_probs_with_ppf(ppf: Callable[[float], float], nbuckets: int) -> tuple[list[Any], list[float]]:
    """Buckets of equal probability, from the quantile function."""
    step = 1.0 / nbuckets
    return [(ppf(step * i), ppf(step * (i + 1))) for i in range(nbuckets)], [step] * nbuckets


def mean_check(generator: Callable[[int], Any], mu: float, sigma: float, nsamples: int = 1000000) -> bool:
    """Whether the mean of samples lies within three standard errors."""
    return bool(abs(np.mean(np.array(generator(nsamples))) - mu) < 3 * sigma / np.sqrt(nsamples))


def var_check(generator: Callable[[int], Any], sigma: float, nsamples: int = 1000000) -> bool:
    """Whether the variance of normal samples lies within three standard errors."""
    found = np.var(np.array(generator(nsamples)), ddof=1)
    return bool(abs(found - sigma**2) < 3 * np.sqrt(2 * sigma**4 / (nsamples - 1)))


def chi_square_check(generator: Callable[[int], Any], buckets: Any, probs: Any, nsamples: int = 1000000) -> tuple[float, Any, Any]:
    """The probability of samples as uneven as these, the counts seen and those expected."""
    import scipy.stats as ss  # type: ignore[import-untyped]

    samples = np.array(generator(nsamples)).reshape(-1)
    if isinstance(buckets[0], (tuple, list)):
        seen = np.array([np.count_nonzero((samples >= a) & (samples < b)) for a, b in buckets])
    else:
        seen = np.array([np.count_nonzero(samples == b) for b in buckets])
    expected = np.array(probs) * len(samples)
    share = seen.sum() / expected.sum()
    _, p = ss.chisquare(f_obs=seen, f_exp=expected * share)
    return float(p), seen, expected


def verify_generator(generator: Callable[[int], Any], buckets: Any, probs: Any, nsamples: int = 1000000, nrepeat: int = 5,
                     success_rate: float = 0.2, alpha: float = 0.05) -> list[float]:  # fmt: skip
    """Assert that enough of `nrepeat` samples pass the chi-square test at `alpha`."""
    found = [chi_square_check(generator, buckets, probs, nsamples)[0] for _ in range(nrepeat)]
    if sum(p > alpha for p in found) < nrepeat * success_rate:
        raise AssertionError(f"the samples do not follow the distribution: chi-square p = {found}")
    return found


# -- optimizers and matrices --------------------------------------------------------------------------------------------
def compare_ndarray_tuple(t1: Any, t2: Any, rtol: Any = None, atol: Any = None) -> None:
    """Assert that nested tuples of arrays are close."""
    from diptych.mxnet.test_utils import assert_almost_equal

    if t1 is None or t2 is None:
        return
    if isinstance(t1, tuple):
        for a, b in zip(t1, t2):
            compare_ndarray_tuple(a, b, rtol, atol)
    else:
        assert_almost_equal(t1, t2, rtol=rtol, atol=atol)


def compare_optimizer(opt1: Any, opt2: Any, shapes: Any, dtype: Any, w_stype: str = "default", g_stype: str = "default",
                      rtol: Any = 1e-4, atol: Any = 1e-5, compare_states: bool = True, ntensors: int = 1) -> None:  # fmt: skip
    """Assert that two optimizers move weights and states alike."""
    from diptych.mxnet.test_utils import assert_almost_equal

    if isinstance(shapes, list):  # one weight at a time against all in one call
        pairs = [(mx.nd.array(rnd.uniform(size=s), dtype=dtype), mx.nd.array(rnd.uniform(size=s), dtype=dtype)) for s in shapes]
        w1, g1 = [w for w, _ in pairs], [g for _, g in pairs]
        w2, g2 = tuple(w.copy() for w in w1), tuple(g.copy() for g in g1)
        states = [opt2.create_state_multi_precision(i, w) for i, w in enumerate(w2)]
        opt2.update_multi_precision(list(range(len(shapes))), w2, g2, states)
        for i, (w, g) in enumerate(pairs):
            state = opt1.create_state_multi_precision(i, w)
            opt1.update_multi_precision(i, w, g, state)
            if compare_states:
                compare_ndarray_tuple(state, states[i], rtol, atol)
            compare_ndarray_tuple(w, w2[i], rtol, atol)
        return

    def pair(stype: str, density: float | None) -> tuple[Any, Any]:
        if stype == "default":
            x = mx.nd.array(rnd.uniform(size=shapes), dtype=dtype)
            return x.copy(), x
        x = rand_ndarray(shapes, stype, density=density, dtype=dtype)
        return x.tostype("default"), x

    (w, v), (g, h) = pair(w_stype, 1.0), pair(g_stype, None)
    first, second = opt1.create_state_multi_precision(0, w), opt2.create_state_multi_precision(0, v)
    if compare_states:
        compare_ndarray_tuple(first, second)
    opt1.update_multi_precision(0, w, g, first)
    opt2.update_multi_precision(0, v, h, second)
    if compare_states:
        compare_ndarray_tuple(first, second, rtol=rtol, atol=atol)
    assert_almost_equal(w, v, rtol=rtol, atol=atol)


def new_matrix_with_real_eigvals_2d(n: int) -> Any:
    """A random matrix with real eigenvalues."""
    q = rnd.rand(n, n) + n * np.eye(n)
    return q @ np.diag(rnd.uniform(-1, 1, n)) @ np.linalg.inv(q)


def new_matrix_with_real_eigvals_nd(shape: Sequence[int]) -> Any:
    """Random matrices with real eigenvalues, in the last two axes."""
    count, n = int(np.prod(shape[:-2])) if len(shape) > 2 else 1, shape[-1]
    return np.array([new_matrix_with_real_eigvals_2d(n) for _ in range(count)]).reshape(shape)


def new_orthonormal_matrix_2d(n: int) -> Any:
    """A random orthonormal matrix."""
    return np.linalg.qr(rnd.randn(n, n))[0]


def new_sym_matrix_with_real_eigvals_2d(n: int) -> Any:
    """A random symmetric matrix."""
    q = new_orthonormal_matrix_2d(n)
    return q.T @ np.diag(rnd.uniform(-10.0, 10.0, n)) @ q


def new_sym_matrix_with_real_eigvals_nd(shape: Sequence[int]) -> Any:
    """Random symmetric matrices, in the last two axes."""
    count, n = int(np.prod(shape[:-2])) if len(shape) > 2 else 1, shape[-1]
    return np.array([new_sym_matrix_with_real_eigvals_2d(n) for _ in range(count)]).reshape(shape)
