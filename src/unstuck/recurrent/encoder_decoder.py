"""From sequence to sequence: a bidirectional encoder, and a decoder that attends to it.

    h̃_t = tanh(C [context_t; h_t]),   h_t = cell([embedding of y_{t-1}; h̃_{t-1}], h_{t-1}),   logits_t = V h̃_t

The context is read with h_t as query. Feeding h̃ back tells the decoder what it has attended to (Luong et al. 2015, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unstuck._modes import evaluating
from unstuck.errors import MisuseError
from unstuck.recurrent.attention import Additive, Dot, General, Memory, positions
from unstuck.recurrent.decoding import Decoded, beam, greedy

Layer = Callable[..., nn.Module]


class Encoder(nn.Module):
    """Bidirectional recurrent levels over sequences of different lengths.

    The way back begins at each sequence's last token: sequences are reversed up to their lengths, so that padding comes last in
    both directions and changes nothing. This needs no packed sequences, which on a CPU take several times as long.

    Args:
        input_size: Of the input at a position.
        hidden_size: Of the states in each direction.
        num_levels: How many, each on top of both directions of the one below.
        dropout: Probability, between levels.
        layer: A recurrent layer that is made and called as `torch.nn.GRU`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, num_levels: int = 1, dropout: float = 0.0, layer: Layer = nn.GRU
    ) -> None:
        super().__init__()
        sizes = [input_size] + [2 * hidden_size] * (num_levels - 1)
        self.forwards = nn.ModuleList([layer(size, hidden_size, batch_first=True) for size in sizes])
        self.backwards = nn.ModuleList([layer(size, hidden_size, batch_first=True) for size in sizes])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time states"], Float[Tensor, "batch states"]]:
        """States of both directions at each position, zero at padded ones, and the last of each direction."""
        time = inputs.shape[1]
        steps, ends = torch.arange(time, device=inputs.device), lengths[:, None]
        mask = positions(lengths, time)
        reverse = torch.where(mask, ends - 1 - steps, steps)[:, :, None]
        for level, (onward, backward) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            inputs = self.dropout(inputs) if level else inputs
            there, _ = onward(inputs)
            back, _ = backward(inputs.gather(1, reverse.expand_as(inputs)))
            inputs = torch.cat([there, back.gather(1, reverse.expand_as(back))], dim=2)
        size = inputs.shape[2] // 2
        last = inputs[torch.arange(len(inputs), device=inputs.device), lengths - 1, :size]
        return inputs.masked_fill(~mask[:, :, None], 0), torch.cat([last, inputs[:, 0, size:]], dim=1)


class EncoderDecoder(nn.Module):
    """An encoder, and a decoder with attention and input feeding.

    Sources and targets are padded batches of tokens. A target holds its `stop` token and not the `start` token.

    Args:
        source_vocab: Number of source tokens.
        target_vocab: Number of target tokens, special ones included.
        embedding_size: Of both embeddings.
        hidden_size: Of the decoder's state; each direction of the encoder has half of it.
        num_layers: Of the encoder and of the decoder.
        attention: "additive", "general" or "dot".
        dropout: Probability, on embeddings, between levels and before the output.
        layer: A recurrent layer that is made and called as `torch.nn.GRU`, for both sides. It is torch's unless given: a decoder is called
            step by step, where `layers.GRU` takes longer (a training step 1.2 times as long; `layers.LSTM` 0.95 times `torch.nn.LSTM`'s).
        padding: Token after the end, on both sides.
        start: Target token that comes before the first.
        stop: Target token that comes after the last.

    Raises:
        MisuseError: An unknown attention, or a `hidden_size` that is odd.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        *,
        embedding_size: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        attention: str = "additive",
        dropout: float = 0.0,
        layer: Layer = nn.GRU,
        padding: int = 0,
        start: int = 1,
        stop: int = 2,
    ) -> None:
        super().__init__()
        if hidden_size % 2:
            raise MisuseError(f"hidden_size is {hidden_size}: give an even number, half of it for each direction")
        self.padding, self.start, self.stop = padding, start, stop
        self.source_embedding = nn.Embedding(source_vocab, embedding_size, padding_idx=padding)
        self.target_embedding = nn.Embedding(target_vocab, embedding_size, padding_idx=padding)
        self.encoder = Encoder(embedding_size, hidden_size // 2, num_levels=num_layers, dropout=dropout, layer=layer)
        self.attention = _attention(attention, hidden_size)
        self.decoder = layer(embedding_size + hidden_size, hidden_size, num_layers=num_layers, batch_first=True)
        _, state = self.decoder(torch.zeros(1, 1, embedding_size + hidden_size))
        self._num_states = len(state) if isinstance(state, tuple) else 0  # a tuple, as of an LSTM, or one tensor
        self._shape = (max(self._num_states, 1), num_layers, hidden_size)
        self.bridge = nn.Linear(hidden_size, self._shape[0] * num_layers * hidden_size)
        self.combine = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, target_vocab)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        target: Int[Tensor, "batch target"],
    ) -> Float[Tensor, "batch target vocab"]:
        """Logits of each token of the target, given those before it."""
        return self._teach(source, source_lengths, target)[0]

    def loss(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        target: Int[Tensor, "batch target"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the target's tokens, padding left out, in nats."""
        logits = self(source, source_lengths, target).flatten(0, 1)
        return F.cross_entropy(logits, target.flatten(), ignore_index=self.padding, label_smoothing=label_smoothing)

    @torch.no_grad()
    def weights(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        target: Int[Tensor, "batch target"],
    ) -> Float[Tensor, "batch target source"]:
        """Where attention lies while each token of a target is given, such as one that was decoded; each row adds up to 1."""
        with evaluating(self):
            return self._teach(source, source_lengths, target)[1]

    def decode(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        *,
        max_length: int,
        width: int = 1,
        length_penalty: float = 0.0,
        num_best: int = 1,
        stopping: str = "exact",
    ) -> Decoded:
        """The best targets, found without dropout.

        Args:
            source: Tokens.
            source_lengths: Tokens before the padding.
            max_length: Most tokens of a target, `stop` included.
            width: Of the beam; 1 is greedy.
            length_penalty: As in `decoding.beam`, like the rest; without effect if greedy.
            num_best: Targets for each source.
            stopping: When a beam is done.

        Returns:
            Targets with their log-probabilities; the padding and the start token are never among their tokens.
        """
        with torch.no_grad(), evaluating(self):
            state = self._encode(source, source_lengths)
            if width == num_best == 1:
                return greedy(self._step, state, start=self.start, stop=self.stop, max_length=max_length)
            return beam(
                self._step,
                state,
                start=self.start,
                stop=self.stop,
                max_length=max_length,
                width=width,
                length_penalty=length_penalty,
                num_best=num_best,
                stopping=stopping,
            )

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[Any, Tensor, Memory]:
        """What the decoder begins with: its recurrent state, batch first; nothing attended to yet; the memory."""
        states, last = self.encoder(self.dropout(self.source_embedding(source)), lengths)
        memory = self.attention.project(states, positions(lengths, source.shape[1]))
        begin = torch.tanh(self.bridge(last)).view(len(source), *self._shape)
        recurrent = tuple(begin.unbind(dim=1)) if self._num_states else begin[:, 0]
        return recurrent, torch.zeros_like(last), memory

    def _advance(
        self, embedded: Tensor, state: tuple[Any, Tensor, Memory]
    ) -> tuple[tuple[Any, Tensor, Memory], Tensor]:
        """One step of the decoder, for tokens that are embedded: the state, and where attention lay."""
        recurrent, attended, memory = state
        hidden, after = self.decoder(torch.cat([embedded, attended], dim=1)[:, None], _batch_second(recurrent))
        context, weights = self.attention(hidden, memory)
        attended = torch.tanh(self.combine(torch.cat([context, hidden], dim=2)))[:, 0]
        return (_batch_second(after), attended, memory), weights[:, 0]

    def _teach(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        state = self._encode(source, lengths)
        before = torch.cat([torch.full_like(target[:, :1], self.start), target[:, :-1]], dim=1)
        attended, weights = [], []
        for embedded in self.dropout(self.target_embedding(before)).unbind(dim=1):
            state, weight = self._advance(embedded, state)
            attended.append(state[1])
            weights.append(weight)
        return self.output(self.dropout(torch.stack(attended, dim=1))), torch.stack(weights, dim=1)

    def _step(self, tokens: Tensor, state: tuple[Any, Tensor, Memory]) -> tuple[Tensor, tuple[Any, Tensor, Memory]]:
        state, _ = self._advance(self.target_embedding(tokens), state)
        logits = self.output(state[1])
        logits[:, [self.padding, self.start]] = -torch.inf
        return logits.log_softmax(dim=1), state


def _attention(name: str, hidden_size: int) -> Additive | General | Dot:
    kinds = {
        "additive": lambda: Additive(hidden_size, hidden_size, hidden_size),
        "general": lambda: General(hidden_size, hidden_size),
        "dot": Dot,
    }
    if name not in kinds:
        raise MisuseError(f"attention is {name!r}: give one of {', '.join(map(repr, kinds))}")
    return kinds[name]()


def _batch_second(state: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """A recurrent layer's state with its first two axes exchanged, which is its own inverse."""
    if isinstance(state, tuple):
        return tuple(part.transpose(0, 1).contiguous() for part in state)
    return state.transpose(0, 1).contiguous()
