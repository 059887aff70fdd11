"""From torch's functions to the one vocabulary of ops that layers have, by the function's name.

`matmul`, `__matmul__`, `mm` and `addmm` are all "matmul"; `F.relu`, `torch.relu_`, `Tensor.relu` and `clamp(min=0)` are all "relu".
"""

from __future__ import annotations

from typing import Any

_NAMES: dict[str, str] = {
    "linear": "linear bilinear",
    "conv": "conv1d conv2d conv3d",
    "conv_transpose": "conv_transpose1d conv_transpose2d conv_transpose3d",
    "embedding": "embedding embedding_bag",
    "matmul": "matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm mv einsum tensordot",
    "batch_norm": "batch_norm",
    "layer_norm": "layer_norm",
    "group_norm": "group_norm",
    "instance_norm": "instance_norm",
    "rms_norm": "rms_norm",
    "relu": "relu relu_",
    "relu6": "relu6 relu6_",
    "leaky_relu": "leaky_relu leaky_relu_ rrelu rrelu_",
    "prelu": "prelu",
    "elu": "elu elu_",
    "selu": "selu selu_",
    "celu": "celu celu_",
    "gelu": "gelu",
    "silu": "silu silu_",
    "mish": "mish",
    "hardtanh": "hardtanh hardtanh_",
    "hardsigmoid": "hardsigmoid",
    "hardswish": "hardswish",
    "softplus": "softplus",
    "softsign": "softsign",
    "sigmoid": "sigmoid sigmoid_ expit",
    "logsigmoid": "logsigmoid",
    "tanh": "tanh tanh_",
    "softmax": "softmax gumbel_softmax",
    "log_softmax": "log_softmax",
    "clamp": "clamp clamp_ clip clamp_min clamp_min_ clamp_max clamp_max_",
    "dropout": "dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout",
    "max_pool": "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d max_pool1d_with_indices "
    "max_pool2d_with_indices boolean_dispatch",
    "avg_pool": "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
    "cat": "cat concat concatenate stack hstack vstack",
    "add": "add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ rsub __isub__",
    "mul": "mul mul_ __mul__ __rmul__ __imul__ multiply",
    "div": "div div_ __truediv__ __rtruediv__ true_divide reciprocal",
    "neg": "neg __neg__ negative",
    "exp": "exp expm1",
    "log": "log log1p log2 log10 xlogy logaddexp",
    "logsumexp": "logsumexp",
    "sqrt": "sqrt rsqrt",
    "pow": "pow pow_ __pow__ __rpow__ square float_power",
    "norm": "norm vector_norm matrix_norm cdist pairwise_distance",
    "abs": "abs __abs__ absolute",
    "mean": "mean nanmean",
    "sum": "sum nansum",
    "gather": "gather take_along_dim index_select",
    "where": "where masked_fill masked_fill_",
    "rnn": "rnn rnn_tanh rnn_relu",
    "lstm": "lstm",
    "gru": "gru",
    "recurrent": "recurrent",
    "rnn_cell": "rnn_tanh_cell rnn_relu_cell",
    "lstm_cell": "lstm_cell",
    "gru_cell": "gru_cell",
    "attention": "scaled_dot_product_attention multi_head_attention_forward",
    "max": "max amax maximum",
    "min": "min amin minimum",
}
OPS: dict[str, str] = {name: op for op, names in _NAMES.items() for name in names.split()}


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


ALIASES = _set(
    """
    view reshape flatten unflatten ravel permute transpose transpose_ t T mT swapaxes movedim unsqueeze
    unsqueeze_ squeeze squeeze_ expand expand_as view_as reshape_as contiguous clone to type type_as float half
    bfloat16 double cuda cpu chunk split tensor_split split_with_sizes unbind narrow select __getitem__ unfold
    repeat repeat_interleave roll flip pack_padded_sequence pad alias_copy detach_ requires_grad_
    _pack_padded_sequence _pad_packed_sequence
    """
)
"""Functions that hand on what they were given, in another shape: no layer of their own."""

IGNORED = _set(
    """
    __get__ __set__ dim size numel ndimension stride is_contiguous data_ptr element_size item tolist numpy
    detach is_floating_point is_complex __len__ __bool__ __float__ __int__ __index__ __hash__ __repr__
    __format__ __str__ __deepcopy__ __reduce_ex__ register_hook retain_grad backward get_device storage
    untyped_storage storage_offset __iter__ __contains__ is_same_size _set_grad_enabled
    _record_function_enter_new _record_function_exit._RecordFunction is_nonzero is_inference nelement new_zeros
    new_ones new_empty new_full new_tensor zeros ones empty full randn rand arange tensor zeros_like ones_like
    rand_like randn_like empty_like randint randperm linspace manual_seed copy_ zero_ fill_ normal_ uniform_
    set_ share_memory_ is_shared pin_memory is_pinned allclose equal
    """
)

LOSSES = _set(
    """
    cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy
    binary_cross_entropy_with_logits kl_div poisson_nll_loss gaussian_nll_loss hinge_embedding_loss
    margin_ranking_loss soft_margin_loss multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss
    triplet_margin_loss triplet_margin_with_distance_loss cosine_embedding_loss ctc_loss linear_cross_entropy
    """
)
BOUNDS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "hardtanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0),
}  # fmt: skip
RELU_LIKE = frozenset({"relu", "relu6"})
NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
RECURRENT = frozenset({"rnn", "lstm", "gru", "recurrent"})
CELLS = frozenset({"rnn_cell", "lstm_cell", "gru_cell"})
MEASURED = (
    _set(
        """
    linear conv conv_transpose embedding matmul leaky_relu prelu elu selu celu gelu silu mish hardswish softplus
    logsigmoid softmax log_softmax attention
    """
    )
    | frozenset(BOUNDS)
    | RELU_LIKE
    | NORMS
    | RECURRENT
    | CELLS
)
"""Ops whose outputs are measured; the others only take part in the graph of calls."""

LOSS_OPS = _set(
    """
    add mul div neg exp log logsumexp sqrt pow norm abs mean sum gather where clamp max min logsigmoid
    """
)
"""Ops of which hand-written losses are made, besides activations."""


def op_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> str:
    """The op a call of the torch function `name` stands for, "other" when it is none we know."""
    if name in LOSSES:
        return "loss"
    if name == "__getitem__":
        return "gather"
    op = OPS.get(name, "other")
    if op == "clamp" and _clamps_at_zero(name, args, kwargs or {}):
        return "relu"
    return op


def _clamps_at_zero(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    low = kwargs.get("min", args[1] if len(args) > 1 else None)
    high = kwargs.get("max", args[2] if len(args) > 2 else None)
    if name.startswith("clamp_max"):
        return False
    return high is None and isinstance(low, (int, float)) and low == 0


def settings_of(name: str, op: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """What a call's arguments say that rules need: the dim of a softmax, the p of a dropout, ..."""
    kwargs = kwargs or {}

    def argument(key: str, position: int) -> Any:
        value = kwargs.get(key, args[position] if len(args) > position else None)
        return value if isinstance(value, (int, float, bool)) else None

    if op in ("softmax", "log_softmax"):
        found = {"dim": argument("dim", 1)}
    elif op == "dropout":
        found = {"p": argument("p", 1), "training": argument("training" if "training" in kwargs else "train", 2)}
    elif op == "clamp":
        found = {"min": argument("min", 1), "max": argument("max", 2)}
    elif op == "leaky_relu":
        found = {"negative_slope": argument("negative_slope", 1)}
    elif op == "hardtanh":
        found = {"min": argument("min_val", 1), "max": argument("max_val", 2)}
    else:
        found = {}
    if op in BOUNDS:
        found["bounds"] = list(BOUNDS[op])
    return {key: value for key, value in found.items() if value is not None}
