from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.attention import Additive, Dot, General, positions

KINDS = [Additive(3, 4, 5), General(3, 4), Dot()]
NAMES = ["additive", "general", "dot"]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(attention: torch.nn.Module) -> torch.nn.Module:
    for seed, parameter in enumerate(attention.parameters()):
        parameter.data = numbers(*parameter.shape, seed=seed)
    return attention.double()


def inputs(attention: torch.nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    size = 4 if isinstance(attention, Dot) else 3
    return numbers(2, 6, size, seed=10), numbers(2, 5, 4, seed=11), positions(torch.tensor([5, 3]), 5)


def score(attention: torch.nn.Module, query: Tensor, state: Tensor) -> Tensor:
    """As in the papers, for one query and one state."""
    if isinstance(attention, Additive):
        hidden = attention.query.weight @ query + attention.key.weight @ state + attention.key.bias
        return attention.score.weight[0] @ torch.tanh(hidden)
    return query @ attention.key.weight @ state if isinstance(attention, General) else query @ state


@pytest.mark.parametrize("attention", KINDS, ids=NAMES)
def test_it_is_as_its_formula_has_it(attention):
    queries, states, mask = inputs(built(attention))
    contexts, weights = attention(queries, attention.project(states, mask))
    for b in range(2):
        real = int(mask[b].sum())
        for t in range(6):
            scores = torch.stack([score(attention, queries[b, t], states[b, s]) for s in range(real)])
            true = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(weights[b, t, :real], true, rtol=1e-12, atol=0)  # float64
            torch.testing.assert_close(contexts[b, t], true @ states[b, :real], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attention", KINDS, ids=NAMES)
def test_padding_has_no_weight_and_no_influence_even_if_it_is_nan(attention):
    queries, states, mask = inputs(built(attention))
    padded = states.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    contexts, weights = attention(queries, attention.project(padded, mask))
    assert bool((weights[~mask[:, None].expand_as(weights)] == 0).all())
    alone, _ = attention(queries[1:], attention.project(states[1:, :3], mask[1:, :3]))
    torch.testing.assert_close(contexts[1:], alone, rtol=1e-12, atol=1e-14)  # float64
    contexts.sum().backward()
    assert padded.grad is not None and bool((padded.grad[~mask] == 0).all())
    assert bool(padded.grad.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in attention.parameters())


@pytest.mark.parametrize("attention", KINDS, ids=NAMES)
def test_one_query_at_a_time_gives_what_all_at_once_do(attention):
    queries, states, mask = inputs(built(attention))
    memory = attention.project(states, mask)
    together, _ = attention(queries, memory)
    single = torch.cat([attention(query, memory)[0] for query in queries.split(1, dim=1)], dim=1)
    torch.testing.assert_close(single, together, rtol=1e-12, atol=1e-14)  # float64


@pytest.mark.parametrize("attention", KINDS, ids=NAMES)
def test_gradients_are_those_of_the_function(attention):
    queries, states, mask = inputs(built(attention))
    assert torch.autograd.gradcheck(
        lambda q, s: attention(q, attention.project(s, mask)), (queries.requires_grad_(), states.requires_grad_())
    )


def test_a_row_with_nothing_to_attend_to_is_told():
    with pytest.raises(MisuseError, match="a row of the mask is False throughout"):
        Dot().project(numbers(2, 3, 4), positions(torch.tensor([2, 0]), 3))
