"""The controller as Zoph & Le published it."""

from __future__ import annotations

from collections.abc import Callable

from unstuck.search.sampling import Sampler, Setting


def zoph_le(
    setting: Setting,
    *,
    rate: float = 6e-4,
    batch: int = 8,
    decay: float = 0.95,
    constant: float = 80.0,
    every: int = 1600,
    step: int = 2,
    density_weight: float = 0.0,
    density: float = 0.4,
    repeats: bool = False,
    replicas: int = 0,
    shards: int = 2,
    staleness: int = 16,
) -> Sampler:
    """A recurrent network that draws architectures, trained by REINFORCE, with the settings of its paper.

    An LSTM of two layers of 35 units decides one thing after the other, what was decided last being its input. Each decision has a softmax,
    which parts are linked is decided by anchors. After each batch the decisions that were taken become likelier as their reward was above a
    moving mean, and less likely where below it. The reward is the cube of an accuracy, or a constant by the square of a perplexity;
    another score is taken as it is. Where the name of the score isn't known beforehand, as that of trainings of one's own, what is below 0
    counts as minus a perplexity, and what is not as an accuracy. Numbers of parts drawn by `draw.depth` aren't decided, but start at their
    least and grow.

    It was made for 12,800 children. In the first hundreds it learns next to nothing: on tables of 15,625 trained architectures it is no
    better than random after 500, so take `fast` unless you have thousands.

    Source:
        Zoph & Le 2017, Neural architecture search with reinforcement learning, sections 3 and 4; the units, rate and start of the
        weights are those of 4.1. The weight on the density of links is from the code of Pham et al. 2018
        (ENAS; there .8 and .4). Departs from it in that no point is proposed twice, unless `repeats`; and that one process makes the
        updates, of `batch` children each, unless there are `replicas`: there 100, of 8 children, with 20 shards.

    Args:
        setting: What it is made for.
        rate: Of Adam.
        batch: Children of an update.
        decay: Of the moving mean at each update.
        constant: By the square of a perplexity it is the reward.
        every: Children after which the number of parts grows.
        step: By how much.
        density_weight: Of how far the links' probabilities are from the wanted share.
        density: Wanted share of links.
        repeats: Points may be proposed again, as in the paper.
        replicas: Copies of the controller, each with a batch of children of its own, as actors of Ray that don't wait for each other;
            0 for one controller in this process.
        shards: Actors that share out the weights among them, where there are replicas.
        staleness: Updates between the weights a replica made its gradient with and applying it, beyond which it is scaled down.

    Returns:
        The sampler.
    """
    # Here, since it takes torch, and all samplers are imported where one is looked up.
    from unstuck.search.controller import Growth, Mixture
    from unstuck.search.learner import Recipe
    from unstuck.search.on_ray import controller

    recipe = Recipe(rate, batch, decay=decay, density=density, density_weight=density_weight)
    return controller(
        setting, recipe, Mixture(repeats=repeats), growth=Growth(step, every), reward=_reward(setting.score, constant),
        replicas=replicas, shards=shards, staleness=staleness,
    )  # fmt: skip


def _reward(score: str, constant: float) -> Callable[[float], float]:
    if "accuracy" in score:
        return lambda quality: quality**3
    if "perplexity" in score:
        return lambda quality: constant / quality**2  # the quality is minus the perplexity
    if not score:
        return lambda quality: constant / quality**2 if quality < 0 else quality**3
    return float
