"""Linear layers with nothing between them."""

from __future__ import annotations

from unstuck._language import say
from unstuck.evidence import Layer, Record
from unstuck.rules._depth import LINEAR, RELU_LIKE, Weighted, main_group, sources, weighted
from unstuck.rules._finding import finding
from unstuck.rules._learning import Learning, progress
from unstuck.rules._words import names, then
from unstuck.verdict import Evidence, Finding, Severity

_AFFINE = frozenset({"add", "bias", "avg_pool", "batch_norm", "mul"})
_CURVED = RELU_LIKE | {
    "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardsigmoid", "hardswish",
    "softplus", "softsign", "sigmoid", "logsigmoid", "tanh", "softmax", "max_pool", "clamp", "layer_norm", "group_norm",
    "instance_norm", "rms_norm", "attention", "rnn", "lstm", "gru", "recurrent", "rnn_cell", "lstm_cell", "gru_cell", "abs", "exp",
    "log", "pow", "sqrt", "norm", "max", "min", "where", "embedding",
}  # fmt: skip
_HALF = 0.5  # of the way from chance to perfect: where one activation more or less hardly matters


def missing_nonlinearity(record: Record, *, narrower: float = 0.75) -> list[Finding]:
    """Linear layers, dense or convolutional, follow each other with no activation between.

    Together they are one linear map: however many of them there are, they can learn no more than one, and train worse.

    Told apart:
        The graph of calls is followed from each linear layer back to the next, through reshaping, dropout,
        averaging, biases and batch normalisation, none of which bends anything. A pair whose middle is narrower
        than both ends saves numbers on purpose (bottlenecks, low-rank factors, the code of an autoencoder), as
        is a depthwise convolution before a pointwise one; such pairs are not mentioned. It is a warning where
        the network does not learn well, else a note.

    Wrong when:
        A deep linear network is studied as such. A function of one's own in between may bend without being
        known.

    Args:
        record: The run.
        narrower: Width of the middle, relative to the narrower end, below which the pair is taken for a
            bottleneck.

    Returns:
        One finding at most, naming the later layer of each pair.
    """
    layers = main_group(record, weighted(record))
    by_name = {w.name: w for w in layers}
    pairs = [
        (before, w)
        for w in layers
        if w.layer.op in LINEAR
        for before in _before(record, w.layer, by_name)
        if _plain(before, w, narrower)
    ]
    if not pairs:
        return []
    learning = progress(record)
    curved = any(layer.op in _CURVED and layer.role == "hidden" for layer in record.program.layers)
    first, second = pairs[0]
    says = (
        say(
            "{second} takes the output of {first} with no activation between them", second=second.name, first=first.name
        )
        if curved
        else say(
            "there is no activation between {first} and {last}: the whole network is linear",
            first=first.name,
            last=pairs[-1][1].name,
        )
    )
    if len(pairs) > 1 and curved:
        says = say("{says}, and so do {others}", says=says, others=names([w.name for _, w in pairs[1:]]))
    return finding(
        "missing-nonlinearity",
        _severity(learning, curved=curved),
        0.5 if curved else 0.7,
        then(says, learning.words()),
        layers=dict.fromkeys(w.name for pair in pairs for w in pair),
        evidence=[Evidence("linear_pairs", second.name, 0, float(len(pairs)))],
        treated_by=("activation",),
    )


def _severity(learning: Learning, *, curved: bool) -> Severity:
    if learning.status == "diverges" or (curved and learning.skill > _HALF):
        return "note"
    return learning.weigh(stuck="warning")


def _before(record: Record, layer: Layer, by_name: dict[str, Weighted]) -> list[Weighted]:
    """Linear layers whose output reaches this one without being bent, where all that it takes comes so."""
    found, todo, seen = [], sources(record, layer), {layer.name}
    while todo:
        source = todo.pop()
        if source.name in seen:
            continue
        seen.add(source.name)
        if source.name in by_name and source.op in LINEAR:
            found.append(by_name[source.name])
        elif source.op in _AFFINE and len(sources(record, source)) <= 1:
            todo.extend(sources(record, source))
        else:
            return []
    return found


def _plain(first: Weighted, second: Weighted, narrower: float) -> bool:
    """Whether a pair has no reason to be: it is no bottleneck, and no depthwise convolution before a pointwise one."""
    one, other = list(first.weights[0].shape), list(second.weights[0].shape)
    if first.layer.op == "conv" and one[1] == 1:
        return False
    product = "matmul" in (first.layer.op, second.layer.op)  # x @ w: inputs come first in the shape
    width, ends = (one[-1], (one[0], other[-1])) if product else (one[0], (one[1], other[0]))
    return first.layer.calls == 1 and width >= narrower * min(ends)
