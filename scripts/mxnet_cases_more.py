"""The cases of scripts/mxnet_goldens.py for reductions, indexing, sequences, detection and the NumPy-like interface."""

from __future__ import annotations

import numpy as np
from mxnet_cases import A, X, case, findex

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
