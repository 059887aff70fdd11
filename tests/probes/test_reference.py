from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Clock
from unstuck.probes.reference import reference

pytestmark = pytest.mark.slow

BATCHES, SIZE, FEATURES = 12, 40, 5


def inputs(seed=0):
    return torch.randn(BATCHES, SIZE, FEATURES, generator=torch.Generator().manual_seed(seed))


def training(xs, ys, loss=F.cross_entropy, outputs=3, model=None, rate=0.1):
    torch.manual_seed(0)
    model = model or nn.Linear(xs[0][0].numel(), outputs)
    optimizer = torch.optim.SGD(model.parameters(), rate)

    def script():
        for x, y in zip(xs, ys, strict=True):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()

    return script


def made(bench_of, *args, seconds=10.0, **given):
    return reference(bench_of(training(*args, **given)), Clock(seconds))


def test_separable_classes_are_learned(bench_of):
    x = inputs()
    found = made(bench_of, x, x[..., :3].argmax(-1))
    assert found["linear"] > 0.85 and found["fitted"] > 0.95
    assert found["mlp"] > 0.85
    assert found["chance"] == pytest.approx(1 / 3, abs=0.1)
    assert (found["samples"], found["score"]) == (480, "accuracy")


def test_what_no_line_separates_is_learned_by_the_network(bench_of):
    x = inputs()
    found = made(bench_of, x, (x[..., 0] * x[..., 1] > 0).long(), outputs=2)
    assert found["mlp"] > 0.85 > 0.65 > found["linear"]


def test_random_labels_are_not(bench_of):
    """160 held-out samples have a standard error of 0.037; the network learns its own half by heart."""
    x, y = inputs(), torch.randint(3, (BATCHES, SIZE), generator=torch.Generator().manual_seed(5))
    found = made(bench_of, x, y)
    assert abs(max(found["linear"], found["mlp"]) - 1 / 3) < 0.11
    assert found["fitted"] > max(found["linear"], found["mlp"]) + 0.1


def test_numbers(bench_of):
    x = inputs()
    y = 1e3 + 50 * x[..., :1] - 20 * x[..., 1:2]
    found = made(bench_of, x, y, loss=F.mse_loss, outputs=1, rate=1e-6)
    assert found["linear"] > 0.98 and found["score"] == "r2"
    assert found["chance"] == 0
    assert found["network"] < 0.1


def test_noise_has_no_explained_variance(bench_of):
    y = torch.randn(BATCHES, SIZE, 1, generator=torch.Generator().manual_seed(7))
    found = made(bench_of, inputs(), y, loss=F.mse_loss, outputs=1)
    assert max(found["linear"], found["mlp"]) < 0.1


def test_bits(bench_of):
    x = inputs()
    found = made(bench_of, x, (x[..., :4] > 0).float(), loss=F.binary_cross_entropy_with_logits, outputs=4)
    assert found["score"] == "bit_accuracy"
    assert found["linear"] > 0.9
    assert found["chance"] == pytest.approx(0.5, abs=0.08)


def test_a_single_bit(bench_of):
    x = inputs()
    found = made(bench_of, x, (x[..., :1] > 0).float(), loss=F.binary_cross_entropy_with_logits, outputs=1)
    assert found["linear"] > 0.9


def test_chance_is_the_most_frequent_class(bench_of):
    y = (torch.rand(BATCHES, SIZE, generator=torch.Generator().manual_seed(2)) > 0.8).long()
    found = made(bench_of, inputs(), y, outputs=2)
    assert found["chance"] == pytest.approx(0.8, abs=0.1)  # three standard errors of the held-out samples


def test_the_network_is_the_scripts_own(bench_of):
    x = inputs()
    y = x[..., :3].argmax(-1)
    model = nn.Linear(FEATURES, 3, bias=False)
    model.weight.data = torch.eye(3, FEATURES)
    assert made(bench_of, x, y, model=model, rate=0.0)["network"] == 1.0


def test_scale_and_offset_of_inputs_are_no_matter(bench_of):
    x = inputs()
    y = x[..., :3].argmax(-1)
    shifted = x * torch.tensor([1e3, 1e-3, 1.0, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 50.0, 0.0, 1e4])
    plain = made(bench_of, x, y, rate=0.0)
    assert made(bench_of, shifted, y, rate=0.0)["linear"] == pytest.approx(plain["linear"], abs=0.05)


def test_pictures_are_flattened(bench_of):
    x = torch.randn(BATCHES, SIZE, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    found = made(bench_of, x, (x[:, :, 0, 1, 1] > 0).long(), model=model)
    assert found["linear"] > 0.9


def test_samples_that_come_again_are_counted_once(bench_of):
    """Else the held-out half would have been seen."""
    x = inputs()[:2].repeat(6, 1, 1)
    y = torch.randint(3, (2, SIZE), generator=torch.Generator().manual_seed(5)).repeat(6, 1)
    found = made(bench_of, x, y)
    assert found["samples"] == 80


def test_the_start_of_the_scripts_random_numbers_is_no_matter(bench_of):
    bench = bench_of(training(inputs(), inputs()[..., :3].argmax(-1)))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(reference(bench, Clock(10)))
    assert found[0] == found[1]


def test_numbers_of_double_precision_as_default(bench_of):
    x = inputs().double()
    script = training(x, x[..., :3].argmax(-1), model=nn.Linear(FEATURES, 3).double())
    bench = bench_of(script)
    torch.set_default_dtype(torch.float64)
    try:
        assert reference(bench, Clock(10))["linear"] > 0.9
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------------- what tells nothing


@pytest.mark.parametrize(("samples", "found"), [(2, False), (8, True)])
def test_few_samples_tell_nothing(bench_of, samples, found):
    x = inputs()[:, :samples]
    assert (made(bench_of, x, x[..., :3].argmax(-1)) is not None) == found


def test_tokens_tell_nothing(bench_of):
    ids = torch.randint(9, (BATCHES, SIZE), generator=torch.Generator().manual_seed(0))
    assert made(bench_of, ids, ids % 3, model=nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))) is None


def test_two_inputs_tell_nothing(bench_of):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(FEATURES, 3), nn.Linear(FEATURES, 3)

        def forward(self, pair):
            return self.one(pair[0]) + self.other(pair[1])

    x = inputs()
    xs = [(a, a + 1) for a in x]
    assert reference(bench_of(training(xs, x[..., :3].argmax(-1), model=Two())), Clock(5)) is None


def test_a_loss_without_targets_tells_nothing(bench_of):
    x = inputs()
    assert made(bench_of, x, x[..., 0], loss=lambda out, _: out.pow(2).mean()) is None


def test_time_ends_it(bench_of):
    found = made(bench_of, inputs(), inputs()[..., :3].argmax(-1), seconds=0.0)
    assert found["linear"] > 0  # ten updates at least
