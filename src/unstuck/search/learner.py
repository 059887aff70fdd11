"""How the controller learns from what was evaluated: REINFORCE, and an optimizer for weights by name.

Three parts that can be on three machines. A `Learner` makes a gradient by name of a batch of lessons and a controller's present weights.
`Adam` takes a step on whatever part of the weights it is given. The controller itself is in `policy`.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unstuck.search.policy import Policy
from unstuck.search.sampling import finite
from unstuck.search.space import Point


@dataclass(frozen=True)
class Lesson:
    """A point that was evaluated.

    Attributes:
        point: It.
        reward: The higher the better; minus infinity where it failed.
        own: The controller proposed it. Others can be imitated, but say nothing of what its own decisions are worth.
        weight: Of its part of the policy gradient, less for proposals of a controller that has learned much since.
    """

    point: Point
    reward: float
    own: bool = True
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a controller learns.

    Attributes:
        rate: Of Adam.
        batch: Lessons of an update.
        advantage: Reward less baseline: "raw", or "standardised" by a moving variance, or "ranked": its rank among all that were told,
            as a quantile of the normal distribution.
        decay: Of the baseline at each batch, and of the variance.
        limit: Of a standardised advantage, up and down.
        entropy: Weight of the entropy, which is to be high.
        elites: How many of the best are kept to be imitated.
        imitation: Weight of their mean log-probability.
        max_norm: Of the gradient; None for any.
        density: Wanted share of links.
        density_weight: Of the divergence from it.
    """

    rate: float
    batch: int
    advantage: Literal["raw", "standardised", "ranked"] = "raw"
    decay: float = 0.95
    limit: float = 3.0
    entropy: float = 0.0
    elites: int = 0
    imitation: float = 1.0
    max_norm: float | None = None
    density: float = 0.4
    density_weight: float = 0.0


class Baseline:
    """Moving mean and variance of rewards, started at those of the first batch.

    Args:
        decay: Share of the old at each batch.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.mean: float | None = None
        self.variance = 0.0

    @property
    def sd(self) -> float:
        """Square root of the variance."""
        return math.sqrt(self.variance)

    def update(self, rewards: Sequence[float]) -> None:
        """Takes a batch in."""
        mean = sum(rewards) / len(rewards)
        if self.mean is None:
            self.mean, self.variance = mean, sum((r - mean) ** 2 for r in rewards) / len(rewards)
            return
        variance = sum((r - self.mean) ** 2 for r in rewards) / len(rewards)
        self.mean = self.decay * self.mean + (1 - self.decay) * mean
        self.variance = self.decay * self.variance + (1 - self.decay) * variance


_FLOOR = 1e-8  # of a standard deviation, so that equal rewards have advantage 0 and not 0/0


class Learner:
    """Makes gradients of lessons.

    Args:
        policy: The controller.
        recipe: How it learns.

    Attributes:
        baseline: Of rewards, or of their ranks.
        elites: The best so far, best first, each point once.
        worst: The least reward of any that worked.
        failed: How many failed.
        advantage_sd: Standard deviation of the advantages of the last batch, before they were limited; NaN before the first.
        entropy, highest: Of the controller on the points of the last batch, and if all were chance, nats; NaN before the first.
    """

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.policy = policy
        self.recipe = recipe
        self.baseline = Baseline(recipe.decay)
        self.elites: list[Lesson] = []
        self.worst = math.nan
        self.failed = 0
        self.advantage_sd = self.entropy = self.highest = math.nan
        self._rewards: list[float] = []

    def observe(self, lesson: Lesson) -> None:
        """Takes note of a lesson: for the elite, the worst reward and the ranks. Those of others count as well."""
        if not math.isfinite(lesson.reward):
            self.failed += 1
            return
        self.worst = min(lesson.reward, self.worst) if self._rewards else lesson.reward
        bisect.insort(self._rewards, lesson.reward)
        if lesson.point.key not in {e.point.key for e in self.elites}:
            best_first = sorted([*self.elites, lesson], key=lambda e: -e.reward)
            self.elites = best_first[: self.recipe.elites]

    def gradient(self, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
        """Of the loss on a batch, by the names of the weights; those that have no part in it are left out.

        Args:
            lessons: The batch; all `observe`d before.

        Returns:
            Gradients, their norm over all names limited. None at all while every child has failed.
        """
        if not self._rewards:
            return {}
        return limited(gradient(self.policy, self.loss(lessons)), self.recipe.max_norm)

    def loss(self, lessons: Sequence[Lesson]) -> Tensor:
        """What is to be made small, a scalar with a graph; takes the rewards into the baseline."""
        recipe, count = self.recipe, len(lessons)
        points = [each.point for each in (*lessons, *self.elites)]
        reading = self.policy.read(points, density=recipe.density)
        entropy = reading.entropy[:count].mean()
        self.entropy, self.highest = float(entropy.detach()), float(reading.highest[:count].mean())
        loss = -(torch.tensor(self._advantages(lessons)) * reading.log_prob[:count]).mean()
        loss = loss - recipe.entropy * entropy + recipe.density_weight * reading.density[:count].mean()
        return loss - recipe.imitation * reading.log_prob[count:].mean() if self.elites else loss

    def _advantages(self, lessons: Sequence[Lesson]) -> list[float]:
        """Of each lesson; 0 where the controller didn't decide it."""
        rewards = [self._score(e.reward) for e in lessons]
        own = [r for r, e in zip(rewards, lessons, strict=True) if e.own]
        if not own:
            return [0.0] * len(lessons)
        if self.baseline.mean is None:
            self.baseline.update(own)
            mean, sd = self.baseline.mean, self.baseline.sd
        else:
            mean, sd = self.baseline.mean, self.baseline.sd
            self.baseline.update(own)
        assert mean is not None
        self.advantage_sd = statistics.pstdev(own)
        return [
            e.weight * self._advantage(r - mean, sd) if e.own else 0.0 for r, e in zip(rewards, lessons, strict=True)
        ]

    def _advantage(self, gain: float, sd: float) -> float:
        if self.recipe.advantage == "raw":
            return gain
        return max(-self.recipe.limit, min(self.recipe.limit, gain / max(sd, _FLOOR)))

    def _score(self, reward: float) -> float:
        """The reward, that of what failed being the worst; or its rank among all, as a quantile of the normal distribution."""
        reward = finite(reward, self.worst)
        if self.recipe.advantage != "ranked":
            return reward
        low, high = bisect.bisect_left(self._rewards, reward), bisect.bisect_right(self._rewards, reward)
        return _NORMAL.inv_cdf((low + max(high, low + 1)) / (2 * len(self._rewards) + 1e-9))


_NORMAL = statistics.NormalDist()


def gradient(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    """Of a loss, by the names of the weights that have a part in it."""
    names = list(policy.tensors)
    found = torch.autograd.grad(loss, [policy.tensors[name] for name in names], allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def limited(gradient: Mapping[str, Tensor], max_norm: float | None) -> dict[str, Tensor]:
    """A gradient whose norm over all names is at most as given."""
    if max_norm is None or not gradient:
        return dict(gradient)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
    return dict(gradient) if norm <= max_norm else {name: g * (max_norm / norm) for name, g in gradient.items()}


class Adam:
    """Adam on tensors by name, also on some of them only, and on names that come later.

    A tensor's own steps are counted for its bias correction. A name without a gradient stays as it is, as in `torch.optim.Adam`.

    Args:
        rate: Learning rate.
        betas: Decays of the moments.
        eps: Beside the root of the second.

    Source:
        Kingma & Ba 2015, algorithm 1.
    """

    def __init__(self, rate: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.rate, self.betas, self.eps = rate, betas, eps
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._steps: dict[str, int] = {}

    @torch.no_grad()
    def step(self, weights: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> None:
        """Changes weights in place.

        Args:
            weights: By name; more than the gradient has are left alone.
            gradient: By name, all of them among the weights.
        """
        beta1, beta2 = self.betas
        for name, g in gradient.items():
            if name not in self._moments:
                self._moments[name] = torch.zeros_like(g), torch.zeros_like(g)
            first, second = self._moments[name]
            self._steps[name] = t = self._steps.get(name, 0) + 1
            first.lerp_(g, 1 - beta1)
            second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = (second / (1 - beta2**t)).sqrt_().add_(self.eps)
            weights[name].addcdiv_(first, denominator, value=-self.rate / (1 - beta1**t))

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: moments and numbers of steps by name."""
        return {
            "moments": {n: [t.clone() for t in pair] for n, pair in self._moments.items()},
            "steps": dict(self._steps),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self._moments = {name: (first.clone(), second.clone()) for name, (first, second) in state["moments"].items()}
        self._steps = dict(state["steps"])
