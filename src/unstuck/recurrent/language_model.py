"""A recurrent language model: the probability of each token, given all before it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unstuck._modes import evaluating
from unstuck.errors import MisuseError
from unstuck.recurrent.cell import Definition
from unstuck.recurrent.decoding import Decoded, beam, greedy, sample
from unstuck.recurrent.encoder_decoder import _batch_second
from unstuck.recurrent.layers import Recurrent, States


class LanguageModel(nn.Module):
    """An embedding, recurrent layers, and logits of the next token.

    Texts are either sequences by themselves, padded to the same length, or parts of a long text, one after the other, each begun
    with the states that the last part ended with (`layers.detach` keeps gradients within a part).

    Args:
        vocab_size: Number of tokens, special ones included.
        embedding_size: Of the tokens' vectors.
        hidden_size: Units of each layer.
        num_layers: Layers on top of each other.
        cell: Name of a cell, or a function that makes one, see `layers.Recurrent`.
        tied: The same vectors embed the tokens and are the rows of the output's weight (Press and Wolf 2017). The layers' outputs
            must be as wide as the embedding.
        dropout: Rate, on embeddings, between layers and before the output.
        padding: Token after the end of a text; None if there is none. It is not looked at, and costs nothing as a target.
        **settings: Of `layers.Recurrent` and of the cell.

    Attributes:
        embedding: Of tokens.
        recurrent: The layers.
        output: From their outputs to logits.

    Raises:
        MisuseError: Tied, and the widths differ; or a size or setting can't be.

    Example:
        >>> model = LanguageModel(50, embedding_size=16, hidden_size=16, tied=True)
        >>> logits, states = model(torch.zeros(2, 7, dtype=torch.long))
        >>> logits.shape
        torch.Size([2, 7, 50])
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_size: int = 128,
        hidden_size: int = 128,
        num_layers: int = 1,
        cell: str | Definition = "lstm",
        tied: bool = False,
        dropout: float = 0.0,
        padding: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.recurrent = Recurrent(
            cell, embedding_size, hidden_size, num_layers, batch_first=True, dropout=dropout, **settings
        )
        width = self.recurrent.proj_size or hidden_size
        self.output = nn.Linear(width, vocab_size)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)
        if tied and width != embedding_size:
            raise MisuseError(f"tied weights need outputs as wide as the embedding, not {width} and {embedding_size}")
        if tied:
            self.output.weight = self.embedding.weight

    def forward(
        self, tokens: Int[Tensor, "batch time"], states: States | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], States]:
        """Logits of the token after each token.

        Args:
            tokens: The texts, or their next parts.
            states: After the parts before; those at the beginning of a text unless given.

        Returns:
            Logits, and the states after each text's last token that is no padding.
        """
        return self._run(tokens, states, self._lengths(tokens))

    def costs(
        self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"], states: States | None = None
    ) -> tuple[Float[Tensor, "batch time"], States]:
        """What each target costs: minus its log-probability given the tokens up to its place.

        Args:
            tokens: As in `forward`.
            targets: The token after each of them, as in `text[:, :-1], text[:, 1:]`.
            states: As in `forward`.

        Returns:
            Costs in nats, 0 where the target is padding, and the states.
        """
        logits, after = self(tokens, states)
        ignored = -100 if self.padding is None else self.padding
        costs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="none")
        return costs.view_as(targets), after

    def loss(self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
        """Mean cost of the targets, padding left out, in nats a token."""
        count = targets.numel() if self.padding is None else (targets != self.padding).sum()
        return self.costs(tokens, targets)[0].sum() / count

    @torch.no_grad()
    def perplexity(self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]) -> float:
        """The exponential of the mean cost without dropout: the number of equally probable tokens that would be as hard to tell.

        For more texts than fit at once, add up `costs` instead: perplexities of parts have no mean.
        """
        with evaluating(self):
            return self.loss(tokens, targets).double().exp().item()

    def generate(
        self,
        prompt: Int[Tensor, "batch time"],
        *,
        max_length: int,
        stop: int | None = None,
        width: int = 1,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Decoded:
        """Continues texts, without dropout.

        Args:
            prompt: What they begin with, at least one token each; they may be padded.
            max_length: Most tokens to add, `stop` included.
            stop: The token that ends a text; None if nothing but `max_length` does.
            width: Of a beam search for the most probable continuation; 1 is greedy.
            generator: Draws from it instead of taking the most probable.
            temperature: Of the draws, see `decoding.sample`.
            top_k: Draws from that many most probable tokens only.

        Returns:
            What follows each prompt, with its log-probability; padding is never among it.

        Raises:
            MisuseError: A prompt without a token, or options that can't be.
        """
        lengths = self._lengths(prompt)
        lengths = torch.full_like(prompt[:, 0], prompt.shape[1]) if lengths is None else lengths
        if int(lengths.min()) < 1:
            raise MisuseError("a prompt has no token: begin it with one, such as that for the start of a text")
        with torch.no_grad(), evaluating(self):
            _, states = self._run(prompt, None, lengths - 1)
            start, state = prompt.gather(1, lengths[:, None] - 1)[:, 0], _batch_second(states)
            ends = {"start": start, "stop": stop, "max_length": max_length}
            if generator is not None:
                draws = {"generator": generator, "temperature": temperature, "top_k": top_k}
                return sample(self._step, state, **ends, **draws)
            return greedy(self._step, state, **ends) if width == 1 else beam(self._step, state, **ends, width=width)

    def _lengths(self, tokens: Tensor) -> Tensor | None:
        return None if self.padding is None else (tokens != self.padding).sum(dim=1)

    def _run(self, tokens: Tensor, states: States | None, lengths: Tensor | None) -> tuple[Tensor, States]:
        outputs, after = self.recurrent(self.dropout(self.embedding(tokens)), states, lengths=lengths)
        return self.output(self.dropout(outputs)), after

    def _step(self, tokens: Tensor, state: States) -> tuple[Tensor, States]:
        """One token of `generate`; states have the batch first there."""
        logits, states = self._run(tokens[:, None], _batch_second(state), None)
        logits = logits[:, 0]
        if self.padding is not None:
            logits[:, self.padding] = -torch.inf
        return logits.log_softmax(dim=1), _batch_second(states)
