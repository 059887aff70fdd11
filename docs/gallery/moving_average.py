"""Exponentially weighted averages of a series: what the share that is kept does, with and without correction for the start.

The series is the temperature of the sea off Peru, month by month for 61 years. What one sees:

- **The share beta sets the window**, about 1 / (1 - beta) samples: with 0.5 the average follows each month, with 0.9 it comes late
  to each summer, with 0.98, over fifty months, seasons are gone, and warm years remain (El Niño 1982-83, 1997-98).
- **Without correction it starts from 0**: after t samples it is too small by the factor 1 - beta**t, to the last digit so on a series that
  doesn't change. With beta = 0.98 that is seen for years. Divided by this factor it is a mean of the samples there were.
- **What is won and what it costs**: of the variance of independent noise (1 - beta) / (1 + beta) is left, and what rises steadily is
  followed beta / (1 - beta) samples behind. Both are measured here, and are as theory has them.

Kingma and Ba 2015, section 3, for the correction; the series comes with statsmodels (ERSST, NOAA).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from statsmodels.datasets import elnino

from unstuck.optim.moving_average import MovingAverage, moving_average, window_of
from unstuck.report.pictures import BLANK, BLUE, FAINT, GREEN, INK, VERMILION, save, styled

LOOKS = {0.5: GREEN, 0.9: BLUE, 0.98: VERMILION}
BETAS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
SAMPLES = 400_000
FIRST_YEARS = 12


def temperatures() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Years and degrees Celsius, by month."""
    table = elnino.load_pandas().data
    degrees = table.iloc[:, 1:].to_numpy(float).ravel()
    return float(table.iloc[0, 0]) + np.arange(len(degrees)) / 12, degrees


def check_start(degrees: NDArray[np.float64]) -> None:
    """The bias on a series that doesn't change, and what of it is seen on the real one."""
    steps = np.arange(1, 2001)
    for beta in LOOKS:
        plain, corrected = (moving_average(np.full(2000, 17.0), beta, corrected=c) for c in (False, True))
        assert np.allclose(plain, 17 * (1 - beta**steps), rtol=1e-12)  # rounding of float64
        assert (corrected == 17).all()
        mine = MovingAverage(beta)
        assert np.allclose([mine.add(x) or mine.value for x in degrees], moving_average(degrees, beta), rtol=1e-12)
        plain, corrected = (moving_average(degrees, beta, corrected=c) for c in (False, True))
        below = int((corrected - plain > 0.5).sum())
        expected = int(np.sum(corrected * beta ** np.arange(1, len(degrees) + 1) > 0.5))
        print(
            f"beta {beta:g}: window {window_of(beta):.0f}; without correction more than 0.5 °C too low for {below} months"
        )
        assert below == expected
        assert corrected.min() >= degrees.min()  # a mean of what there was


def check_seasons(degrees: NDArray[np.float64]) -> None:
    """What is left of the seasons."""
    spread = {b: np.std(moving_average(degrees, b).reshape(-1, 12).mean(0)) for b in (0.0, *LOOKS)}
    for beta in LOOKS:
        print(f"beta {beta:g}: {spread[beta] / spread[0.0]:.0%} of the mean year's deviation is left")
    assert spread[0.98] < 0.1 * spread[0.0] < 0.7 * spread[0.0] < spread[0.5]


def measured() -> tuple[list[float], list[float]]:
    """Variance that is left of white noise, and how far a ramp is followed behind, by beta."""
    noise = np.random.default_rng(0).normal(size=SAMPLES)
    left = [float(moving_average(noise, b)[5000:].var()) for b in BETAS]
    ramp = np.arange(10_000.0)
    late = [float((ramp - moving_average(ramp, b))[-1]) for b in BETAS]
    for beta, variance, lag in zip(BETAS, left, late, strict=True):
        theory = (1 - beta) / (1 + beta), beta / (1 - beta)
        print(
            f"beta {beta:g}: variance left {variance:.4f} (theory {theory[0]:.4f}), lag {lag:.2f} (theory {theory[1]:.2f})"
        )
        # the variance is measured on SAMPLES * (1 - beta) / (1 + beta) numbers' worth: four deviations
        assert abs(variance / theory[0] - 1) < 4 * np.sqrt(2 / (SAMPLES * theory[0]))
        assert abs(lag - theory[1]) < 1e-6 * (1 + theory[1])
    return left, late


def draw_series(axes: Axes, years: NDArray[np.float64], degrees: NDArray[np.float64]) -> None:
    """The series and its averages, which are there from the first month."""
    axes.plot(years, degrees, ".", color=FAINT, markersize=2.5, label="month")
    for beta, colour in LOOKS.items():
        label = f"beta {beta:g}: over {window_of(beta):.0f} months"
        axes.plot(years, moving_average(degrees, beta), color=colour, linewidth=1 if beta < 0.95 else 2.2, label=label)
    axes.set(xlim=(1970, 2000), ylim=(18, 31.5), ylabel="°C", title="Temperature of the sea, and its averages")
    axes.legend(ncols=4, loc="upper center", fontsize=9)


def draw_start(axes: Axes, years: NDArray[np.float64], degrees: NDArray[np.float64]) -> None:
    """The first years, with and without correction."""
    axes.plot(years, degrees, ".", color=FAINT, markersize=3)
    for beta, colour in list(LOOKS.items())[1:]:
        axes.plot(years, moving_average(degrees, beta), color=colour, linewidth=2, label=f"beta {beta:g}, corrected")
        plain = moving_average(degrees, beta, corrected=False)
        axes.plot(years, plain, color=colour, linewidth=1.5, linestyle="--", label="from 0")
    axes.set(xlim=(years[0], years[0] + FIRST_YEARS), ylim=(0, 29), ylabel="°C", title="The start")
    axes.legend(loc="lower right", fontsize=9)


def draw_theory(left: Axes, late: Axes, variances: list[float], lags: list[float]) -> None:
    """Points that were measured on the curves of theory."""
    betas = np.linspace(0, 0.992, 400)
    left.plot(1 / (1 - betas), (1 - betas) / (1 + betas), color=INK, linewidth=1, label="theory")
    late.plot(1 / (1 - betas[1:]), betas[1:] / (1 - betas[1:]), color=INK, linewidth=1)
    windows = [window_of(b) for b in BETAS]
    left.plot(windows, variances, "o", color=VERMILION, label="measured")
    late.plot(windows[1:], lags[1:], "o", color=VERMILION)  # with beta = 0 there is none
    left.set(title="Variance left of white noise", xscale="log", yscale="log", xlabel="window 1 / (1 - beta)")
    late.set(title="Lag behind a ramp", xscale="log", yscale="log", ylim=(0.5, 150), xlabel="window 1 / (1 - beta)")
    left.set_yticks([1, 0.1, 0.01], ["1", "0.1", "0.01"])
    late.set_yticks([1, 10, 100], ["1", "10", "100"])
    for axes in (left, late):
        axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        axes.minorticks_off()
        axes.grid(axis="y", color=BLANK, linewidth=0.5)
    left.legend(fontsize=9)


def main(out: Path) -> None:
    """Averages, measures and draws."""
    years, degrees = temperatures()
    check_start(degrees)
    check_seasons(degrees)
    variances, lags = measured()
    with styled():
        figure = Figure(figsize=(10.6, 6.4))
        panels = figure.subplot_mosaic([["series"] * 3, ["start", "variance", "lag"]], width_ratios=(1.5, 1, 1))
        draw_series(panels["series"], years, degrees)
        draw_start(panels["start"], years, degrees)
        draw_theory(panels["variance"], panels["lag"], variances, lags)
    save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
