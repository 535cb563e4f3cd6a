"""How scripts/mxnet_goldens.py states its cases, and those of layers, elementwise operators and shapes."""

from __future__ import annotations

import zlib

import numpy as np

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
