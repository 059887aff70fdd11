"""How far the gradient of a recurrent layer reaches back: its size by time lag, relative to lag 0.

Cells that a script calls once a time step leave a gradient at every call (`by_call`). A fused layer (`nn.RNN`, `nn.LSTM`, `nn.GRU`)
computes all steps in one call and shows none of its states' gradients; `memory` computes them from the layer's weights and a few samples of
its input. Sizes a long way back lie far below the smallest float32 (1e-39 after 200 steps of an LSTM as initialised), so they
are carried as logarithms.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def by_call(norms: Mapping[int, float] | Sequence[float]) -> np.ndarray:
    """The gradient by time lag of a cell that is called once a time step.

    Args:
        norms: Norm of the gradient at the cell's output, by number of the call; a mapping where only some calls were measured.

    Returns:
        The norm at each lag over that at lag 0, which is the last call with a gradient. NaN where it wasn't measured; empty
        when there was no gradient at all.

    Example:
        >>> by_call([0.25, 0.5, 1.0, 2.0, 0.0]).tolist()
        [1.0, 0.5, 0.25, 0.125]
    """
    known = norms if isinstance(norms, Mapping) else dict(enumerate(norms))
    alive = [call for call, norm in known.items() if norm > 0]
    if not alive:
        return np.zeros(0)
    last = max(alive)
    found = np.full(last - min(known) + 1, np.nan)
    for call, norm in known.items():
        if call <= last:
            found[last - call] = norm / known[last]
    return found


_Grads = tuple[Tensor, ...]  # by a layer's states: its output and, in an LSTM, the cell's content


class _Cell(NamedTuple):
    """Weights of one layer and direction."""

    mode: str
    input_weight: Tensor
    hidden_weight: Tensor
    input_bias: Tensor | None
    hidden_bias: Tensor | None
    projection: Tensor | None


def _cell(module: nn.RNNBase, layer: int, suffix: str, dtype: torch.dtype) -> _Cell:
    names = [f"{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
    weights = [getattr(module, name, None) for name in names]
    return _Cell(module.mode, *(None if w is None else w.detach().to(dtype) for w in weights))  # pyright: ignore


@dataclass
class _Pass:
    """One layer's way through a sequence.

    Attributes:
        cell: Its weights.
        outputs: Its output after each step, shape `(time, batch, output)`.
        pull: From a step and the gradient by the states after it to the gradient by the cell's input side, before the input
            weights, and that by the states before it.
        content_size: Size of the state beside the output, 0 when there is none.
    """

    cell: _Cell
    outputs: Tensor
    pull: Callable[[int, _Grads], tuple[Tensor, _Grads]]
    content_size: int = 0

    def zeros(self) -> _Grads:
        """A gradient by the states."""
        last = self.outputs[-1]
        content = (last.new_zeros(last.shape[0], self.content_size),) if self.content_size else ()
        return (torch.zeros_like(last), *content)


@torch.no_grad()
def memory(module: nn.Module, input: Any, *, max_steps: int = 200, max_batch: int = 4) -> Float[Tensor, " lag"] | None:
    """How far the last output of a recurrent layer reaches back: the gradient by its state, by time lag.

    With v a fixed vector, h_T the last output and s_t all states after step t (of an LSTM also the cells' contents; of stacked
    layers those of every layer), this is |d(v.h_T) / d s_(T-d)| / |v| for d = 1, 2, ..., and 1 for d = 0, over a few samples
    of the batch. The weights are taken as they are and without dropout; the first state is zero. It is worked out step by
    step without autograd, so no gradient of the user's is touched.

    A bidirectional layer has no last step common to both directions: each layer and direction is taken by itself, its
    inputs fixed, and at each lag the largest counts.

    Args:
        module: `nn.RNN`, `nn.LSTM` or `nn.GRU`.
        input: What it was given: a tensor, or arguments that begin with one.
        max_steps: The largest lag.
        max_batch: Most samples, spread over the batch.

    Returns:
        A value for each lag from 0 on, float64 where the device has it; None when the module is another, or the input is packed.

    Example:
        >>> rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False)
        >>> _ = nn.init.constant_(rnn.weight_ih_l0, 1.0), nn.init.constant_(rnn.weight_hh_l0, 0.5)
        >>> [round(size, 6) for size in memory(rnn, torch.ones(4, 1, 1)).tolist()]
        [1.0, 0.5, 0.25, 0.125]
    """
    x = input[0] if type(input) in (tuple, list) and input else input
    if not isinstance(module, nn.RNNBase) or module.mode not in _STEPS or not isinstance(x, Tensor):
        return None
    if x.dim() not in (2, 3) or x.numel() == 0:
        return None
    if x.dim() == 2:
        x = x.unsqueeze(1)
    elif module.batch_first:
        x = x.transpose(0, 1)
    x = x.detach()[:, :: -(-x.shape[1] // max_batch)]
    x = x if x.dtype is torch.float64 else x.float()
    layers = [
        [_cell(module, layer, suffix, x.dtype) for suffix in _suffixes(module)] for layer in range(module.num_layers)
    ]
    with _full_precision(x.device.type):
        if module.bidirectional:
            return _each_by_itself(layers, x[-(max_steps + 1) :])
        return _stacked([cells[0] for cells in layers], x, max_steps)


def _suffixes(module: nn.RNNBase) -> tuple[str, ...]:
    return ("", "_reverse") if module.bidirectional else ("",)


def _full_precision(device: str) -> AbstractContextManager[Any]:
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known and torch.is_autocast_enabled(device) else nullcontext()


def _stacked(cells: list[_Cell], x: Tensor, max_steps: int) -> Tensor:
    """Of layers on top of each other, whose states together are the state."""
    lags = min(x.shape[0] - 1, max_steps)
    x = x[-(lags + max_steps + 1) :]  # steps before that only bring the state to where it is
    passes = []
    for cell in cells:
        passes.append(_STEPS[cell.mode](cell, x))
        x = passes[-1].outputs
    return _reach(passes, lags)


def _each_by_itself(layers: list[list[_Cell]], x: Tensor) -> Tensor:
    """Of bidirectional layers: the largest over layers and directions."""
    found = []
    for forward, backward in layers:
        ahead = _STEPS[forward.mode](forward, x)
        back = _STEPS[backward.mode](backward, x.flip(0))
        found += [_reach([ahead], x.shape[0] - 1), _reach([back], x.shape[0] - 1)]
        x = torch.cat([ahead.outputs, back.outputs.flip(0)], dim=2)
    return torch.stack(found).amax(0)


def _reach(passes: list[_Pass], lags: int) -> Tensor:
    """Pulls v back through the last `lags` steps, brought to size 1 every few steps so that it never underflows."""
    last = passes[-1].outputs[-1]
    wide = torch.float32 if last.device.type == "mps" else torch.float64
    v = torch.arange(1, last.shape[1] + 1, device=last.device, dtype=last.dtype).mul_(2.399963).cos_()
    grads = [layer.zeros() for layer in passes]
    grads[-1][0].copy_(v)
    smallest = torch.finfo(last.dtype).tiny
    steps = passes[-1].outputs.shape[0]
    scale = torch.ones((), dtype=wide, device=last.device).log_()  # logarithm of what was divided by
    seen, scales = [], []
    for lag in range(lags):
        if lag % _RESCALE == 0:
            size = torch.linalg.vector_norm(torch.cat([g for layer in grads for g in layer], dim=1))
            grads = [tuple(g / size.clamp_min(smallest) for g in layer) for layer in grads]
            scale = scale + size.to(wide).log() if lag else scale
        grads = _pull(passes, steps - 1 - lag, grads)
        seen.append(torch.cat([g for layer in grads for g in layer], dim=1))
        scales.append(scale)
    one = torch.ones(1, dtype=wide, device=last.device)
    if not lags:
        return one
    found = torch.stack(seen).flatten(1).to(wide)
    largest = found.abs().amax(1).clamp_min(smallest)
    sizes = torch.linalg.vector_norm(found / largest.unsqueeze(1), dim=1) * largest
    return torch.cat([one, (sizes.log() + torch.stack(scales)).exp()])


_RESCALE = 4


def _pull(passes: list[_Pass], step: int, grads: list[_Grads]) -> list[_Grads]:
    """From the gradient by the states after a step to that by the states before it, from the top layer down."""
    found: list[_Grads] = []
    from_above: Tensor | None = None
    for layer, grad in zip(reversed(passes), reversed(grads), strict=True):
        if from_above is not None:
            grad = (grad[0] + from_above, *grad[1:])
        by_input, before = layer.pull(step, grad)
        from_above = by_input @ layer.cell.input_weight
        found.append(before)
    return found[::-1]


# ---------------------------------------------------------------------- the cells' equations, as torch documents them


def _plain(cell: _Cell, x: Tensor) -> _Pass:
    """nn.RNN: h' = tanh(W x + b + U h + c), or relu."""
    rectified = cell.mode == "RNN_RELU"
    hidden_t = cell.hidden_weight.t()
    h, outputs = x.new_zeros(x.shape[1], hidden_t.shape[0]), []
    for given in _linear(x, cell.input_weight, cell.input_bias, cell.hidden_bias).unbind():
        h = torch.addmm(given, h, hidden_t)
        h = h.relu_() if rectified else h.tanh_()
        outputs.append(h)
    after = torch.stack(outputs)
    slopes = (after > 0).to(after.dtype) if rectified else 1 - after.square()

    def pull(step: int, grads: _Grads) -> tuple[Tensor, _Grads]:
        inner = grads[0] * slopes[step]
        return inner, (inner @ cell.hidden_weight,)

    return _Pass(cell, after, pull)


def _gru(cell: _Cell, x: Tensor) -> _Pass:
    """nn.GRU: r, z = sigmoid(...); n = tanh(W x + b + r (U h + c)); h' = (1 - z) n + z h."""
    hidden_t, bias = cell.hidden_weight.t(), cell.hidden_bias
    size = hidden_t.shape[0]
    h, kept = x.new_zeros(x.shape[1], size), []
    for given in _linear(x, cell.input_weight, cell.input_bias).unbind():
        inner = h @ hidden_t if bias is None else torch.addmm(bias, h, hidden_t)
        r, z = (given[:, : 2 * size] + inner[:, : 2 * size]).sigmoid_().chunk(2, dim=1)
        recalled = inner[:, 2 * size :]
        n = torch.addcmul(given[:, 2 * size :], r, recalled).tanh_()
        kept.append((r, z, n, recalled, h))
        h = torch.lerp(n, h, z)
    r, z, n, recalled, before = (torch.stack(all_steps) for all_steps in zip(*kept, strict=True))
    to_new = (1 - z) * (1 - n.square())  # by h' to before the tanh
    to_update = (before - n) * z * (1 - z)
    to_reset = to_new * recalled * r * (1 - r)
    by_hidden = torch.cat([to_reset, to_update, to_new * r], dim=2)
    by_input = torch.cat([to_reset, to_update, to_new], dim=2)

    def pull(step: int, grads: _Grads) -> tuple[Tensor, _Grads]:
        three = grads[0].repeat(1, 3)
        previous = torch.addmm(grads[0] * z[step], three * by_hidden[step], cell.hidden_weight)
        return three * by_input[step], (previous,)

    return _Pass(cell, torch.cat([before[1:], h.unsqueeze(0)]), pull)


def _lstm(cell: _Cell, x: Tensor) -> _Pass:
    """nn.LSTM: i, f, o = sigmoid(...); g = tanh(...); c' = f c + i g; h' = o tanh(c'), projected where there is a projection."""
    hidden_t, projection = cell.hidden_weight.t(), cell.projection
    size = cell.hidden_weight.shape[0] // 4
    c, h = x.new_zeros(x.shape[1], size), x.new_zeros(x.shape[1], hidden_t.shape[0])
    kept, outputs = [], []
    for given in _linear(x, cell.input_weight, cell.input_bias, cell.hidden_bias).unbind():
        inner = torch.addmm(given, h, hidden_t)
        g = inner[:, 2 * size : 3 * size].tanh()
        i, f, _, o = inner.sigmoid_().chunk(4, dim=1)
        before, c = c, torch.addcmul(f * c, i, g)
        bent = c.tanh()
        h = o * bent if projection is None else (o * bent) @ projection.t()
        kept.append((i, f, g, o, before, bent))
        outputs.append(h)
    i, f, g, o, before, bent = (torch.stack(all_steps) for all_steps in zip(*kept, strict=True))
    to_content = o * (1 - bent.square())
    gates = torch.cat([g * i * (1 - i), before * f * (1 - f), i * (1 - g.square()), bent * o * (1 - o)], dim=2)

    def pull(step: int, grads: _Grads) -> tuple[Tensor, _Grads]:
        by_output = grads[0] if projection is None else grads[0] @ projection
        by_content = torch.addcmul(grads[1], by_output, to_content[step])
        inner = torch.cat([by_content, by_content, by_content, by_output], dim=1) * gates[step]
        return inner, (inner @ cell.hidden_weight, by_content * f[step])

    return _Pass(cell, torch.stack(outputs), pull, size)


def _linear(x: Tensor, weight: Tensor, *biases: Tensor | None) -> Tensor:
    found = F.linear(x, weight)
    for bias in biases:
        found = found if bias is None else found + bias
    return found


_STEPS = {"RNN_TANH": _plain, "RNN_RELU": _plain, "GRU": _gru, "LSTM": _lstm}
