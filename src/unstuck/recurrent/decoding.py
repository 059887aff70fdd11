"""Output sequences of a model that gives one token after the other: greedy, by beam search, or drawn at random.

A model is a function `step(tokens, state) -> (log_probs, state)`. It takes the last token of each row, shape `(batch,)`, and gives the
log-probabilities of the next, shape `(batch, vocab)`. Its state is any nest of tuples, lists and dicts of tensors with the batch as
FIRST axis; whatever else is in it (`None`, numbers) is taken to be the same for all rows. All inputs are decoded at once, and rows that
are done leave the batch, so that a step has fewer and fewer to compute.

A sequence is complete when it ends in the `stop` token, or has `max_length` tokens, `stop` included; of two such sequences the one
with the higher score is better, however it ended.

Options that can't be, and steps that give what is no log-probability (NaN, above zero, not one for each token), are a `MisuseError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unstuck.errors import MisuseError

Step = Callable[[Int[Tensor, " batch"], Any], tuple[Float[Tensor, "batch vocab"], Any]]
ROUNDING = 1e-2  # by how much a log-probability may exceed zero; half precision rounds sums of logits that badly


@dataclass(frozen=True)
class Decoded:
    """Sequences for each input, the best first.

    Attributes:
        tokens: Shape `(batch, best, time)`; after the end of a sequence come `stop` tokens.
        lengths: Number of tokens before `stop`, shape `(batch, best)`.
        scores: Log-probability over length penalty, shape `(batch, best)`; -inf where there are fewer sequences than asked for.
        log_probs: Of the whole sequences, `stop` included, shape `(batch, best)`.
    """

    tokens: Int[Tensor, "batch best time"]
    lengths: Int[Tensor, "batch best"]
    scores: Float[Tensor, "batch best"]
    log_probs: Float[Tensor, "batch best"]

    def sequences(self, rank: int = 0) -> list[list[int]]:
        """The tokens of each input's best sequence, or of the one at a rank, without `stop`."""
        pairs = zip(self.tokens[:, rank].tolist(), self.lengths[:, rank].tolist(), strict=True)
        return [tokens[:length] for tokens, length in pairs]


def greedy(step: Step, state: Any, *, start: int | Tensor, stop: int | None, max_length: int) -> Decoded:
    """The most probable token at each step.

    Args:
        step: The model.
        state: Before the first token.
        start: The token that comes before the first, or one for each input, shape `(batch,)`. If it is a number, the first tensor
            of the state says how many inputs there are, and on which device.
        stop: The token that ends a sequence; None if nothing but `max_length` does.
        max_length: Most tokens of a sequence, `stop` included.

    Returns:
        One sequence for each input; its score is its log-probability.

    Example:
        >>> odds = torch.tensor([[0.0, 0.6, 0.4], [0.0, 0.3, 0.7], [0.5, 0.3, 0.2]]).log()
        >>> greedy(
        ...     lambda last, state: (odds[last], state), None, start=torch.tensor([0, 2]), stop=0, max_length=3
        ... ).sequences()
        [[1, 2], []]
    """
    return _roll(step, state, lambda log_probs: log_probs.argmax(dim=1), start, stop, max_length)


def sample(
    step: Step,
    state: Any,
    *,
    start: int | Tensor,
    stop: int | None,
    max_length: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Decoded:
    """Tokens drawn from the model's distribution.

    Args:
        step: The model.
        state: Before the first token.
        start: As in `greedy`.
        stop: The token that ends a sequence; None if nothing but `max_length` does.
        max_length: Most tokens of a sequence, `stop` included.
        generator: Of the draws, on the device of the tokens.
        temperature: What log-probabilities are divided by: below 1 likely tokens become more so.
        top_k: Draw only from that many most probable tokens; None for all.

    Returns:
        One sequence for each input; its score is its log-probability under the model, at temperature 1 and with all tokens.

    Raises:
        MisuseError: A temperature or a `top_k` that can't be.
    """
    if not temperature > 0:
        raise MisuseError(f"temperature is {temperature}, and has to be above 0; for the limit at 0 use `greedy`")
    if top_k is not None and top_k < 1:
        raise MisuseError(f"top_k is {top_k}: give at least 1, or None to draw from all tokens")

    def draw(log_probs: Tensor) -> Tensor:
        if top_k is not None and top_k < log_probs.shape[1]:
            least = log_probs.topk(top_k, dim=1).values[:, -1:]
            log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
        return torch.multinomial((log_probs / temperature).softmax(dim=1), 1, generator=generator)[:, 0]

    return _roll(step, state, draw, start, stop, max_length)


@torch.no_grad()
def beam(
    step: Step,
    state: Any,
    *,
    start: int | Tensor,
    stop: int | None,
    max_length: int,
    width: int,
    length_penalty: float = 0.0,
    num_best: int = 1,
    stopping: str = "exact",
) -> Decoded:
    """The best sequences that beam search finds.

    At each step every sequence of the beam is continued by every token. Of those continuations that are among the `width` most
    probable, the ones by `stop` are complete; the `width` most probable of the others are the next beam.

    Args:
        step: The model.
        state: Before the first token; from then on `width` rows for each input.
        start: As in `greedy`.
        stop: The token that ends a sequence; None if nothing but `max_length` does.
        max_length: Most tokens of a sequence, `stop` included.
        width: Sequences in the beam. 1 without a length penalty is greedy search, `vocab ** max_length` an exhaustive one.
        length_penalty: The exponent α in `score = log_prob / ((5 + length) / 6) ** α`, where the length counts `stop` too. Without
            it short sequences are preferred, as each token makes a sequence less probable; 0.6 to 1 is usual in translation.
        num_best: How many sequences are wanted for each input, at most `width`.
        stopping: When an input is done. "exact": when nothing that the beam may still become can be among its best, because even
            at no cost for all further tokens it would not be; the result is as if the search went on to `max_length`. "width":
            when `width` sequences are complete, which comes earlier if there is a length penalty, and may miss better ones; with
            `width` 1 this is greedy search whatever the penalty.

    Returns:
        Distinct sequences, from the highest to the lowest score.

    Source:
        Wu et al. 2016, "Google's Neural Machine Translation System", equation 14, for the length penalty; the exact rule is that of
        Huang et al. 2017, "When to Finish? Optimal Beam Search for Neural Text Generation", with the bound for this penalty.
    """
    _check_beam(width, num_best, stopping)
    tokens, end = _first_tokens(start, state, max_length), -1 if stop is None else stop
    penalties = [((5 + length) / 6) ** length_penalty for length in range(max_length + 1)]
    inputs = torch.arange(len(tokens), device=tokens.device)
    prefixes = tokens.new_full((len(tokens), 1, max_length), max(end, 0))
    beams = _Beams(tokens[:, None], torch.zeros_like(tokens[:, None], dtype=torch.float32), prefixes)
    best = _Best(prefixes, num_best)
    for length in range(1, max_length + 1):
        log_probs, state = step(beams.tokens.flatten(), state)
        _check_log_probs(log_probs, beams.tokens.numel(), end)
        found = _continuations(beams, log_probs, 2 * width)  # as at most `width` of them end
        inside = torch.arange(found.tokens.shape[1], device=tokens.device) < width
        ended = inside & (found.tokens == end) if length < max_length else inside.expand_as(found.tokens)
        best.add(inputs, beams, found.only(ended, width), length, end, penalties[length])
        if length == max_length:
            break
        found = found.only(found.tokens != end, width)
        hope = found.totals[:, 0] / penalties[max_length if length_penalty > 0 else length + 1]
        enough = best.scores[inputs, -1] >= hope if stopping == "exact" else best.counts[inputs] >= width
        going = (~enough & hope.isfinite()).nonzero()[:, 0]
        if not len(going):
            break
        rows = going[:, None] * beams.tokens.shape[1] + found.parents[going]
        state = _rows_of(state, rows.flatten(), beams.tokens.numel())
        inputs, beams = inputs[going], beams.continued(found, going, length)
    return best.decoded(max(end, 0))


@dataclass(frozen=True)
class _Found:
    """Continuations, the most probable first, shape `(inputs, count)`: log-probability, of which beam, by which token."""

    totals: Tensor
    parents: Tensor
    tokens: Tensor

    def only(self, which: Tensor, count: int) -> _Found:
        """At most that many of some of them; where these are too few, others with a log-probability of -inf."""
        totals, order = self.totals.masked_fill(~which, -torch.inf).topk(min(count, which.shape[1]), dim=1)
        return _Found(totals, self.parents.gather(1, order), self.tokens.gather(1, order))


@dataclass(frozen=True)
class _Beams:
    """Sequences that go on: their last tokens and log-probabilities, shape `(inputs, beams)`, and all their tokens."""

    tokens: Tensor
    totals: Tensor
    prefixes: Tensor

    def with_tokens(self, parents: Tensor, tokens: Tensor, length: int) -> Tensor:
        """All tokens of continuations."""
        prefixes = self.prefixes.gather(1, parents[:, :, None].expand(-1, -1, self.prefixes.shape[2]))
        prefixes[:, :, length - 1] = tokens
        return prefixes

    def continued(self, found: _Found, going: Tensor, length: int) -> _Beams:
        """The next beams, of those inputs that go on."""
        prefixes = self.with_tokens(found.parents, found.tokens, length)
        return _Beams(found.tokens[going], found.totals[going], prefixes[going])


class _Best:
    """The best complete sequences of each input so far, and how many there were."""

    def __init__(self, prefixes: Tensor, num_best: int) -> None:
        self.tokens = prefixes.repeat(1, num_best, 1)
        self.lengths = torch.zeros_like(self.tokens[:, :, 0])
        self.scores = torch.full_like(self.lengths, -torch.inf, dtype=torch.float32)
        self.log_probs = self.scores.clone()
        self.counts = torch.zeros_like(self.lengths[:, 0])

    def add(self, inputs: Tensor, beams: _Beams, found: _Found, length: int, end: int, penalty: float) -> None:
        """Takes in sequences of one length for some of the inputs."""
        self.counts[inputs] += found.totals.isfinite().sum(dim=1)
        self.scores, self.log_probs = self.scores.to(found.totals), self.log_probs.to(found.totals)
        num_best = self.scores.shape[1]
        totals, parents, tokens = (x[:, :num_best] for x in (found.totals, found.parents, found.tokens))
        if not bool(totals.isfinite().any()):
            return
        scores = torch.cat([self.scores[inputs], totals / penalty], dim=1)
        self.scores[inputs], order = scores.topk(num_best, dim=1)

        def merge(old: Tensor, new: Tensor) -> None:
            both = torch.cat([old[inputs], new], dim=1)
            old[inputs] = both[torch.arange(len(inputs), device=inputs.device)[:, None], order]

        merge(self.log_probs, totals)
        merge(self.lengths, length - (tokens == end).long())
        merge(self.tokens, beams.with_tokens(parents, tokens, length))

    def decoded(self, pad: int) -> Decoded:
        """What was found."""
        missing = self.scores.isinf()
        lengths = self.lengths.masked_fill(missing, 0)
        tokens = self.tokens.masked_fill(missing[:, :, None], pad)
        return Decoded(tokens[:, :, : int(lengths.max())], lengths, self.scores, self.log_probs)


def _continuations(beams: _Beams, log_probs: Tensor, count: int) -> _Found:
    vocab = log_probs.shape[1]
    totals = (beams.totals[:, :, None] + log_probs.view(*beams.totals.shape, vocab)).flatten(1)
    totals, order = totals.topk(min(count, totals.shape[1]), dim=1)
    return _Found(totals, order // vocab, order % vocab)


@torch.no_grad()
def _roll(
    step: Step, state: Any, choose: Callable[[Tensor], Tensor], start: int | Tensor, stop: int | None, max_length: int
) -> Decoded:
    """One sequence for each input, of tokens chosen by a function of their log-probabilities."""
    tokens, end = _first_tokens(start, state, max_length), -1 if stop is None else stop
    chosen = tokens.new_full((len(tokens), max_length), max(end, 0))
    totals = torch.zeros_like(tokens, dtype=torch.float32)
    rows = torch.arange(len(tokens), device=tokens.device)
    for length in range(max_length):
        log_probs, state = step(tokens, state)
        _check_log_probs(log_probs, len(rows), end)
        tokens = choose(log_probs)
        chosen[rows, length] = tokens
        totals = totals.to(torch.promote_types(totals.dtype, log_probs.dtype))
        totals[rows] += log_probs.gather(1, tokens[:, None])[:, 0]
        going = (tokens != end).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(rows):
            state = _rows_of(state, going, len(rows))
            rows, tokens = rows[going], tokens[going]
    ends = torch.cat([chosen == end, torch.ones_like(chosen[:, :1], dtype=torch.bool)], dim=1)
    lengths = ends.int().argmax(dim=1)
    return Decoded(chosen[:, None, : int(lengths.max())], lengths[:, None], totals[:, None], totals[:, None])


def _rows_of(state: Any, rows: Tensor, count: int) -> Any:
    if isinstance(state, Tensor):
        if state.ndim == 0 or len(state) != count:
            raise MisuseError(
                f"a tensor of the state has shape {tuple(state.shape)} for {count} rows: its first axis has to be the batch "
                "(torch's recurrent layers have it second: use `transpose(0, 1)`)"
            )
        return state.index_select(0, rows)
    if isinstance(state, dict):
        return {name: _rows_of(part, rows, count) for name, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [_rows_of(part, rows, count) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _first_tokens(start: int | Tensor, state: Any, max_length: int) -> Tensor:
    if max_length < 1:
        raise MisuseError(f"max_length is {max_length}: give at least 1")
    if isinstance(start, Tensor):
        if start.ndim != 1 or start.is_floating_point() or not len(start):
            raise MisuseError(
                f"start is {start.dtype} {tuple(start.shape)}: give one token for each input, shape (batch,)"
            )
        return start.long()
    tensors = _tensors(state)
    if not tensors or tensors[0].ndim == 0 or not len(tensors[0]):
        raise MisuseError(
            "the state has no rows to tell how many inputs there are: give `start` as a tensor, one for each"
        )
    return torch.full((len(tensors[0]),), start, device=tensors[0].device)


def _check_beam(width: int, num_best: int, stopping: str) -> None:
    if not 1 <= num_best <= width:
        raise MisuseError(f"num_best is {num_best} and width {width}: they have to be 1 <= num_best <= width")
    if stopping not in ("exact", "width"):
        raise MisuseError(f"stopping is {stopping!r}: give 'exact' or 'width'")


def _check_log_probs(log_probs: Tensor, rows: int, end: int) -> None:
    if log_probs.ndim != 2 or len(log_probs) != rows or log_probs.shape[1] <= end:
        raise MisuseError(
            f"the step gave log-probabilities of shape {tuple(log_probs.shape)} for {rows} tokens: expected "
            f"({rows}, vocab), with a column for each token" + (f", stop = {end} included" if end >= 0 else "")
        )
    highest = float(log_probs.amax())
    if not highest <= ROUNDING:
        raise MisuseError(
            f"the step gave {highest:.3g} as a log-probability: "
            + (
                "its model is broken"
                if highest != highest
                else "they can't be above 0; use `log_softmax` on its logits"
            )
        )
