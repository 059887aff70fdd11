"""Yearly sunspot numbers, told a year ahead and, fed with what they say themselves, ten years, by linear maps and small networks."""

import sys

import torch
from torch import nn

from unstuck.recurrent.narx import NARX, autoregression
from unstuck.recurrent.tdnn import TDNN

try:
    import statsmodels.api as sm
except ImportError:
    raise SystemExit("this example takes its data from statsmodels: pip install statsmodels") from None

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0
PAST, AHEAD = 9, 10
numbers = torch.tensor(sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), dtype=torch.float32)
test = PAST + int(0.8 * (len(numbers) - PAST))  # the last fifth of all years that have nine before them
roots = numbers.sqrt()  # of counts, so that maxima scatter no more than minima
center, scale = roots[:test].mean(), roots[:test].std()
series = ((roots - center) / scale).reshape(1, -1, 1)


def error(told):
    """RMSE over the test years in sunspots, divided by their standard deviation."""
    truth = numbers[test:]
    return ((told - truth).square().mean().sqrt() / truth.std(unbiased=False)).item()


def sunspots(values):
    return (values * scale + center).clamp_min(0).square()


def next_years(network):
    """What it says of each year of the test from the true years before."""
    with torch.no_grad():
        if isinstance(network, TDNN):
            return sunspots(network(series[:, :-1])[0, test - 1 :, 0])
        return sunspots(network(series[:, test - network.span :])[0, :, 0])


def ten_years_on(network):
    """What it says of each year of the test from the years until ten years before, fed with its own words in between."""
    with torch.no_grad():
        return sunspots(network.forecast(years[test - AHEAD - PAST + 1 : -AHEAD], steps=AHEAD)[:, -1, 0])


def trained(network, known, answers, *, epochs, rate, weight_decay=0.0, noise=0.0, generator=None):
    """Adam on all years before the test at once, noise added to what is known."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs)
    for _ in range(epochs):
        told = network(known + noise * torch.randn(known.shape, generator=generator))
        loss = nn.functional.mse_loss(told[:, -answers.shape[1] :], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


years = torch.stack([series[0, start : start + PAST] for start in range(len(numbers) - PAST + 1)])
print(f"persistence: test nRMSE {error(numbers[test - 1 : -1]):.3f}")

fitted, generator = autoregression(PAST), torch.Generator().manual_seed(SEED)
fitted.fit_least_squares(series[:, :test])
by_gradient = autoregression(PAST, generator=generator)
trained(by_gradient, series[:, :test], series[:, PAST:test], epochs=3000, rate=0.03)
apart = (by_gradient.linear.weight - fitted.linear.weight).abs().max().item()
print(
    f"AR({PAST}), least squares: test nRMSE {error(next_years(fitted)):.3f}, ten years on {error(ten_years_on(fitted)):.3f}"
)
print(
    f"AR({PAST}), by gradient: test nRMSE {error(next_years(by_gradient)):.3f}; its weights are within {apart:.0e} of those"
)

# Units, epochs, rate and noise were chosen by the sixty years before the test.
learning = {"rate": 0.01, "weight_decay": 0.1, "generator": generator}
tdnns, narxs = [], []
for _ in range(5):  # networks from different first weights, whose answers are averaged
    tdnn = TDNN(1, [16], 1, kernel_size=[PAST, 1], activation=torch.tanh, generator=generator)
    tdnns.append(trained(tdnn, series[:, : test - 1], series[:, PAST:test], epochs=1000, noise=0.1, **learning))
    narx = NARX(1, target_delays=PAST, hidden_sizes=[4], direct=True, generator=generator)
    narx.fit_least_squares(series[:, :test])
    narxs.append(trained(narx, series[:, :test], series[:, PAST:test], epochs=300, noise=0.2, **learning))
print(f"TDNN, 16 units: test nRMSE {error(torch.stack([next_years(one) for one in tdnns]).mean(0)):.3f}")
later = error(torch.stack([ten_years_on(one) for one in narxs]).mean(0))
print(f"NARX, 4 units beside AR({PAST}): ten years on {later:.3f}")
print(f"final test nRMSE {error(torch.stack([next_years(one) for one in narxs]).mean(0)):.3f}")
