"""A saddle that can be computed by hand: the smallest network with two layers, y = w₁w₂x, fitted to y = c·x.

With the inputs scaled so that the mean of x² is 1, the loss is L = (c − w₁w₂)²/2. By hand:

    gradient   dL/dw₁ = −(c − w₁w₂) w₂      dL/dw₂ = −(c − w₁w₂) w₁
    Hessian at the origin   [[0, −c], [−c, 0]]
    eigenvalues   −c along (1, 1)/√2: the way out      +c along (1, −1)/√2: the way in

The gradient vanishes at the origin, where the loss is c²/2, as large as that of a network that says 0 to everything. What one sees:

- **Stuck.** Gradient descent that starts on the line w₁ = −w₂ never leaves it: both weights get opposite gradients, to the last bit.
  It goes straight to the saddle and stays there. A training whose loss has stopped falling far above zero, with a gradient that is
  all but zero, looks the same in a thousand dimensions.
- **Out.** The Hessian tells that this isn't a minimum: Lanczos finds the eigenvalue −c and its eigenvector. One step of a tenth along
  it, to either side, and the same gradient descent ends on the curve of lowest points w₁w₂ = c, with the loss at zero.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from unstuck.curvature.density import matrix
from unstuck.curvature.directions import Direction, Trajectory, eigen_directions
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.surface import Axis, plane
from unstuck.report.pictures import BLUE, FAINT, VERMILION, draw_plane, save, styled

C, RATE, STEPS = 1.0, 0.1, 80


def descend(objective: Objective, trajectory: Trajectory) -> None:
    """Gradient descent."""
    trajectory.record()
    for _ in range(STEPS):
        objective.move(-RATE * objective.gradient())
        trajectory.record()


def stay(objective: Objective) -> Trajectory:
    """Gradient descent that ends at the saddle."""
    path = Trajectory(objective, most=STEPS + 1)
    descend(objective, path)
    gradient = float(objective.gradient().norm())
    print(f"stuck: loss {objective.value():.4f}, gradient {gradient:.1e}")
    assert all(float(w1) == -float(w2) for w1, w2 in path.vectors)
    assert abs(objective.value() - C**2 / 2) < 1e-6
    assert gradient < 1e-3
    return path


def way_out(objective: Objective) -> torch.Tensor:
    """The eigenvector of the negative eigenvalue, beside what is computed by hand."""
    hessian = Hessian(objective)
    by_hand = torch.tensor([[0.0, -C], [-C, 0.0]], dtype=torch.float64)
    assert torch.allclose(matrix(hessian), by_hand, atol=1e-5)
    ends = extremes(hessian)
    print(f"eigenvalues {ends.bottom.values[0]:.4f} and {ends.top.values[0]:.4f}")
    assert abs(ends.bottom.values[0] + C) < 1e-5
    assert abs(ends.top.values[0] - C) < 1e-5
    (direction,) = eigen_directions(ends.bottom)
    assert abs(abs(float(direction.vector.sum())) - 2**0.5) < 1e-5  # (1, 1)/√2, or the opposite
    return direction.vector


def leave(objective: Objective, step: torch.Tensor) -> Trajectory:
    """A step, and gradient descent from there."""
    objective.move(step)
    path = Trajectory(objective, most=STEPS + 1)
    descend(objective, path)
    w1, w2 = objective.at().tolist()
    print(f"out: loss {objective.value():.1e} at ({w1:.3f}, {w2:.3f})")
    assert objective.value() < 1e-6
    assert abs(w1 * w2 - C) < 1e-3
    return path


def draw(objective: Objective, stuck: np.ndarray, ways: list[np.ndarray], out: Path) -> None:
    """The surface with the paths, and the loss along them."""
    unit = torch.eye(2, dtype=torch.float64)
    first, second = Direction(unit[0], "w₁"), Direction(unit[1], "w₂")
    objective.move(-objective.at())  # coordinates of the plane are the weights, since it goes through the origin
    surface = plane(objective, first, second, spans=((-1.8, 1.8), (-1.8, 1.8)), num=129)
    surface = replace(surface, first=Axis("w₁"), second=Axis("w₂"))
    paths = {"gradient descent from (1.3, −1.3)": stuck, "out along the eigenvector of −c": ways[0]}
    paths["out to the other side"] = ways[1]
    with styled():
        figure = Figure(figsize=(10, 5.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        left.set_aspect("equal")
        draw_plane(surface, paths=paths, marks={"saddle": [(0, 0)]}, title=f"(c − w₁w₂)²/2 with c = {C:g}", axes=left)
        losses = [((C - path[:, 0] * path[:, 1]) ** 2 / 2) for path in (stuck, ways[0])]
        right.plot(losses[0], color=VERMILION, linewidth=2)
        right.plot(np.arange(STEPS, 2 * STEPS + 2), losses[1], color=BLUE, linewidth=2)
        right.axhline(C**2 / 2, color=FAINT, linewidth=0.8, linestyle=":")
        right.annotate(
            "a plateau at c²/2", (STEPS * 0.5, C**2 / 2), (STEPS * 0.25, 0.9), arrowprops={"arrowstyle": "-"}
        )
        right.annotate(
            "one step along\nthe eigenvector", (STEPS + 1, 0.497), (STEPS * 1.15, 0.9), arrowprops={"arrowstyle": "-"}
        )
        right.set(xlabel="step", ylabel="loss", title="The loss on the way", xlim=(0, 2 * STEPS), ylim=(-0.03, 3.7))
    save(figure, out)


def main(out: Path) -> None:
    """Gets stuck, looks, gets out to both sides, and draws it."""
    x = torch.tensor([-1.5, -0.5, 0.5, 1.0, 0.5], dtype=torch.float64)
    x = x / x.square().mean().sqrt()
    weights = [torch.tensor(1.3, dtype=torch.float64), torch.tensor(-1.3, dtype=torch.float64)]
    objective = Objective(lambda: ((C * x - weights[0] * weights[1] * x) ** 2).mean() / 2, weights)
    stuck = stay(objective)
    saddle, direction = objective.at(), way_out(objective)
    ways = []
    for side in (1, -1):
        ways.append(torch.stack([saddle, *leave(objective, 0.1 * side * direction).vectors]).numpy())
        objective.move(saddle - objective.at())
    draw(objective, torch.stack(stuck.vectors).numpy(), ways, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    main(parser.parse_args().out)
