"""What libmxnet's registry says about the operators of a symbol file: input names, aux states, output names.

A symbol file names none of these; MXNet derives them from the operator and its attributes. Only what reading a file
needs is here (the full schemas belong to the converters).
"""

from __future__ import annotations

from collections.abc import Mapping

from diptych.errors import FormatError
from diptych.frontends.mxnet.attributes import AttributeValue, parse_bool, parse_value

__all__ = ["initializer", "input_names", "mutated_inputs", "output_count", "output_name"]

# Operators with a fixed list of inputs of which a file may leave out some. Operators that take any number of inputs never
# miss one: their count is an attribute of the file itself.
_FIXED = {
    name: tuple(names.split())
    for group, names in {
        "BatchNorm BatchNorm_v1 CuDNNBatchNorm _contrib_SyncBatchNorm _contrib_BatchNormWithReLU":
            "data gamma beta moving_mean moving_var",
        "_contrib_quantized_batch_norm": "data gamma beta moving_mean moving_var min_data max_data",
        "InstanceNorm LayerNorm GroupNorm": "data gamma beta",
        "SoftmaxOutput LinearRegressionOutput LogisticRegressionOutput MAERegressionOutput SVMOutput softmax_cross_entropy":
            "data label",
        "IdentityAttachKLSparseReg": "data moving_avg",
        "Embedding _contrib_SparseEmbedding": "data weight",
        "ROIPooling _contrib_ROIAlign": "data rois",
        "SpatialTransformer": "data loc",
        "BilinearSampler": "data grid",
        "Correlation": "data1 data2",
        "_contrib_MultiBoxTarget": "anchor label cls_pred",
        "_contrib_MultiBoxDetection": "cls_prob loc_pred anchor",
        "_contrib_Proposal _contrib_MultiProposal": "cls_prob bbox_pred im_info",
        "elemwise_add elemwise_sub elemwise_mul elemwise_div dot batch_dot broadcast_add broadcast_sub broadcast_mul broadcast_div "
        "broadcast_power broadcast_maximum broadcast_minimum broadcast_hypot broadcast_equal broadcast_not_equal broadcast_greater "
        "broadcast_greater_equal broadcast_lesser broadcast_lesser_equal _maximum _minimum _power _hypot _equal _not_equal _greater "
        "_greater_equal _lesser _lesser_equal _mod _grad_add":
            "lhs rhs",
        "take": "a indices",
        "batch_take": "a indices",
        "pick": "data index",
        "where": "condition x y",
    }.items()
    for name in group.split()
}  # fmt: skip

# Operators with a bias that `no_bias` takes away.
_WEIGHTED = {
    "Convolution": ("data", "weight"), "Convolution_v1": ("data", "weight"), "FullyConnected": ("data", "weight"),
    "Deconvolution": ("data", "weight"), "_contrib_DeformableConvolution": ("data", "offset", "weight"),
    "_contrib_ModulatedDeformableConvolution": ("data", "offset", "mask", "weight"),
}  # fmt: skip

# Variables that an operator writes to: MXNet calls them auxiliary states.
_MUTATED = {
    "BatchNorm": (3, 4), "BatchNorm_v1": (3, 4), "CuDNNBatchNorm": (3, 4), "_contrib_SyncBatchNorm": (3, 4),
    "_contrib_BatchNormWithReLU": (3, 4), "_contrib_quantized_batch_norm": (3, 4), "IdentityAttachKLSparseReg": (1,),
    "sgd_mom_update": (2,), "nag_mom_update": (2,), "signum_update": (2,), "mp_sgd_update": (2,), "mp_sgd_mom_update": (2, 3),
    "mp_nag_mom_update": (2, 3), "adam_update": (2, 3), "ftml_update": (2, 3, 4), "ftrl_update": (2, 3), "rmsprop_update": (2,),
    "rmspropalex_update": (2, 3, 4), "_sparse_adagrad_update": (2,), "_contrib_group_adagrad_update": (2,),
    "lamb_update_phase1": (2, 3), "mp_lamb_update_phase1": (2, 3), "_adamw_update": (2, 3), "_mp_adamw_update": (2, 3, 4),
}  # fmt: skip

# Operators whose outputs have names of their own.
_OUTPUTS = {
    name: tuple(names.split())
    for group, names in {
        "BatchNorm BatchNorm_v1 CuDNNBatchNorm _contrib_SyncBatchNorm": "output mean var",
        "_contrib_BatchNormWithReLU": "output mean var workspace",
        "LayerNorm GroupNorm": "output mean std",
        "Dropout": "output mask",
        "LRN": "output tmp_norm",
        "_contrib_MultiBoxTarget": "loc_target loc_mask cls_target",
        "_contrib_Proposal _contrib_MultiProposal": "output score",
        "_contrib_hawkesll": "output out_state",
        "_contrib_calibrate_entropy": "threshold divergence",
        "_contrib_quantize_asym": "output scale shift",
        "_contrib_quantized_act _contrib_quantized_batch_norm _contrib_quantized_concat _contrib_quantized_conv "
        "_contrib_quantized_elemwise_add _contrib_quantized_elemwise_mul _contrib_quantized_embedding _contrib_quantized_flatten "
        "_contrib_quantized_fully_connected _contrib_quantized_pooling": "output min_output max_output",
        "_npi_concatenate _npi_hstack _npi_dstack _npi_matmul": "out",
        "_npi_std": "std mean",
        "_npi_var": "var mean",
        "make_loss": "loss",
    }.items()
    for name in group.split()
}  # fmt: skip

# Operators that keep scratch outputs to themselves: only the first, NAME_output, is ever seen.
_SCRATCH = {
    "InstanceNorm": 3, "L2Normalization": 2, "ROIPooling": 2, "BilinearSampler": 2, "GridGenerator": 2, "SpatialTransformer": 3,
    "Correlation": 3, "_contrib_DeformablePSROIPooling": 2,
}  # fmt: skip

# Operators with a fixed number of outputs other than one, without names of their own: output0, output1, ...
_COUNTS = {
    name: count
    for count, group in {
        2: "CTCLoss _contrib_bipartite_matching _contrib_box_encode _contrib_box_nms _histogram _linalg_gelqf _linalg_syevd "
        "_npi_average _npi_eig _npi_eigh sort moments _npi_exponential _npi_gumbel _npi_logistic _npi_normal _npi_normal_n "
        "_npi_pareto _npi_rayleigh _npi_weibull _sample_unique_zipfian",
        3: "_contrib_quantize _contrib_quantize_v2 _contrib_requantize _linalg_det _npi_svd",
        4: "_linalg_slogdet _npi_norm",
    }.items()
    for name in group.split()
}  # fmt: skip

_SHOWS_ONE = frozenset({
    "Dropout", "LRN", "CTCLoss", "CuDNNBatchNorm", "_contrib_box_nms", "sort", "_npi_average", "_npi_exponential",
    "_npi_gumbel", "_npi_logistic", "_npi_normal", "_npi_normal_n", "_npi_pareto", "_npi_rayleigh", "_npi_weibull",
    "_npi_norm", "_npi_std", "_npi_var",
})  # fmt: skip

_MEAN_VAR = frozenset({"BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU", "LayerNorm",
                       "GroupNorm"})  # fmt: skip


def _flag(attrs: Mapping[str, str], name: str, default: bool) -> bool:
    text = attrs.get(name)
    if text is None or text.strip() == "None":
        return default
    try:
        return parse_bool(text)
    except FormatError as error:
        raise FormatError(f"attribute {name!r}: {error}") from None


def _value(attrs: Mapping[str, str], name: str, default: str = "None") -> AttributeValue:
    try:
        return parse_value(attrs.get(name, default))
    except FormatError as error:
        raise FormatError(f"attribute {name!r}: {error}") from None


def _count(attrs: Mapping[str, str], name: str, default: int) -> int:
    value = _value(attrs, name) if name in attrs else default
    return value if isinstance(value, int) and 0 <= value < 1 << 20 else default


def input_names(operator: str, attrs: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names of an operator's inputs, aux states included; None where they are not needed to read a file.

    >>> input_names("Convolution", {"no_bias": "True"})
    ('data', 'weight')
    """
    if operator in _WEIGHTED:
        no_bias = _flag(attrs, "no_bias", operator == "Deconvolution")
        return _WEIGHTED[operator] if no_bias else (*_WEIGHTED[operator], "bias")
    if operator == "LeakyReLU":
        return ("data", "gamma") if attrs.get("act_type") == "prelu" else ("data",)
    if operator in ("SequenceLast", "SequenceMask", "SequenceReverse"):
        return ("data", "sequence_length") if _flag(attrs, "use_sequence_length", False) else ("data",)
    if operator == "UpSampling" and attrs.get("sample_type") == "bilinear":
        return ("data", "weight")
    if operator == "Crop":
        return ("data", "crop_like") if attrs.get("num_args") == "2" else ("data",)
    if operator == "RNN":
        names: tuple[str, ...] = ("data", "parameters", "state")
        names += ("state_cell",) if attrs.get("mode") == "lstm" else ()
        return (*names, "sequence_length") if _flag(attrs, "use_sequence_length", False) else names
    return _FIXED.get(operator)


def mutated_inputs(operator: str) -> tuple[int, ...]:
    """The positions of an operator's auxiliary states among its inputs.

    >>> mutated_inputs("BatchNorm")
    (3, 4)
    """
    return _MUTATED.get(operator, ())


def initializer(operator: str, index: int) -> str | None:
    """The `__init__` that MXNet gives the variable at this input when it has none.

    >>> initializer("BatchNorm", 4)
    '["one", {}]'
    """
    if operator in ("BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU"):
        return {3: '["zero", {}]', 4: '["one", {}]'}.get(index)
    if index != 1:
        return None
    return {
        "LeakyReLU": '["Constant", {"value": 0.25}]',
        "IdentityAttachKLSparseReg": '["zero", {}]',
        "UpSampling": '["bilinear", {}]',
    }.get(operator)


def output_count(operator: str, attrs: Mapping[str, str], *, visible: bool = False) -> int:
    """How many outputs a node has; `visible` leaves out those that MXNet keeps to itself.

    >>> output_count("SliceChannel", {"num_outputs": "3"}), output_count("BatchNorm", {}, visible=True)
    (3, 1)
    """
    if operator in ("SliceChannel", "_foreach", "_while_loop", "_cond"):
        return _count(attrs, "num_outputs", 1)
    if operator in ("_split_v2", "_npi_hsplit", "_npi_dsplit", "_npi_array_split"):
        sections = _count(attrs, "sections", 0)
        indices = _value(attrs, "indices", "()")
        if sections:
            return sections
        return len(indices) + (operator == "_npi_array_split") if isinstance(indices, tuple) else 1
    if operator == "topk":
        kind = attrs.get("ret_typ", "indices")
        return 1 if kind in ("indices", "mask") or (visible and kind == "value") else 2
    if operator in _SCRATCH:
        return 1 if visible else _SCRATCH[operator]
    if operator == "Pooling":
        return 1 if visible else _pooling_outputs(attrs)
    if operator in ("_np_atleast_1d", "_np_atleast_2d", "_np_atleast_3d"):
        return _count(attrs, "num_args", 1)
    if operator == "LeakyReLU":
        return 2 if attrs.get("act_type") == "rrelu" else 1
    if operator == "RNN":
        extra = _flag(attrs, "state_outputs", False) * (2 if attrs.get("mode") == "lstm" else 1)
        return 1 + extra
    if visible:
        if operator in _MEAN_VAR:
            return 3 if _flag(attrs, "output_mean_var", False) else 1
        if operator in ("_contrib_Proposal", "_contrib_MultiProposal"):
            return 2 if _flag(attrs, "output_score", False) else 1
        if operator in _SHOWS_ONE:
            return 1
        if operator in ("_linalg_det", "_linalg_slogdet"):
            return 1 if operator == "_linalg_det" else 2
    return len(_OUTPUTS[operator]) if operator in _OUTPUTS else _COUNTS.get(operator, 1)


def output_name(operator: str, name: str, attrs: Mapping[str, str], index: int) -> str:
    """The name of one output of a node, as `list_outputs` gives it.

    >>> output_name("SliceChannel", "split0", {"num_outputs": "2"}, 1), output_name("Convolution", "conv0", {}, 0)
    ('split0_output1', 'conv0_output')
    """
    if operator in _OUTPUTS and index < len(_OUTPUTS[operator]):
        ending = _OUTPUTS[operator][index]
    elif index == 0 and (operator in _SCRATCH or operator == "Pooling"):
        ending = "output"
    elif operator == "RNN":
        ending = ("output", "state_output", "statecell_output")[min(index, 2)]
    elif operator == "LeakyReLU":
        ending = ("output", "mask")[min(index, 1)]
    elif operator == "SliceChannel" or output_count(operator, attrs) != 1:
        ending = f"output{index}"
    else:
        ending = "output"
    return f"{name}_{ending}" if name else ending


def _pooling_outputs(attrs: Mapping[str, str]) -> int:
    """Max pooling has a hidden workspace in MXNet builds with oneDNN, as the published ones are."""
    kernel = _value(attrs, "kernel", "()")
    rank = len(kernel) if isinstance(kernel, tuple) else 1
    plain = attrs.get("layout", "None") in ("None", "NCW", "NCHW", "NCDHW")
    return 2 if attrs.get("pool_type", "max") == "max" and 1 <= rank <= 3 and plain else 1
