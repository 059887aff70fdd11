from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.language_model import LanguageModel
from unstuck.recurrent.layers import detach

VOCAB, PADDING = 6, 0


def model(**options) -> LanguageModel:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"embedding_size": 5, "hidden_size": 5} | options
    return LanguageModel(VOCAB, **settings).double()


def texts() -> Tensor:
    """Of 7, 3 and 5 tokens, then padding."""
    tokens = torch.randint(1, VOCAB, (3, 7), generator=torch.Generator().manual_seed(1))
    return tokens * (torch.arange(7) < torch.tensor([7, 3, 5])[:, None])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_probabilities_of_all_texts_of_a_length_add_up_to_one(cell):
    every = torch.tensor([(2, *text) for text in itertools.product(range(VOCAB), repeat=3)])
    costs, _ = model(cell=cell).costs(every[:, :-1], every[:, 1:])
    assert (-costs.sum(dim=1)).exp().sum().item() == pytest.approx(1, rel=1e-12)  # float64


def test_the_perplexity_of_a_model_that_knows_nothing_is_the_size_of_its_vocabulary():
    uniform = model()
    for parameter in uniform.output.parameters():
        torch.nn.init.zeros_(parameter)
    assert uniform.perplexity(texts()[:, :-1], texts()[:, 1:]) == pytest.approx(VOCAB, rel=1e-12)  # float64


def test_the_perplexity_of_a_model_that_knows_all_is_one():
    certain = model()
    torch.nn.init.zeros_(certain.output.weight)
    with torch.no_grad():
        certain.output.bias[4] = 100.0
    fours = torch.full((2, 5), 4)
    assert certain.perplexity(fours, fours) == pytest.approx(1, rel=1e-12)  # the others have e^-100


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_padded_text_costs_what_it_costs_alone(cell):
    padded, tokens = model(cell=cell, padding=PADDING, num_layers=2), texts()
    costs, states = padded.costs(tokens[:, :-1], tokens[:, 1:])
    for row, length in enumerate([7, 3, 5]):
        alone, _ = padded.costs(tokens[row : row + 1, : length - 1], tokens[row : row + 1, 1:length])
        torch.testing.assert_close(costs[row, : length - 1], alone[0], rtol=1e-12, atol=1e-14)  # float64
        assert not costs[row, length - 1 :].any()
        _, ends = padded(tokens[row : row + 1, : min(length, 6)])
        for together, end in zip(many(states), many(ends), strict=True):
            torch.testing.assert_close(together[:, row], end[:, 0], rtol=1e-12, atol=1e-14)  # float64


def many(states):
    return (states,) if isinstance(states, Tensor) else states


def test_the_loss_is_the_mean_over_real_tokens_and_perplexity_its_exponential():
    padded, tokens = model(padding=PADDING, dropout=0.5).eval(), texts()
    log_probs = padded(tokens[:, :-1])[0].log_softmax(dim=2)
    targets = tokens[:, 1:]
    costs = [-log_probs[b, t, targets[b, t]] for b in range(3) for t in range(6) if targets[b, t] != PADDING]
    assert len(costs) == 12
    mean = torch.stack(costs).mean().item()
    assert padded.loss(tokens[:, :-1], targets).item() == pytest.approx(mean, rel=1e-12)  # float64
    padded.train()
    assert padded.perplexity(tokens[:, :-1], targets) == pytest.approx(math.exp(mean), rel=1e-12)  # without dropout
    assert padded.training and padded.dropout.training


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_text_in_parts_costs_what_it_costs_as_one(cell):
    own, text = model(cell=cell), texts()[:1]
    whole, _ = own.costs(text[:, :-1], text[:, 1:])
    first, states = own.costs(text[:, :3], text[:, 1:4])
    second, _ = own.costs(text[:, 3:-1], text[:, 4:], detach(states))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-12, atol=1e-14)  # float64
    own.zero_grad()
    own.costs(text[:, 3:-1], text[:, 4:], detach(states))[0].sum().backward()
    gradient = own.embedding.weight.grad
    assert gradient is not None
    only_before = set(text[0, :3].tolist()) - set(text[0, 3:-1].tolist())
    assert only_before and not any(gradient[token].any() for token in only_before)


def test_a_logit_knows_only_the_tokens_before_it():
    own, tokens = model(), texts()
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    before, after = own(tokens)[0], own(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4], after[:, 4])


def test_tied_weights_are_one_parameter_that_learns_from_both_ends():
    tied, tokens = model(tied=True), texts()
    assert sum(p.numel() for p in model().parameters()) - sum(p.numel() for p in tied.parameters()) == VOCAB * 5
    assert tied.output.weight is tied.embedding.weight
    weight, other = tied.embedding.weight, model()
    other.load_state_dict(tied.state_dict())
    tied.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    other.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    ends = other.embedding.weight.grad, other.output.weight.grad
    assert weight.grad is not None and ends[0] is not None and ends[1] is not None
    torch.testing.assert_close(weight.grad, ends[0] + ends[1], rtol=1e-12, atol=1e-14)  # float64
    assert tied.output.weight is tied.embedding.weight


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("how", ["greedy", "beam", "sample"])
def test_what_it_generates_has_the_probability_that_it_gives_it(cell, how):
    own = model(cell=cell, num_layers=2, padding=PADDING, dropout=0.5)
    prompt = torch.tensor([[3, 1, 4], [2, 0, 0], [5, 1, 0]])
    drawn = {"generator": torch.Generator().manual_seed(0)}
    options: dict[str, Any] = drawn if how == "sample" else {"width": 3 if how == "beam" else 1}
    decoded = own.generate(prompt, max_length=4, **options)
    own.eval()
    for row, added in enumerate(decoded.sequences()):
        given = [token for token in prompt[row].tolist() if token]
        assert len(added) == 4 and PADDING not in added
        logits = own(torch.tensor([given + added[:-1]]))[0][0, len(given) - 1 :]
        logits[:, PADDING] = -torch.inf
        log_probs = logits.log_softmax(dim=1)[torch.arange(4), torch.tensor(added)]
        assert float(decoded.log_probs[row, 0]) == pytest.approx(log_probs.sum().item(), rel=1e-10)  # float64
        assert how != "greedy" or added == logits.argmax(dim=1).tolist()


def test_an_exhaustive_beam_finds_the_most_probable_continuation():
    own = model()
    with torch.no_grad():
        own.output.weight.mul_(10)
    every = torch.tensor([(3, *text) for text in itertools.product(range(VOCAB), repeat=3)])
    costs, _ = own.costs(every[:, :-1], every[:, 1:])
    best = every[int(costs.sum(dim=1).argmin()), 1:].tolist()
    assert own.generate(torch.tensor([[3]]), max_length=3, width=VOCAB**3).sequences() == [best]


def test_misuse_is_told():
    with pytest.raises(MisuseError, match="not 5 and 4"):
        model(tied=True, embedding_size=4)
    with pytest.raises(MisuseError, match="a prompt has no token"):
        model(padding=PADDING).generate(torch.tensor([[3, 4], [0, 0]]), max_length=2)


@pytest.mark.slow
def test_it_comes_to_the_entropy_of_a_source_of_second_order():
    """Each token is one of two that the last two tokens leave, so that no model does better than 2."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    own = LanguageModel(VOCAB, embedding_size=16, hidden_size=32, cell="gru")
    optimizer = torch.optim.Adam(own.parameters(), lr=1e-2)

    def drawn(count: int) -> Tensor:
        tokens = [torch.randint(VOCAB, (count,), generator=generator) for _ in range(2)]
        for _ in range(18):
            tokens.append((tokens[-2] + 2 * tokens[-1] + torch.randint(2, (count,), generator=generator)) % VOCAB)
        return torch.stack(tokens, dim=1)

    for _ in range(300):
        tokens = drawn(32)
        loss = own.loss(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = drawn(500)
    costs, _ = own.costs(tokens[:, :-1], tokens[:, 1:])
    assert 1.98 < costs[:, 1:].mean().exp().item() < 2.1  # below 2 by chance alone, of 9000 tokens
