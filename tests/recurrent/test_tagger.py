from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.tagger import Tagger

LENGTHS = torch.tensor([5, 2, 3])


def tagger(**options) -> Tagger:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"embedding_size": 6, "hidden_size": 4, "letter_size": 3} | options
    return Tagger(20, 4, **settings).double()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Words, letters and tags of three sentences; words have one to four letters."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(20, (3, 5), generator=generator)
    spelt = torch.randint(1, 5, (3, 5), generator=generator)
    letters = torch.randint(1, 8, (3, 5, 4), generator=generator) * (torch.arange(4) < spelt[:, :, None])
    return words, letters, torch.randint(4, (3, 5), generator=generator)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("num_letters", [0, 8])
def test_a_sentence_among_others_has_the_tags_it_has_alone(cell, num_letters):
    model = tagger(cell=cell, num_letters=num_letters, num_layers=2)
    words, letters, _ = batch()
    together = model(words, LENGTHS, letters if num_letters else None)
    for row, length in enumerate(LENGTHS.tolist()):
        spelt = letters[row : row + 1, :length] if num_letters else None
        alone = model(words[row : row + 1, :length], torch.tensor([length]), spelt)
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-12, atol=1e-14)  # float64


def test_what_is_padded_changes_nothing():
    model, (words, letters, tags) = tagger(num_letters=8), batch()
    loss = model.loss(words, LENGTHS, tags, letters)
    after = torch.arange(5) >= LENGTHS[:, None]
    other = words.masked_fill(after, 7), letters.masked_fill(after[:, :, None], 5), tags.masked_fill(after, 3)
    assert torch.equal(model.loss(other[0], LENGTHS, other[2], other[1]), loss)
    wider = F.pad(letters, (0, 3))
    torch.testing.assert_close(model.loss(words, LENGTHS, tags, wider), loss, rtol=1e-12, atol=1e-14)  # float64


def test_the_loss_is_the_mean_over_real_words():
    model, (words, _, tags) = tagger(), batch()
    log_probs = model(words, LENGTHS).log_softmax(dim=2)
    costs = [-log_probs[b, t, tags[b, t]] for b in range(3) for t in range(int(LENGTHS[b]))]
    assert len(costs) == 10
    assert model.loss(words, LENGTHS, tags).item() == pytest.approx(
        torch.stack(costs).mean().item(), rel=1e-12
    )  # float64


def test_what_is_known_of_a_word_is_its_vector_and_the_ends_of_its_spelling():
    model, (words, letters, _) = tagger(num_letters=8), batch()
    assert model.letters is not None and model.spelling is not None
    rows = []
    for word, spelt in zip(words[0].tolist(), letters[0], strict=True):
        outputs, _ = model.spelling(model.letters(spelt[spelt != 0])[None])
        rows.append(torch.cat([model.words.weight[word], outputs[0, -1, :3], outputs[0, 0, 3:]]))
    outputs, _ = model.recurrent(torch.stack(rows)[None])
    found = model(words, LENGTHS, letters)[0]
    torch.testing.assert_close(found, model.output(outputs)[0], rtol=1e-12, atol=1e-14)  # float64


def test_a_tag_depends_on_the_words_on_both_sides():
    model, (words, _, _) = tagger(), batch()
    logits = model(words, LENGTHS)
    for changed, seen in ((0, 4), (4, 0)):
        other = words.clone()
        other[0, changed] = (other[0, changed] + 1) % 20
        assert not torch.equal(model(other, LENGTHS)[0, seen], logits[0, seen])


def test_every_parameter_learns():
    model, (words, letters, tags) = tagger(num_letters=8), batch()
    model.loss(words, LENGTHS, tags, letters).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.parameters())


def test_misuse_is_told():
    words, letters, _ = batch()
    with pytest.raises(MisuseError, match="made without letters"):
        tagger()(words, LENGTHS, letters)
    with pytest.raises(MisuseError, match="made with letters: give them"):
        tagger(num_letters=8)(words, LENGTHS)


@pytest.mark.slow
def test_spelling_tells_the_tags_of_words_that_were_never_seen():
    """The tag is the last letter of the next word: it takes the spelling and the way back."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Tagger(1, 6, embedding_size=4, hidden_size=24, num_letters=6, letter_size=12, cell="gru")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def sentences(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lengths = torch.randint(2, 6, (count,), generator=generator)
        spelt = torch.randint(1, 5, (count, 6), generator=generator)
        letters = torch.randint(1, 6, (count, 6, 4), generator=generator) * (torch.arange(4) < spelt[:, :, None])
        ends = letters.gather(2, spelt[:, :, None] - 1)[:, :, 0] * (torch.arange(6) < lengths[:, None])
        return torch.zeros(count, 6, dtype=torch.long), lengths, F.pad(ends[:, 1:], (0, 1)), letters

    for _ in range(200):
        words, lengths, tags, letters = sentences(32)
        loss = model.loss(words, lengths, tags, letters)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    words, lengths, tags, letters = sentences(200)
    there = torch.arange(6) < lengths[:, None]
    assert (model(words, lengths, letters).argmax(dim=2) == tags)[there].double().mean() > 0.99
