"""Whether a loss is a sum or a mean, by what it is divided by on the way to backward and what it runs over."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

K = 16  # batches that make a step, where several do


def classes(rows, loss, *, batches=1, steps=4, scaler=None):
    """Trains a classifier on random data: `loss(output, target, model)` is what backward starts from."""

    def script():
        torch.manual_seed(0)
        x, y = torch.randn(rows, 6), torch.randint(0, 3, (rows,))
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(batches):
                value = loss(model(x), y, model)
                (value if scaler is None else scaler.scale(value)).backward()
            optimizer.step()

    return script


def summed(output, target, divisor):
    return F.cross_entropy(output, target, reduction="sum") / divisor


def in_place(output, target, model):
    loss = F.cross_entropy(output, target, reduction="sum")
    loss /= len(target)
    return loss


def by_hand(output, target, divisor):
    return -(F.one_hot(target, 3).float() * output.log_softmax(1)).sum() / divisor


def penalised(output, target, model):
    return summed(output, target, len(target)) + sum(p.square().sum() for p in model.parameters())


def masked(output, target, model):
    mask = (target == 1).float()
    return (mask * F.cross_entropy(output, target, reduction="none")).sum() / mask.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "loss", "batches"),
    [
        (32, lambda o, t, m: F.cross_entropy(o, t), 1),
        (32, lambda o, t, m: summed(o, t, 32), 1),
        (4, lambda o, t, m: summed(o, t, 4), 1),
        (32, lambda o, t, m: summed(o, t, 32), K),
        (32, lambda o, t, m: summed(o, t, 32 * K), K),
        (16, lambda o, t, m: summed(o, t, len(t)), 2),
        (32, lambda o, t, m: summed(o, t, 1) * (1 / 32), 1),
        (32, in_place, 1),
        (32, penalised, 1),
        (32, lambda o, t, m: by_hand(o, t, 32), 1),
        (32, lambda o, t, m: by_hand(o, t, 32 * 4), 4),
        (32, lambda o, t, m: F.cross_entropy(o, t, reduction="none").sum() / 32, 1),
        (32, lambda o, t, m: F.cross_entropy(o, t, reduction="none").sum() / 32 / 4, 4),
        (32, masked, 1),
    ],
    ids=[
        "mean", "by rows", "by four rows", "by rows, of many batches", "by rows and batches", "by rows, of two batches", "times",
        "in place", "with a penalty", "by hand", "by hand, of batches", "of each", "of each, of batches", "masked",
    ],
)  # fmt: skip
def test_what_is_divided_by_what_it_runs_over_is_a_mean(watched, rows, loss, batches):
    [call] = [c for c in watched(classes(rows, loss, batches=batches)).program.losses if c.trains]
    assert call.reduction == "mean"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "loss", "batches", "divisor"),
    [
        (32, lambda o, t, m: summed(o, t, 1), 1, 1),
        (128, lambda o, t, m: summed(o, t, 10), 1, 10),
        (64, lambda o, t, m: summed(o, t, K), K, K),
        (64, lambda o, t, m: summed(o, t, 8), 8, 8),
        (8, lambda o, t, m: summed(o, t, K), K, K),
        (32, lambda o, t, m: 3 * summed(o, t, 1), 1, 1 / 3),
        (128, lambda o, t, m: summed(o, t, 10) + sum(p.square().sum() for p in m.parameters()), 1, 10),
        (32, lambda o, t, m: by_hand(o, t, 1), 1, 1),
        (128, lambda o, t, m: by_hand(o, t, 10), 1, 10),
        (128, lambda o, t, m: F.cross_entropy(o, t, reduction="none").sum(), 1, 1),
        (128, lambda o, t, m: F.cross_entropy(o, t, reduction="none").sum() / 10, 1, 10),
    ],
    ids=[
        "plain", "by ten", "by sixteen batches", "by eight batches", "by more batches than rows", "times three", "with a penalty",
        "by hand", "by hand, by ten", "of each", "of each, by ten",
    ],
)  # fmt: skip
def test_what_is_divided_by_another_number_is_a_sum(watched, rows, loss, batches, divisor):
    [call] = [c for c in watched(classes(rows, loss, batches=batches)).program.losses if c.trains]
    assert (call.reduction, call.divisor) == ("sum", pytest.approx(divisor, rel=1e-4))


def test_losses_of_each_sample_that_are_averaged_are_not_a_sum(watched):
    record = watched(classes(32, lambda o, t, m: F.cross_entropy(o, t, reduction="none").mean()))
    assert record.program.main_loss.reduction == "none"


@pytest.mark.slow
@pytest.mark.parametrize(("divisor", "reduction"), [(32, "mean"), (160, "mean"), (10, "sum")])
@pytest.mark.parametrize("named", [True, False])
def test_several_numbers_for_each_row(watched, named, divisor, reduction):
    def training():
        torch.manual_seed(0)
        x, y, model = torch.randn(32, 6), torch.randn(32, 5), nn.Linear(6, 5)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(4):
            optimizer.zero_grad()
            total = F.mse_loss(model(x), y, reduction="sum") if named else (model(x) - y).square().sum()
            (total / divisor).backward()
            optimizer.step()

    assert watched(training).program.main_loss.reduction == reduction


@pytest.mark.slow
@pytest.mark.parametrize(("divisor", "reduction"), [(8, "mean"), (128, "mean"), (112, "mean"), (24, "sum")])
def test_tokens_in_rows(watched, divisor, reduction):
    """Eight sequences of sixteen tokens, of which two in each don't count."""

    def training():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        optimizer, tokens = torch.optim.SGD(model.parameters(), lr=1e-4), torch.randint(0, 20, (8, 17))
        targets = tokens[:, 1:].clone()
        targets[:, :2] = -100
        for _ in range(4):
            optimizer.zero_grad()
            output = model(tokens[:, :-1])
            summed(output.reshape(-1, 20), targets.reshape(-1), divisor).backward()
            optimizer.step()

    assert watched(training).program.main_loss.reduction == reduction


@pytest.mark.slow
@pytest.mark.parametrize("divisor", [None, 32])
def test_what_mixed_precision_multiplies_is_not_the_loss(watched, divisor):
    def loss(output, target, model):
        return F.cross_entropy(output, target) if divisor is None else summed(output, target, divisor)

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, plain = watched(classes(32, loss, scaler=scaler)), watched(classes(32, loss))
    assert scaled.program.main_loss.reduction == plain.program.main_loss.reduction == "mean"
    assert scaled.program.task.chance_loss == pytest.approx(plain.program.task.chance_loss, rel=1e-4)
    [place] = plain.places("loss_part")
    assert scaled.series("loss_part", place).first == pytest.approx(plain.series("loss_part", place).first, rel=1e-4)


def test_the_backward_is_as_it_was(watched):
    """Also where one graph is used twice."""
    grads = []

    def training():
        torch.manual_seed(0)
        x, y, model = torch.randn(32, 6), torch.randint(0, 3, (32,)), nn.Linear(6, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            loss = summed(model(x), y, 32)
            loss.backward(retain_graph=True)
            loss.backward()
            optimizer.step()
        grads.append(model.weight.grad.clone())

    watched(training)
    training()
    assert torch.equal(*grads)


def each_step(model, x, y):
    """The loss of a sequence: one call of the loss function for each of its steps."""
    return sum(F.cross_entropy(model(x[:, t]), y[:, t]) for t in range(x.shape[1]))


def single_samples(model, x, y):
    return torch.stack(
        [F.mse_loss(model(row), target) for row, target in zip(x[:, 0], x[:, 0, :3], strict=True)]
    ).mean()


def mixed(model, x, y):
    output = model(x[:, 0])
    losses = [F.cross_entropy(output, target) for target in (y[:, 0], y[:, 1])]
    return 0.7 * losses[0] + 0.3 * losses[1]


@pytest.mark.parametrize(
    ("loss", "seen", "chance"),
    [(each_step, 4 * 5, 5.0), (single_samples, 4, 1.0), (mixed, 4, None)],
    ids=["each time step", "each sample", "one output"],
)
def test_calls_of_a_loop_are_measured_together(watched, loss, seen, chance):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 5, 6, generator=generator), torch.randint(0, 3, (4, 5), generator=generator)
    model = nn.Linear(6, 3)

    def script():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            loss(model, x, y).backward()
            optimizer.step()

    record = watched(script)
    task = record.program.task
    if loss is single_samples:
        assert task.target_std == pytest.approx(float(x[:, 0, :3].std(unbiased=False)), rel=1e-3)
        assert task.chance_loss == pytest.approx(task.target_std**2, rel=1e-3)
        return
    assert record.vectors("label_count", "")[0].values.sum() == seen
    if chance is not None:  # of the sum over all time steps
        share = torch.bincount(y.reshape(-1), minlength=3) / y.numel()
        assert task.chance_loss == pytest.approx(chance * float(-(share * share.log()).sum()), rel=1e-3)


def test_a_sum_over_a_loop_of_varying_length_has_no_chance_of_its_own(watched):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 5, 6, generator=generator), torch.randint(0, 3, (4, 5), generator=generator)
    model = nn.Linear(6, 3)

    def script():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for length in (5, 2, 4, 3, 1):
            optimizer.zero_grad()
            each_step(model, x[:, :length], y[:, :length]).backward()
            optimizer.step()

    record = watched(script)
    assert math.isnan(record.program.task.chance_loss)
    assert math.isfinite(record.program.task.chance_score)


def test_chance_of_many_words_is_that_of_all_targets(watched):
    """The outputs are too large to look at all of them, and no sample has all words."""
    words, rows = 2000, 1000
    generator = torch.Generator().manual_seed(0)
    share = 1 / (1 + torch.arange(words)).float()
    x = torch.multinomial(share, rows * 5, replacement=True, generator=generator).view(5, rows, 1)
    model = nn.Sequential(nn.Embedding(words, 4), nn.Flatten(), nn.Linear(4, words))

    def script():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for batch in x:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), batch[:, 0]).backward()
            optimizer.step()

    task = watched(script).program.task
    share /= share.sum()
    assert task.score == "perplexity"
    assert task.chance_loss == pytest.approx(
        float(-(share * share.log()).sum()), abs=0.1
    )  # half of the words are never drawn
