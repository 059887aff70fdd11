from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unstuck.errors import MisuseError
from unstuck.recurrent.decoding import beam, greedy, sample

STOP = 0


class Model:
    """Log-probabilities that depend on the input and on all tokens so far, through a state that only this input has."""

    def __init__(self, vocab: int, seed: int, *, spread: float = 1.0, stop_bias: float = 0.0):
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(vocab, 4, 4, generator=generator, dtype=torch.float64)
        self.head = spread * torch.randn(4, vocab, generator=generator, dtype=torch.float64)
        self.bias = torch.zeros(vocab, dtype=torch.float64)
        self.bias[STOP] = stop_bias
        self.rows: list[int] = []

    def state(self, batch: int) -> dict:
        generator = torch.Generator().manual_seed(5)
        return {"hidden": [torch.randn(batch, 4, generator=generator, dtype=torch.float64)], "nothing": None}

    def step(self, tokens: Tensor, state: dict) -> tuple[Tensor, dict]:
        self.rows.append(len(tokens))
        hidden = torch.tanh((self.weights[tokens] @ state["hidden"][0][:, :, None])[:, :, 0])
        # one row after the other, so that rounding is the same in any batch
        logits = torch.stack([row @ self.head for row in hidden]) + self.bias
        return logits.log_softmax(dim=1), {"hidden": [hidden], "nothing": None}


def one(state: dict, index: int) -> dict:
    return {"hidden": [state["hidden"][0][index : index + 1]], "nothing": None}


def penalty(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


def all_sequences(vocab: int, stop: int | None, max_length: int):
    for length in range(1, max_length + 1):
        for tokens in itertools.product(range(vocab), repeat=length):
            ended = stop is not None and tokens[-1] == stop
            if (stop is None or stop not in tokens[:-1]) and (ended or length == max_length):
                yield tokens


def log_prob(model: Model, state: dict, tokens: tuple[int, ...], start: int) -> float:
    total, last = 0.0, start
    for token in tokens:
        log_probs, state = model.step(torch.tensor([last]), state)
        total, last = total + float(log_probs[0, token]), token
    return total


def brute_force(model: Model, state: dict, *, start: int, stop: int | None, max_length: int, alpha: float):
    """All sequences with their scores, from the best."""
    vocab = len(model.bias)
    found = [
        (log_prob(model, state, tokens, start) / penalty(len(tokens), alpha), list(tokens))
        for tokens in all_sequences(vocab, stop, max_length)
    ]
    return [(score, [t for t in tokens if t != stop]) for score, tokens in sorted(found, reverse=True)]


def slow_beam(model: Model, state: dict, *, start: int, stop: int, max_length: int, width: int, alpha: float):
    """Beam search for one input as one would write it down, to the end."""
    beams, complete = [(0.0, [], state)], []
    for length in range(1, max_length + 1):
        found = []
        for total, tokens, before in beams:
            log_probs, after = model.step(torch.tensor([tokens[-1] if tokens else start]), before)
            found += [(total + float(p), [*tokens, v], after) for v, p in enumerate(log_probs[0])]
        found.sort(key=lambda item: -item[0])
        for total, tokens, _ in found[:width]:
            if tokens[-1] == stop or length == max_length:
                complete.append((total / penalty(length, alpha), [t for t in tokens if t != stop]))
        beams = [item for item in found if item[1][-1] != stop][:width]
    return sorted(complete, key=lambda item: -item[0])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [STOP, None])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0, -1.0])
def test_a_beam_that_holds_all_sequences_is_brute_force(stop, alpha):
    vocab, max_length, batch = 3, 4, 3
    model = Model(vocab, 0)
    decoded = beam(
        model.step,
        model.state(batch),
        start=1,
        stop=stop,
        max_length=max_length,
        width=vocab**max_length,
        length_penalty=alpha,
        num_best=8,
    )
    for i in range(batch):
        true = brute_force(model, one(model.state(batch), i), start=1, stop=stop, max_length=max_length, alpha=alpha)
        assert decoded.scores[i].tolist() == pytest.approx([score for score, _ in true[:8]], rel=1e-12)  # float64
        assert [decoded.sequences(rank)[i] for rank in range(8)] == [tokens for _, tokens in true[:8]]


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5, -0.5])
def test_stopping_early_misses_nothing_that_going_on_would_find(width, alpha):
    batch, saved = 6, 0
    for seed in range(4):
        model = Model(5, seed, spread=2, stop_bias=1.0)
        decoded = beam(
            model.step,
            model.state(batch),
            start=1,
            stop=STOP,
            max_length=8,
            width=width,
            length_penalty=alpha,
            num_best=2,
        )
        saved += batch * (1 + 7 * width) - sum(model.rows)
        for i in range(batch):
            true = slow_beam(
                model, one(model.state(batch), i), start=1, stop=STOP, max_length=8, width=width, alpha=alpha
            )[:2]
            assert decoded.scores[i].tolist() == pytest.approx([score for score, _ in true], rel=1e-12)  # float64
            assert [decoded.sequences(rank)[i] for rank in range(2)] == [tokens for _, tokens in true]
    assert saved > 0


def test_stopping_when_as_many_as_the_width_are_complete_is_cheaper_and_may_miss_a_better_one():
    costs, misses = {"exact": 0, "width": 0}, 0
    for seed in range(6):
        scores = {}
        for stopping in ("exact", "width"):
            model = Model(5, seed, spread=2, stop_bias=1.0)
            options = {"start": 1, "stop": STOP, "max_length": 10, "width": 3, "length_penalty": 2.0}
            scores[stopping] = beam(model.step, model.state(4), stopping=stopping, **options).scores
            costs[stopping] += sum(model.rows)
        assert bool((scores["exact"] >= scores["width"]).all())
        misses += int((scores["exact"] > scores["width"]).sum())
    assert costs["width"] < costs["exact"] and misses > 0


@pytest.mark.slow
@pytest.mark.parametrize("stop", [STOP, None])
@pytest.mark.parametrize("stopping, alpha", [("exact", 0.0), ("width", 0.0), ("width", 1.0)])
def test_of_width_one_it_is_greedy(stop, stopping, alpha):
    for seed in range(5):
        model = Model(6, seed, spread=2)
        options = {"start": 2, "stop": stop, "max_length": 7}
        narrow = beam(model.step, model.state(9), width=1, stopping=stopping, length_penalty=alpha, **options)
        simple = greedy(model.step, model.state(9), **options)
        assert narrow.sequences() == simple.sequences()
        assert narrow.log_probs.tolist() == simple.log_probs.tolist()


def test_greedy_by_hand():
    model = Model(4, 3, stop_bias=0.5)
    decoded = greedy(model.step, model.state(5), start=1, stop=STOP, max_length=6)
    for i, tokens in enumerate(decoded.sequences()):
        state, last, total, by_hand = one(model.state(5), i), 1, 0.0, []
        while len(by_hand) < 6 and last != STOP:
            log_probs, state = model.step(torch.tensor([last]), state)
            last = int(log_probs.argmax())
            total += float(log_probs[0, last])
            by_hand.append(last)
        assert tokens == [t for t in by_hand if t != STOP]
        assert float(decoded.scores[i, 0]) == pytest.approx(total, rel=1e-12)  # float64


@pytest.mark.slow
def test_all_at_once_are_as_one_by_one():
    model = Model(5, 1, spread=2)
    options = {"stop": STOP, "max_length": 6}
    more = {"width": 4, "num_best": 3, "length_penalty": 0.8}
    start = torch.tensor([1, 2, 3, 4, 1, 2])
    together = beam(model.step, model.state(6), start=start, **options, **more)
    roll = greedy(model.step, model.state(6), start=start, **options)
    for i in range(6):
        alone = beam(model.step, one(model.state(6), i), start=int(start[i]), **options, **more)
        assert alone.scores[0].tolist() == together.scores[i].tolist()
        assert [alone.sequences(r)[0] for r in range(3)] == [together.sequences(r)[i] for r in range(3)]
        single = greedy(model.step, one(model.state(6), i), start=int(start[i]), **options)
        assert single.sequences()[0] == roll.sequences()[i]


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_inputs_that_are_done_cost_nothing_more(search):
    sizes = []

    def step(tokens, left):  # the first input ends at its first token, the second at its second, ...
        sizes.append(len(tokens))
        log_probs = torch.tensor([[0.9, 0.06, 0.04], [0.04, 0.9, 0.06]]).log()
        return log_probs[(left > 1).long()], left - 1

    options = {"start": 1, "stop": STOP, "max_length": 9}
    if search == "greedy":
        decoded = greedy(step, torch.arange(1, 5), **options)
        assert sizes == [4, 3, 2, 1]
    else:
        decoded = beam(step, torch.arange(1, 5), width=2, **options)
        assert sizes == [4, 6, 4, 2]
    assert decoded.lengths[:, 0].tolist() == [0, 1, 2, 3]
    assert decoded.tokens[:, 0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_sequences_are_sorted_and_distinct_and_their_log_probabilities_true():
    model = Model(4, 2)
    decoded = beam(
        model.step, model.state(4), start=1, stop=STOP, max_length=5, width=10, num_best=10, length_penalty=1.0
    )
    assert bool((decoded.scores.diff(dim=1) <= 0).all())
    for i in range(4):
        sequences = [decoded.sequences(rank)[i] for rank in range(10)]
        assert len({tuple(s) for s in sequences}) == 10
        for rank, tokens in enumerate(sequences):
            whole = tuple(tokens) if len(tokens) == 5 else (*tokens, STOP)
            total = log_prob(model, one(model.state(4), i), whole, 1)
            assert float(decoded.log_probs[i, rank]) == pytest.approx(total, rel=1e-12)  # float64
            assert float(decoded.scores[i, rank]) == pytest.approx(total / penalty(len(whole), 1), rel=1e-12)


def test_where_there_are_fewer_sequences_than_asked_for_the_rest_is_empty():
    odds = torch.tensor([0.5, 0.5, 0.0]).log()
    decoded = beam(
        lambda t, s: (odds.expand(len(t), 3), s), torch.zeros(2), start=1, stop=STOP, max_length=2, width=9, num_best=5
    )
    assert decoded.scores[0].exp().tolist() == pytest.approx([0.5, 0.25, 0.25, 0, 0])
    assert decoded.lengths.tolist() == [[0, 1, 2, 0, 0]] * 2 or decoded.lengths.tolist() == [[0, 2, 1, 0, 0]] * 2
    assert decoded.tokens[:, 3:].tolist() == [[[0, 0], [0, 0]]] * 2


def test_where_only_stop_is_left_the_search_ends():
    odds = torch.tensor([1.0, 0.0, 0.0]).log()
    for stopping in ("exact", "width"):
        calls = []

        def step(tokens, state, calls=calls):
            calls.append(len(tokens))
            return odds.expand(len(tokens), 3), state

        options = {"start": torch.tensor([1]), "stop": STOP, "max_length": 50, "width": 3, "length_penalty": 1.0}
        decoded = beam(step, None, num_best=3, stopping=stopping, **options)
        assert decoded.sequences() == [[]] and float(decoded.scores[0, 0]) == 0 and len(calls) == 1


class Pair(NamedTuple):
    a: Tensor
    b: tuple


@pytest.mark.parametrize("width", [None, 3])
def test_a_state_may_be_any_nest(width):
    model, sums = Model(5, 4), []

    def step(tokens, state):
        count, hidden = state.b[0]["count"], state.b[1]
        sums.append((state.a == hidden["hidden"][0][:, 0]).all())
        log_probs, hidden = model.step(tokens, hidden)
        return log_probs, Pair(hidden["hidden"][0][:, 0], ({"count": count + 1}, hidden, "text", None))

    state = Pair(model.state(3)["hidden"][0][:, 0], ({"count": 0}, model.state(3), "text", None))
    options = {"start": 1, "stop": STOP, "max_length": 5}
    plain = model.state(3)
    if width:
        assert (
            beam(step, state, width=3, **options).sequences() == beam(model.step, plain, width=3, **options).sequences()
        )
    else:
        assert greedy(step, state, **options).sequences() == greedy(model.step, plain, **options).sequences()
    assert len(sums) > 1 and all(sums)


def test_no_graph_is_kept():
    head = torch.zeros(3, requires_grad=True)

    def step(tokens, state):
        return head.expand(len(tokens), 3).log_softmax(1), state

    options = {"start": torch.tensor([1]), "stop": STOP, "max_length": 3}
    assert not beam(step, None, width=2, **options).scores.requires_grad
    assert not greedy(step, None, **options).scores.requires_grad
    assert torch.is_grad_enabled()


def draws(log_probs: Tensor, count: int = 20000, **options) -> Tensor:
    decoded = sample(
        lambda tokens, state: (log_probs.expand(len(tokens), -1), state),
        None,
        start=torch.zeros(count, dtype=torch.long),
        stop=None,
        max_length=1,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    return decoded.tokens.flatten().bincount(minlength=len(log_probs)) / count


@pytest.mark.parametrize(
    "options, power, kept",
    [
        ({}, 1, 4),
        ({"temperature": 0.5}, 2, 4),
        ({"temperature": 2.0}, 0.5, 4),
        ({"top_k": 2}, 1, 2),
        ({"top_k": 9}, 1, 4),
    ],
)
def test_draws_are_as_often_as_they_should_be(options, power, kept):
    odds = torch.tensor([0.4, 0.3, 0.2, 0.1])
    wanted = odds**power * (torch.arange(4) < kept)
    # four standard deviations of a share among 20000 draws
    torch.testing.assert_close(
        draws(odds.log(), **options), wanted / wanted.sum(), rtol=0, atol=4 * 0.5 / math.sqrt(20000)
    )


def test_a_draw_is_repeated_by_its_seed_and_scored_by_the_model():
    model = Model(5, 0)
    options = {"start": 1, "stop": STOP, "max_length": 6, "temperature": 3.0}
    first, again, other = (
        sample(model.step, model.state(8), generator=torch.Generator().manual_seed(s), **options) for s in (0, 0, 1)
    )
    assert first.sequences() == again.sequences() != other.sequences()
    for i, tokens in enumerate(first.sequences()):
        whole = tuple(tokens) if len(tokens) == 6 else (*tokens, STOP)
        total = log_prob(model, one(model.state(8), i), whole, 1)
        assert float(first.scores[i, 0]) == pytest.approx(total, rel=1e-12)  # float64


def constant(value: float):
    def step(tokens, state):
        log_probs = torch.full((len(tokens), 3), math.log(1 / 3))
        log_probs[-1, 1] = value
        return log_probs, state

    return step


OPTIONS = {"start": torch.tensor([1, 1]), "stop": STOP, "max_length": 3}
FINE = constant(-1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: beam(constant(math.nan), None, width=2, **OPTIONS), "gave nan as a log-probability: its model is broken"),
        (lambda: greedy(constant(math.nan), None, **OPTIONS), "gave nan as a log-probability"),
        (lambda: greedy(constant(2.0), None, **OPTIONS), "gave 2 as a log-probability.*log_softmax"),
        (lambda: beam(FINE, None, width=2, num_best=3, **OPTIONS), "num_best is 3 and width 2"),
        (lambda: beam(FINE, None, width=0, **OPTIONS), "width 0"),
        (lambda: beam(FINE, None, width=2, stopping="soon", **OPTIONS), "'soon'.*'exact' or 'width'"),
        (lambda: greedy(FINE, None, **OPTIONS | {"max_length": 0}), "max_length is 0"),
        (lambda: greedy(FINE, None, **OPTIONS | {"stop": 3}), r"shape \(2, 3\) for 2 tokens.*stop = 3"),
        (lambda: greedy(FINE, {"a": None}, **OPTIONS | {"start": 1}), "give `start` as a tensor"),
        (lambda: greedy(FINE, None, **OPTIONS | {"start": torch.ones(2)}), r"start is torch.float32 \(2,\)"),
        (lambda: beam(FINE, torch.zeros(1, 2, 4), width=2, **OPTIONS), r"shape \(1, 2, 4\) for 2 rows.*transpose"),
        (lambda: greedy(lambda t, s: (torch.zeros(1, 3), s), None, **OPTIONS), r"shape \(1, 3\) for 2 tokens"),
        (lambda: draws(torch.zeros(2) - 1, temperature=0.0), "temperature is 0.0"),
        (lambda: draws(torch.zeros(2) - 1, top_k=0), "top_k is 0"),
    ],
)  # fmt: skip
def test_misuse_is_told(call, message):
    with pytest.raises(MisuseError, match=message):
        call()
