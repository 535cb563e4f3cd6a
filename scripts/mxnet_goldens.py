"""Run many small operator cases under real MXNet 1.9.1 and keep their results: tests/data/mxnet_ops.{json,npz}.

    MXNET_SUBGRAPH_BACKEND=NONE OMP_NUM_THREADS=1 path/to/python-with-mxnet scripts/mxnet_goldens.py tests/data/mxnet_ops

Each case is one operator applied to small arrays. The JSON holds the symbol as MXNet writes it; the npz its inputs and
outputs. Cases run in forked children, because libmxnet crashes on some arguments.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
import zlib

import numpy as np

warnings.filterwarnings("ignore")
os.environ.setdefault("MXNET_ENGINE_TYPE", "NaiveEngine")

CASES = []


class A:
    """An input array: uniform in [low, high), or given outright."""

    def __init__(self, *shape, low=-2.0, high=2.0, dtype="float32", data=None):
        self.shape, self.low, self.high, self.dtype, self.data = shape, low, high, dtype, data

    def draw(self, rng):
        if self.data is not None:
            return np.asarray(self.data, self.dtype)
        values = rng.uniform(self.low, self.high, self.shape)
        if self.dtype.startswith(("int", "uint")):
            return np.floor(values).astype(self.dtype)
        return (np.round(values * 256) / 256).astype(self.dtype)  # short mantissas: exact in decimal, small on disk


def I(*shape, high, low=0):  # noqa: E743
    """Indices, in floats as MXNet keeps them."""
    return A(*shape, low=low, high=high, dtype="int32")


def case(op, *inputs, aux=(), **attrs):
    CASES.append((op, [x if isinstance(x, A) else A(*x) for x in inputs], tuple(aux), attrs))


def findex(*shape, high, low=0):
    rng = np.random.RandomState(zlib.crc32(repr((shape, high)).encode()) % (1 << 32))
    return A(data=rng.randint(low, high, shape).astype("float32"))


X = (2, 3, 4, 5)
P = A(2, 3, 4, low=0.1, high=2.0)

# -- elementwise --
for name in ["abs", "sign", "negative", "exp", "expm1", "square", "sin", "cos", "tanh", "sigmoid", "relu", "softsign", "erf", "floor", "ceil", "rint", "round", "fix", "trunc", "sinh", "cosh", "arctan", "arcsinh", "degrees", "radians", "tan", "cbrt"]:  # fmt: skip
    case(name, A(3, 4, low=-2.6, high=2.6))
case("round", A(data=[-2.5, -1.5, -0.5, 0.49999997, 0.5, 1.5, 2.5]))
case("rint", A(data=[-2.5, -1.5, -0.5, 0.49999997, 0.5, 1.5, 2.5]))
for name in ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "rcbrt", "gammaln"]:
    case(name, P)
for name in ["arcsin", "arccos", "arctanh", "erfinv"]:
    case(name, A(3, 4, low=-0.95, high=0.95))
case("arccosh", A(3, 4, low=1.0, high=3.0))
for name in ["hard_sigmoid", "zeros_like", "ones_like", "logical_not", "BlockGrad", "make_loss", "MakeLoss", "_copy"]:
    case(name, A(3, 4, low=-3, high=3))
case("hard_sigmoid", (3, 4), alpha=0.5, beta=0.1)
case("logical_not", A(data=[0.0, 1.0, -2.0]))
case("smooth_l1", (3, 4), scalar=2.0)
for name in ["elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "_maximum", "_minimum", "_equal", "_greater", "_hypot"]:
    case(name, (2, 3, 4), P)
for name in ["add", "sub", "mul", "div", "maximum", "minimum", "hypot", "equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal", "logical_and", "logical_or", "logical_xor", "mod"]:  # fmt: skip
    case("broadcast_" + name, A(2, 3, 4, low=-3, high=3, dtype="int32"), A(1, 3, 1, low=1, high=3, dtype="int32"))
    case("broadcast_" + name, (2, 3, 1), (1, 3, 4))
case("broadcast_power", P, (1, 3, 1))
case("_power", P, (2, 3, 4))
case("broadcast_mod", A(data=[5, -5, 5, -5, 1.5]), A(data=[3, 3, -3, 0.0, -0.5]))
for name in ["plus", "minus", "rminus", "mul", "div", "rdiv", "maximum", "minimum", "hypot", "equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal", "logical_and", "logical_or", "logical_xor", "mod", "rmod"]:  # fmt: skip
    case(f"_{name}_scalar", A(3, 4, low=0.5, high=3), scalar=1.5)
    case(f"_{name}_scalar", A(3, 4, low=1, high=4, dtype="int32"), scalar=2)
case("_power_scalar", P, scalar=2.0)
case("_power_scalar", P, scalar=-0.5)
case("_rpower_scalar", P, scalar=2.0)
case("_mod_scalar", A(data=[-2.5, 2.5, 0.0]), scalar=-2.0)
case("_mul_scalar", A(3, high=5, dtype="int32"), scalar=0.5)
case("clip", X, a_min=-0.5, a_max=1.0)
case("add_n", (2, 3), (2, 3), (2, 3))
case("where", A(2, 3, low=-1, high=2, dtype="int32"), (2, 3), (2, 3))
case("where", A(data=[0.0, 1.0]), (2, 3), (2, 3))
case("Cast", A(2, 3, low=-3, high=3), dtype="int32")
case("Cast", A(2, 3, low=0, high=9, dtype="int32"), dtype="float32")
case("Cast", A(2, 3, low=0, high=9), dtype="uint8")
case("Dropout", X, p=0.3)
case("_contrib_div_sqrt_dim", (2, 3, 5))
case("LinearRegressionOutput", (2, 3), (2, 3))
case("LogisticRegressionOutput", (2, 3), (2, 3))
case("MAERegressionOutput", (2, 3), (2, 3))

# -- layers --
case("Convolution", (2, 4, 7, 8), (6, 4, 3, 3), (6,), kernel=(3, 3), num_filter=6, pad=(1, 1), stride=(2, 1))
case("Convolution", (1, 4, 9, 8), (6, 2, 3, 2), kernel=(3, 2), num_filter=6, num_group=2, dilate=(2, 1), no_bias=True)
case("Convolution", (1, 4, 6, 6), (4, 1, 3, 3), (4,), kernel=(3, 3), num_filter=4, num_group=4, pad=(1, 1))
case("Convolution", (2, 3, 9), (4, 3, 3), (4,), kernel=(3,), num_filter=4, stride=(2,))
case("Convolution", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), (3,), kernel=(2, 3, 2), num_filter=3, pad=(1, 0, 1))
case("Deconvolution", (1, 4, 4, 3), (4, 3, 3, 3), kernel=(3, 3), num_filter=3, stride=(2, 2), pad=(1, 1), adj=(1, 1))
case("Deconvolution", (1, 4, 4, 3), (4, 3, 4, 4), (6,), kernel=(4, 4), num_filter=6, num_group=2, stride=(2, 2),
     pad=(1, 1), no_bias=False)  # fmt: skip
case("Deconvolution", (1, 2, 5), (2, 3, 4), kernel=(4,), num_filter=3, stride=(2,), pad=(1,))
case("FullyConnected", (3, 2, 4), (5, 8), (5,), num_hidden=5)
case("FullyConnected", (3, 2, 4), (5, 4), (5,), num_hidden=5, flatten=False)
case("FullyConnected", (3, 4), (5, 4), num_hidden=5, no_bias=True)
case("Embedding", findex(2, 3, high=7), (6, 4), input_dim=6, output_dim=4)
for kind in ("max", "avg", "sum"):
    case("Pooling", X, kernel=(2, 2), pool_type=kind)
    case("Pooling", (1, 2, 7, 8), kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type=kind)
    case("Pooling", (1, 2, 7, 8), kernel=(3, 2), stride=(2, 3), pool_type=kind, pooling_convention="full")
    case("Pooling", (1, 2, 8, 6), kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type=kind, pooling_convention="full")
    case("Pooling", X, kernel=(2, 2), pool_type=kind, global_pool=True)
    case("Pooling", (2, 3, 9), kernel=(3,), stride=(2,), pool_type=kind)
    case("Pooling", (1, 2, 4, 5, 4), kernel=(2, 2, 2), stride=(2, 1, 2), pool_type=kind)
case("Pooling", (1, 2, 7, 8), kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg", count_include_pad=False)
case("Pooling", (1, 2, 8, 6), kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg", pooling_convention="full",
     count_include_pad=False)  # fmt: skip
case("Pooling", (1, 2, 8, 6), kernel=(3, 3), stride=(2, 2), pool_type="lp", p_value=2)
case("Pooling", (1, 2, 8, 6), kernel=(3, 3), stride=(2, 2), pool_type="lp", p_value=3, pooling_convention="full")
case("Pooling", A(1, 2, 4, 3), kernel=(3, 3), pool_type="lp", p_value=2, global_pool=True)
case("Pooling", (1, 2, 8, 6), kernel=(3, 3), stride=(2, 2), pool_type="lp", p_value=1)
case("Pooling", (2, 3, 4), kernel=(3,), pool_type="max", layout="NCW")
case("_contrib_AdaptiveAvgPooling2D", X, output_size=(2, 3))
case("_contrib_AdaptiveAvgPooling2D", X)
case("_contrib_AdaptiveAvgPooling2D", X, output_size=3)
case("UpSampling", (1, 2, 3, 4), scale=2, sample_type="nearest", num_args=1)
case("UpSampling", (1, 2, 4, 4), (1, 3, 2, 2), scale=2, sample_type="nearest", num_args=2)
case("UpSampling", (1, 2, 4, 4), (1, 2, 2, 2), scale=2, sample_type="nearest", num_args=2, multi_input_mode="sum")
case("UpSampling", (1, 2, 3, 4), (2, 1, 4, 4), scale=2, sample_type="bilinear", num_args=2, num_filter=2)
case("UpSampling", (1, 2, 3, 4), (2, 1, 5, 5), scale=3, sample_type="bilinear", num_args=2, num_filter=2)
case("_contrib_BilinearResize2D", X, height=7, width=9)
case("_contrib_BilinearResize2D", X, height=7, width=9, align_corners=False)
case("_contrib_BilinearResize2D", X, height=2, width=3)
case("_contrib_BilinearResize2D", X, scale_height=2.0, scale_width=1.5)
case("_contrib_BilinearResize2D", X, scale_height=2.0, scale_width=2.0, mode="odd_scale")
case("_contrib_BilinearResize2D", X, (1, 1, 8, 3), mode="like")
for mode in ("to_even_down", "to_even_up", "to_odd_down", "to_odd_up"):
    case("_contrib_BilinearResize2D", X, mode=mode)

# -- activations, norms, softmax --
for name in ["relu", "sigmoid", "tanh", "softrelu", "softsign"]:
    case("Activation", A(3, 4, low=-4, high=4), act_type=name)
case("LeakyReLU", X)
case("LeakyReLU", X, act_type="leaky", slope=0.1)
case("LeakyReLU", X, act_type="elu", slope=0.3)
case("LeakyReLU", X, act_type="selu")
case("LeakyReLU", X, act_type="gelu")
case("LeakyReLU", X, act_type="rrelu")
case("LeakyReLU", X, (3,), act_type="prelu")
case("LeakyReLU", X, (1,), act_type="prelu")
case("LeakyReLU", (4, 3), (3,), act_type="prelu")
V = A(3, low=0.5, high=2)
case("BatchNorm", X, (3,), (3,), (3,), V, aux=(3, 4))
case("BatchNorm", X, (3,), (3,), (3,), V, aux=(3, 4), fix_gamma=False, eps=1e-5)
case("BatchNorm", (2, 4, 5, 3), (3,), (3,), (3,), V, aux=(3, 4), fix_gamma=False, axis=3)
case("BatchNorm", (4, 3), (3,), (3,), (3,), V, aux=(3, 4), fix_gamma=False, use_global_stats=True)
case("BatchNorm", X, (3,), (3,), (3,), V, aux=(3, 4), fix_gamma=False, output_mean_var=True)
case("_contrib_SyncBatchNorm", X, (3,), (3,), (3,), V, aux=(3, 4), fix_gamma=False, key="k")
case("LayerNorm", (2, 3, 5), (5,), (5,))
case("LayerNorm", (2, 3, 5), (3,), (3,), axis=1, eps=1e-3)
case("LayerNorm", (2, 3, 5), (5,), (5,), output_mean_var=True)
case("InstanceNorm", X, (3,), (3,))
case("InstanceNorm", (2, 3, 7), (3,), (3,), eps=1e-5)
case("GroupNorm", (2, 6, 4, 3), (3,), (3,), num_groups=3)
for mode in ("instance", "channel", "spatial"):
    case("L2Normalization", X, mode=mode)
case("LRN", (2, 7, 3, 3), nsize=5)
case("LRN", (2, 7, 3, 3), nsize=3, alpha=0.5, beta=0.5, knorm=1.0)
case("softmax", X)
case("softmax", X, axis=1, temperature=2.0)
case("softmax", (2, 3, 4), A(2, 3, low=1, high=5, dtype="int32"), use_length=True)
case("softmax", (2, 4, 3), A(2, 3, low=1, high=5, dtype="int32"), use_length=True, axis=1)
case("log_softmax", X, axis=2)
case("softmin", X)
case("SoftmaxActivation", X)
case("SoftmaxActivation", X, mode="channel")
case("SoftmaxOutput", (2, 3, 4), (2, 3))  # with four axes MKL-DNN builds normalise the last one only: a defect
case("SoftmaxOutput", X, (2, 4, 5), multi_output=True)
case("SoftmaxOutput", X, (2, 3, 4), preserve_shape=True)
case("SoftmaxOutput", (4, 3), (4,))

# -- shapes --
for shape in ((6, 20), (0, -1), (-1, 5), (0, 0, -3), (-3, -2), (-4, 1, -1, -2), (0, -4, 3, -1, 0, 0), (-2, 1), (-2,)):
    case("Reshape", X, shape=shape)
case("Reshape", X, shape=(-1, 0), reverse=True)
case("Reshape", X, shape=(-3, 0, 0), reverse=True)
case("Reshape", X, target_shape=(2, 0))
case("Flatten", X)
case("expand_dims", X, axis=1)
case("expand_dims", X, axis=-1)
case("squeeze", (1, 3, 1, 4))
case("squeeze", (1, 3, 1, 4), axis=2)
case("squeeze", (1, 1))
case("reshape_like", (2, 6), (3, 4))
case("reshape_like", (2, 15), (7, 3, 5), lhs_begin=1, lhs_end=2, rhs_begin=1, rhs_end=3)
case("transpose", X)
case("transpose", X, axes=(0, 2, 3, 1))
case("SwapAxis", X, dim1=1, dim2=3)
case("Concat", X, (2, 2, 4, 5))
case("Concat", (2, 3), (4, 3), dim=0)
case("Concat", (2, 3), (2, 1), dim=-1)
case("stack", (2, 3), (2, 3), num_args=2, axis=-1)
case("SliceChannel", (2, 6, 3), num_outputs=3)
case("SliceChannel", (2, 3, 4), num_outputs=3, squeeze_axis=True)
case("SliceChannel", (2, 3, 4), num_outputs=2, axis=-1)
case("_split_v2", (2, 6, 3), indices=(0, 1, 4), axis=1)
case("_split_v2", (2, 6, 3), indices=(), sections=3, axis=1)
case("slice", X, begin=(0, 1), end=(1, 3))
case("slice", X, begin=(None, -2, None, 4), end=(None, None, None, 0), step=(1, 1, 2, -2))
case("slice", X, begin=(None, None, None, None), end=(None, None, None, None), step=(1, 1, 1, -1))
case("slice_axis", X, axis=-1, begin=1, end=None)
case("slice_axis", X, axis=1, begin=-2, end=-1)
case("slice_like", X, (1, 2, 3, 3))
case("slice_like", X, (9, 2, 3), axes=(1, -2))
case("Crop", (1, 2, 7, 8), num_args=1, h_w=(3, 4), offset=(2, 1))
case("Crop", (1, 2, 7, 8), (1, 1, 4, 3), num_args=2, center_crop=True)
case("Crop", (1, 2, 7, 8), (1, 1, 4, 3), num_args=2)
case("Pad", X, mode="constant", pad_width=(0, 0, 0, 0, 1, 2, 0, 3), constant_value=1.5)
case("Pad", X, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 0, 3))
case("Pad", X, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 0, 3))
case("tile", (2, 3), reps=(2, 2))
case("tile", (2, 3), reps=(2, 1, 2))
case("tile", (2, 3, 2), reps=(2,))
case("repeat", (2, 3), repeats=2)
case("repeat", (2, 3), repeats=2, axis=-1)
case("reverse", X, axis=(1,))
case("reverse", X, axis=(0, 2))
case("broadcast_axis", (2, 1, 3, 1), axis=(1, 3), size=(2, 4))
case("broadcast_to", (2, 1, 3), shape=(0, 4, 0))
case("broadcast_like", (2, 1, 3), (2, 4, 3))
case("broadcast_like", (1, 3), (5, 9, 7), lhs_axes=(0,), rhs_axes=(-1,))
case("depth_to_space", (1, 8, 2, 3), block_size=2)
case("space_to_depth", (1, 2, 4, 6), block_size=2)
case("diag", (4,))
case("diag", (4,), k=1)
case("diag", (4,), k=-2)
case("_zeros", shape=(2, 3))
case("_ones", shape=(2, 3), dtype="int32")
case("_full", shape=(2, 3), value=2.5)
case("_eye", N=3, M=4, k=1)
case("_arange", start=2, stop=9, step=2)
case("_arange", start=0, stop=3, repeat=2, dtype="int32")
case("_arange", start=5)
case("_linspace", start=1, stop=3, num=5)
case("_linspace", start=1, stop=3, num=4, endpoint=False)
case("_contrib_quadratic", (2, 3), a=0.5, b=-1.0, c=2.0)
case("_contrib_BatchNormWithReLU", X, (3,), (3,), (3,), A(3, low=0.5, high=2), aux=(3, 4), fix_gamma=False)
case("_contrib_gradientmultiplier", (2, 3), scalar=-1.0)
case("amp_cast", (2, 3), dtype="float16")
case("SVMOutput", (4, 3), (4,))
case("_slice_assign", X, (2, 2, 4, 3), begin=(None, 1, None, 0), end=(None, 3, None, 5), step=(1, 1, 1, 2))
case("_slice_assign_scalar", X, begin=(0, 1), end=(1, 2), scalar=2.5)
case("gamma", A(2, 3, low=0.3, high=4.0))
case("gamma", A(data=[-0.5, -1.5, -2.25, 3.0]))
case("_contrib_index_array", (2, 3))
case("all_finite", (2, 3))
case("_linalg_sumlogdiag", A(2, 3, 3, low=0.5, high=2))
case("_linalg_extractdiag", (2, 3, 3))
case("_linalg_makediag", (2, 3))
case("_contrib_arange_like", (2, 3))
case("_contrib_arange_like", (2, 3), axis=-1, start=1.0, step=0.5)
case("_contrib_arange_like", (2, 4), repeat=2)
case("shape_array", X)
case("size_array", X)

# -- reductions --
for name in ["sum", "mean", "max", "min", "prod", "nansum", "nanprod"]:
    case(name, X)
    case(name, X, axis=(1, 3))
    case(name, X, axis=1, keepdims=True)
    case(name, X, axis=(1,), exclude=True)
    case(name, X, axis=-1)
case("sum", X, keepdims=True)
case("sum", X, axis=())
case("mean", A(2, 5, low=-9, high=9, dtype="int32"), axis=1)
case("norm", X)
case("norm", X, axis=(1, 2))
case("norm", X, ord=1, axis=1, keepdims=True)
case("moments", X, axes=(1, 2))
case("argmax", X)
case("argmax", X, axis=1)
case("argmin", X, axis=-1, keepdims=True)
case("argmax_channel", (3, 5))
case("sort", X, axis=2)
case("sort", X, is_ascend=False)
case("sort", (2, 3), axis=None)
case("argsort", X, axis=1)
case("argsort", X, is_ascend=False, dtype="int32")
for kind in ("value", "indices", "mask", "both"):
    case("topk", X, k=2, ret_typ=kind)
    case("topk", X, k=2, ret_typ=kind, axis=1, is_ascend=True)
case("topk", X, k=3, axis=None)
case("topk", X, k=0, ret_typ="value")
case("_np_cumsum", X, axis=1)
case("_np_cumsum", (2, 3))
case("dot", (2, 3), (3, 4))
case("dot", (3, 2), (4, 3), transpose_a=True, transpose_b=True)
case("dot", (2, 3, 4), (4, 5))
case("dot", (4, 2, 3), (4, 5), transpose_a=True)
case("dot", (2, 3, 4), (5, 6, 4), transpose_b=True)
case("dot", (3,), (3,))
case("batch_dot", (2, 3, 4), (2, 4, 5))
case("batch_dot", (2, 4, 3), (2, 5, 4), transpose_a=True, transpose_b=True)
case("_linalg_gemm2", (2, 3, 4), (2, 5, 4), transpose_b=True, alpha=0.5)
case("_linalg_gemm", (3, 4), (4, 5), (3, 5), alpha=0.5, beta=2.0)
case("_linalg_syrk", (2, 3, 4), alpha=0.5)
case("_linalg_syrk", (3, 4), transpose=True)

# -- indexing --
for mode in ("clip", "wrap"):
    case("take", (4, 3), findex(2, 5, low=-3, high=9), mode=mode)
    case("take", (2, 4, 3), findex(5, low=-3, high=9), mode=mode, axis=1)
    case("pick", (3, 4), findex(3, low=-3, high=9), mode=mode)
case("pick", (3, 4, 2), findex(3, 2, high=4), axis=1)
case("pick", (3, 4, 2), findex(3, 1, 2, high=4), axis=1, keepdims=True)
case("batch_take", (3, 4), A(3, high=4, low=0, dtype="int32"))
case("gather_nd", (3, 4, 2), findex(2, 5, high=3))
case("gather_nd", (3, 4, 2), findex(1, 5, high=3))
case("scatter_nd", (5, 2), A(data=[[0, 2, 3, 1, 4], [1, 0, 2, 0, 1]]), shape=(5, 3, 2))
case("one_hot", findex(2, 3, low=-1, high=5), depth=4)
case("one_hot", findex(5, high=4), depth=4, on_value=2.0, off_value=-1.0, dtype="int32")
case("_unravel_index", findex(5, high=24), shape=(2, 3, 4))
case("_ravel_multi_index", A(data=[[1, 0, 1], [2, 1, 0], [3, 3, 0]]), shape=(2, 3, 4))

# -- sequences --
L = A(data=[2.0, 4.0, 1.0])
case("SequenceMask", (4, 3, 2), L, use_sequence_length=True, value=-1.0)
case("SequenceMask", (3, 4, 2), L, use_sequence_length=True, axis=1)
case("SequenceMask", (4, 3, 2))
case("SequenceLast", (4, 3, 2), L, use_sequence_length=True)
case("SequenceLast", (3, 4, 2), L, use_sequence_length=True, axis=1)
case("SequenceLast", (4, 3, 2))
case("SequenceReverse", (4, 3, 2), L, use_sequence_length=True)
case("SequenceReverse", (4, 3, 2))
for mode, gates in (("lstm", 4), ("gru", 3), ("rnn_relu", 1), ("rnn_tanh", 1)):
    for layers, directions in ((1, 1), (2, 2)):
        size = sum(directions * gates * 5 * ((3 if layer == 0 else 5 * directions) + 5 + 2) for layer in range(layers))
        states = [(layers * directions, 2, 5)] * (2 if mode == "lstm" else 1)
        for full in (True, False):
            case("RNN", (4, 2, 3), A(size, low=-0.5, high=0.5), *states, mode=mode, state_size=5, num_layers=layers,
                 bidirectional=directions == 2, state_outputs=full)  # fmt: skip
case("_rnn_param_concat", (3,), (4,), dim=0, num_args=2)
case("_contrib_interleaved_matmul_selfatt_qk", (3, 2, 24), heads=2)
case("_contrib_interleaved_matmul_selfatt_valatt", (3, 2, 24), (4, 3, 3), heads=2)
case("_contrib_interleaved_matmul_encdec_qk", (3, 2, 8), (5, 2, 16), heads=2)
case("_contrib_interleaved_matmul_encdec_valatt", (5, 2, 16), (4, 3, 5), heads=2)


# -- detection --
def boxes(rng_seed, *lead, count=6, score=True, ids=0):
    """Rows [id?, score, x1, y1, x2, y2] with plenty of overlap."""
    rng = np.random.RandomState(rng_seed)
    low = rng.randint(0, 12, (*lead, count, 2)) / 16
    out = [low, low + rng.randint(2, 10, (*lead, count, 2)) / 16]
    if score:
        out.insert(0, rng.permutation(count * int(np.prod(lead, dtype=int))).reshape(*lead, count, 1) / 32 + 0.01)
    if ids:
        out.insert(0, rng.randint(-1 if ids < 0 else 0, abs(ids), (*lead, count, 1)))
    return A(data=np.concatenate(out, -1))


case("_contrib_box_nms", boxes(1, 2, count=8, ids=2), id_index=0, overlap_thresh=0.3)
case("_contrib_box_nms", boxes(2, 2, count=8, ids=2), id_index=0, overlap_thresh=0.3, force_suppress=True, topk=5)
case("_contrib_box_nms", boxes(3, 1, count=8, ids=2), id_index=0, overlap_thresh=0.3, valid_thresh=0.1, topk=3,
     background_id=0)  # fmt: skip
case("_contrib_box_nms", boxes(4, count=8), coord_start=1, score_index=0, overlap_thresh=0.2)
case("_contrib_box_nms", boxes(5, 2, count=8, ids=2), id_index=0, overlap_thresh=0.2, in_format="center",
     out_format="corner")  # fmt: skip
case("_contrib_box_nms", boxes(6, 2, count=8, ids=2), id_index=0, overlap_thresh=0.2, in_format="corner",
     out_format="center")  # fmt: skip
case("_contrib_box_decode", (2, 5, 4), boxes(7, 1, count=5, score=False), std0=0.1, std1=0.1, std2=0.2, std3=0.2,
     format="corner")  # fmt: skip
case("_contrib_box_decode", (2, 5, 4), boxes(8, 1, count=5, score=False), std0=0.1, std1=0.1, std2=0.2, std3=0.2,
     clip=0.1)  # fmt: skip
case("_contrib_box_iou", boxes(9, count=4, score=False), boxes(10, count=3, score=False))
case("_contrib_box_iou", boxes(9, count=4, score=False), boxes(10, count=3, score=False), format="center")
case("_contrib_MultiBoxPrior", (1, 3, 3, 4), sizes=(0.5, 0.25), ratios=(1, 2, 0.5))
case("_contrib_MultiBoxPrior", (1, 3, 2, 3), sizes=(0.9,), ratios=(1, 2), clip=True, steps=(0.4, 0.3), offsets=(0.3, 0.7))
case("_contrib_MultiBoxDetection", A(2, 3, 6, low=0.01, high=1), (2, 24), boxes(11, 1, count=6, score=False))
case("_contrib_MultiBoxDetection", A(2, 3, 6, low=0.01, high=1), (2, 24), boxes(12, 1, count=6, score=False),
     nms_threshold=0.3, force_suppress=True, threshold=0.4, nms_topk=4, clip=False)  # fmt: skip
ROIS = A(data=[[0, 0.5, 1, 6.5, 7], [1, 2, 0, 9, 5], [0, 3, 3, 4, 4]])
case("_contrib_ROIAlign", (2, 3, 8, 10), ROIS, pooled_size=(2, 3), spatial_scale=1.0)
case("_contrib_ROIAlign", (2, 3, 8, 10), ROIS, pooled_size=(2, 2), spatial_scale=0.5, sample_ratio=2)
case("_contrib_ROIAlign", (2, 3, 8, 10), ROIS, pooled_size=(2, 2), spatial_scale=0.5, sample_ratio=2, aligned=True)
case("_contrib_ROIAlign", (2, 8, 8, 10), ROIS, pooled_size=(2, 2), spatial_scale=1.0, sample_ratio=2,
     position_sensitive=True)  # fmt: skip
case("ROIPooling", (2, 3, 8, 10), ROIS, pooled_size=(2, 3), spatial_scale=1.0)
case("ROIPooling", (2, 3, 8, 10), ROIS, pooled_size=(3, 3), spatial_scale=0.5)
case("_contrib_DeformableConvolution", (1, 4, 6, 5), A(1, 18, 6, 5), (3, 4, 3, 3), (3,), kernel=(3, 3), num_filter=3,
     pad=(1, 1))  # fmt: skip
case("_contrib_DeformableConvolution", (1, 4, 7, 6), A(1, 36, 3, 2), (4, 2, 3, 3), kernel=(3, 3), num_filter=4,
     num_group=2, num_deformable_group=2, stride=(2, 2), no_bias=True)  # fmt: skip
case("_contrib_ModulatedDeformableConvolution", (2, 4, 6, 5), A(2, 18, 6, 5), A(2, 9, 6, 5, low=0, high=1),
     (3, 4, 3, 3), (3,), kernel=(3, 3), num_filter=3, pad=(1, 1))  # fmt: skip
case("_contrib_ModulatedDeformableConvolution", (1, 4, 6, 5), A(1, 36, 6, 5), A(1, 18, 6, 5, low=0, high=1),
     (4, 4, 3, 3), kernel=(3, 3), num_filter=4, pad=(2, 2), dilate=(2, 2), num_deformable_group=2, no_bias=True)  # fmt: skip
case("BilinearSampler", (2, 3, 4, 5), A(2, 2, 3, 4, low=-1.2, high=1.2))
case("GridGenerator", A(2, 6, low=-1, high=1), transform_type="affine", target_shape=(3, 4))
case("GridGenerator", A(2, 2, 3, 4, low=-1, high=1), transform_type="warp")
case("SpatialTransformer", (2, 3, 4, 5), A(2, 6, low=-1, high=1), target_shape=(3, 4), transform_type="affine",
     sampler_type="bilinear")  # fmt: skip

# -- the NumPy-like interface --
BINARY = "add subtract multiply true_divide less greater_equal equal not_equal power mod hypot arctan2"
for name in BINARY.split():
    case(f"_npi_{name}", A(2, 3, 1, low=0.5, high=3), A(1, 3, 4, low=0.5, high=3))
SCALAR = "add subtract rsubtract multiply true_divide rtrue_divide power rpower mod less equal greater_equal"
for name in SCALAR.split():
    case(f"_npi_{name}_scalar", A(2, 3, low=0.5, high=3), scalar=1.5, is_int=False)
    case(f"_npi_{name}_scalar", A(2, 3, low=1, high=5, dtype="int32"), scalar=2, is_int=True)
UNARY = "absolute negative exp log sqrt square tanh sin cos floor ceil rint cbrt log1p expm1 sign reciprocal"
for name in UNARY.split():
    case(f"_npi_{name}", A(2, 3, low=0.3, high=2.7))
case("_npx_relu", (2, 3))
case("_npx_sigmoid", (2, 3))
case("_npi_logical_not", A(data=[0.0, 1.0, -2.0]))
for name in ("isnan", "isinf", "isfinite"):
    case(f"_npi_{name}", A(data=[0.0, np.nan, np.inf, -np.inf]))
for name in ("mean", "var", "std"):
    case(f"_npi_{name}", X)
    case(f"_npi_{name}", X, axis=(1, 3), keepdims=True)
case("_npi_var", X, axis=(2,), ddof=1)
case("_npi_mean", A(2, 3, low=0, high=9, dtype="int32"), axis=(1,))
for name in ("sum", "prod", "max", "min"):
    case(f"_np_{name}", X)
    case(f"_np_{name}", X, axis=(0, -1))
case("_np_any", X, axis=(1,))
case("_np_all", X, axis=(1,), keepdims=True)
case("_npi_argmax", X, axis=2)
case("_npi_argmin", X)
case("_np_reshape", X, newshape=(6, -1))
for shape in ((-2, -2, -1), (-4,), (-5, -5), (-2, -6, 1, 3, -4), (2, -1)):
    case("_npx_reshape", X, newshape=shape)
case("_npx_reshape", (2, 1, 3), newshape=(-2, -3, -1))
case("_np_transpose", X, axes=(0, 2, 3, 1))
case("_np_transpose", X)
case("_np_squeeze", (1, 3, 1, 4), axis=(2,))
case("_np_squeeze", (1, 1))
case("_np_moveaxis", X, source=(0, 1), destination=(-1, 0))
case("_np_roll", X, shift=(2,), axis=(1,))
case("_np_roll", X, shift=(3,))
case("_np_copy", X)
case("_npi_broadcast_to", (3, 1), shape=(2, 3, 4))
case("_npi_concatenate", (2, 3), (2, 3), num_args=2, axis=0)
case("_npi_stack", (2, 3), (2, 3), num_args=2, axis=1)
case("_npi_vstack", (3,), (3,), num_args=2)
case("_npi_hstack", (2, 3), (2, 1), num_args=2)
case("_npi_dstack", (2, 3), (2, 3), num_args=2)
case("_npi_column_stack", (3,), (3,), num_args=2)
case("_np_dot", (2, 3, 4), (5, 4, 2))
case("_np_dot", (3,), (3,))
case("_npi_matmul", (2, 3, 4), (4, 5))
case("_npi_tensordot", (2, 3, 4), (4, 3, 5), a_axes_summed=(1, 2), b_axes_summed=(1, 0))
case("_npi_tensordot_int_axes", (2, 3, 4), (3, 4, 5), axes=2)
case("_npi_einsum", (2, 3, 4), (2, 5, 4), num_args=2, subscripts="bik,bjk->bij")
case("_npi_einsum", (2, 3, 4, 5), (2, 4, 6), num_args=2, subscripts="bhij,bik->hbkj")
case("_npi_tril", (2, 4, 4), k=-1)
case("_npi_full_like", (2, 3), fill_value=2.5)
case("_npi_zeros", shape=(2, 3))
case("_npi_ones", shape=(2,), dtype="int32")
case("_npi_eye", N=3, M=4)
case("_npi_identity", shape=(3, 3))
case("_npi_arange", start=1, stop=7, step=2)
case("_npi_where", A(data=[[1.0, 0.0], [0.0, 2.0]]), (2, 2), (2, 2))
case("_npi_where_lscalar", A(data=[[1.0, 0.0], [0.0, 2.0]]), (2, 2), scalar=3.0)
case("_npi_where_rscalar", A(data=[[1.0, 0.0], [0.0, 2.0]]), (2, 2), scalar=3.0)
case("_npi_pad", (2, 3), pad_width=((1, 0), (0, 2)), mode="constant", constant_value=1.5)
case("_npi_pad", (2, 3), pad_width=((1, 0), (0, 2)), mode="edge")
case("_npi_bitwise_and", A(5, low=0, high=9, dtype="int32"), A(5, low=0, high=9, dtype="int32"))
case("_npi_bitwise_xor_scalar", A(5, low=0, high=9, dtype="int32"), scalar=5)
case("_npi_bitwise_not", A(5, low=0, high=9, dtype="int32"))


def creator(mx, op):
    for module in (mx.sym, mx.sym._internal, getattr(mx.sym, "contrib", None), mx.sym.op):
        if module is not None and hasattr(module, op):
            return getattr(module, op)
    for prefix, module in (("_contrib_", mx.sym.contrib), ("_linalg_", mx.sym.linalg), ("_np_", mx.sym.numpy)):
        if op.startswith(prefix) and hasattr(module, op[len(prefix) :]):
            return getattr(module, op[len(prefix) :])
    raise LookupError(op)


def run(index, path):
    import mxnet as mx

    op, inputs, aux, attrs = CASES[index]
    rng = np.random.RandomState(zlib.crc32(f"{index}{op}".encode()))
    arrays = [x.draw(rng) for x in inputs]
    names = [f"x{i}" for i in range(len(arrays))]
    variables = [mx.sym.Variable(n) for n in names]
    if op in ("add_n", "Concat", "stack", "UpSampling", "_rnn_param_concat"):
        attrs = {**attrs, "num_args": len(arrays)}
    if op.startswith("_np"):  # these have no functions in Python: write the symbol file by hand
        mx.util.set_np_shape(True)
        nodes = [{"op": "null", "name": n, "inputs": []} for n in names]
        nodes.append({"op": op, "name": "op", "attrs": {k: str(v) for k, v in attrs.items()},
                      "inputs": [[i, 0, 0] for i in range(len(names))]})  # fmt: skip
        symbol = mx.sym.load_json(json.dumps({
            "nodes": nodes, "arg_nodes": list(range(len(names))), "heads": [[len(names), 0, 0]],
            "attrs": {"mxnet_version": ["int", 10901], "is_np_shape": ["int", 1]},
        }))  # fmt: skip
    else:
        symbol = creator(mx, op)(*variables, name="op", **attrs)
    if op == "LeakyReLU" and attrs.get("act_type") == "rrelu":
        symbol = symbol[0]  # the other result is a mask that means nothing outside of training
    args = {n: mx.nd.array(a, dtype=a.dtype) for i, (n, a) in enumerate(zip(names, arrays)) if i not in aux}
    states = {n: mx.nd.array(a, dtype=a.dtype) for i, (n, a) in enumerate(zip(names, arrays)) if i in aux}
    args = {n: args[n] for n in symbol.list_arguments()}
    executor = symbol.bind(mx.cpu(), args=args, aux_states=states)
    results = [o.asnumpy() for o in executor.forward(is_train=False)]
    np.savez(path, **{f"in{i}": a for i, a in enumerate(arrays)}, **{f"out{i}": r for i, r in enumerate(results)})
    with open(path + ".json", "w") as f:
        compact = json.loads(symbol.tojson())
        compact.pop("node_row_ptr", None)
        json.dump(compact, f)


def main(stem, only=None):
    import tempfile

    arrays, symbols, failed = {}, {}, []
    import mxnet  # noqa: F401  (once, before forking)

    with tempfile.TemporaryDirectory() as folder:
        for index, (op, *_rest) in enumerate(CASES):
            if only and only not in op:
                continue
            path = os.path.join(folder, f"{index}.npz")
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                try:
                    run(index, path)
                    os._exit(0)
                except BaseException as error:
                    print(f"{op} {CASES[index][3]}: {str(error).splitlines()[-1][:200]}")
                    sys.stdout.flush()
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            if status or not os.path.exists(path):
                failed.append((op, CASES[index][3]))
                continue
            key = f"{index:03d}_{op}"
            with np.load(path) as z:
                arrays.update({f"{key}/{n}": z[n] for n in z.files})
            with open(path + ".json") as f:
                symbols[key] = json.load(f)
    np.savez_compressed(stem + ".npz", **arrays)
    with open(stem + ".json", "w") as f:
        f.write("{\n" + ",\n".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in symbols.items()) + "\n}\n")
    print(f"{len(symbols)} cases kept, {len(failed)} failed under MXNet: {failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
