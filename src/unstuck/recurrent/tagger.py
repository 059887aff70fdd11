"""A tag for each word of a sentence.

    word = [embedding of the word; last states over its letters],   tag logits_t = V [→h_t; ←h_t]

Tags are told one by one; there is no model of which tag follows which beyond what the states know.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unstuck.errors import MisuseError
from unstuck.recurrent.attention import positions
from unstuck.recurrent.cell import Definition
from unstuck.recurrent.layers import Recurrent


class Tagger(nn.Module):
    """Bidirectional recurrent layers over the words of a sentence, and optionally over the letters of each word.

    Letters tell of words that were rare or unknown in training: their endings, capitals, digits.

    Args:
        num_words: Numbers that words may have, that for unknown ones among them.
        num_tags: Tags.
        embedding_size: Of words.
        hidden_size: Units in each direction over words.
        num_letters: Numbers that letters may have, 0 for padding among them; 0 for no letters.
        letter_size: Of the embedding of letters, and units in each direction over them.
        cell: Name of a cell, or a function that makes one, see `layers.Recurrent`.
        num_layers: Over words.
        dropout: Rate, on what is known of a word, between layers and before the output.
        **settings: Of `layers.Recurrent` over words, and of the cell.

    Raises:
        MisuseError: A size or setting can't be.

    Source:
        Ling et al. 2015, "Finding function in form", with the last states of both directions side by side as in Lample et al. 2016;
        they have a conditional random field on top.

    Example:
        >>> tagger = Tagger(1000, 12, num_letters=27)
        >>> words, letters = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, 8, dtype=torch.long)
        >>> tagger(words, torch.tensor([5, 3]), letters).shape
        torch.Size([2, 5, 12])
    """

    def __init__(
        self,
        num_words: int,
        num_tags: int,
        *,
        embedding_size: int = 100,
        hidden_size: int = 100,
        num_letters: int = 0,
        letter_size: int = 25,
        cell: str | Definition = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, embedding_size)
        self.letters = nn.Embedding(num_letters, letter_size) if num_letters else None
        self.spelling = (
            Recurrent(cell, letter_size, letter_size, batch_first=True, bidirectional=True) if num_letters else None
        )
        self.recurrent = Recurrent(
            cell, embedding_size + 2 * letter_size * bool(num_letters), hidden_size, num_layers,
            batch_first=True, bidirectional=True, dropout=dropout, **settings,
        )  # fmt: skip
        self.output = nn.Linear(2 * (self.recurrent.proj_size or hidden_size), num_tags)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        words: Int[Tensor, "batch time"],
        lengths: Int[Tensor, " batch"],
        letters: Int[Tensor, "batch time letter"] | None = None,
    ) -> Float[Tensor, "batch time class"]:
        """Logits of the tags of each word.

        Args:
            words: Numbers of words.
            lengths: Words of each sentence; what comes after is not looked at.
            letters: Numbers of their letters, and 0 after a word's end.

        Returns:
            Logits; after a sentence's end they are those of no word and mean nothing.

        Raises:
            MisuseError: Letters are given to a tagger that was made without, or missing for one that was made with them.
        """
        if (letters is None) != (self.letters is None):
            made = "without letters: make it with num_letters" if letters is not None else "with letters: give them too"
            raise MisuseError(f"this tagger was made {made}")
        known = self.words(words)
        if letters is not None:
            known = torch.cat([known, self._spelt(letters, positions(lengths, words.shape[1]))], dim=2)
        outputs, _ = self.recurrent(self.dropout(known), lengths=lengths)
        return self.output(self.dropout(outputs))

    def loss(
        self,
        words: Int[Tensor, "batch time"],
        lengths: Int[Tensor, " batch"],
        tags: Int[Tensor, "batch time"],
        letters: Int[Tensor, "batch time letter"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy over all words, padding left out, in nats."""
        there = positions(lengths, words.shape[1])
        return F.cross_entropy(self(words, lengths, letters)[there], tags[there])

    def _spelt(self, letters: Tensor, there: Tensor) -> Tensor:
        """What the letters of each word say, 0 where there is no word."""
        assert self.letters is not None and self.spelling is not None
        rows = letters[there]
        _, states = self.spelling(self.letters(rows), lengths=(rows != 0).sum(dim=1))
        last = states if isinstance(states, Tensor) else states[0]
        said = torch.cat(last.unbind(), dim=1)
        return said.new_zeros(*there.shape, said.shape[1]).masked_scatter(there[:, :, None], said)
