"""The sampler that fits."""

from __future__ import annotations

from unstuck._discover import get
from unstuck._language import say
from unstuck.search.sampling import Proposal, Sampler, Setting
from unstuck.search.space import Point


def auto(setting: Setting, *, few: int = 300) -> Sampler:
    """The sampler that fits the budget, and why.

    Up to `few` evaluations it is `gaussian-process`: on tables of trained networks it made most of each point, with one child at a time
    and with 32, in spaces of choices and of numbers. The more points there are, the longer it takes, and it looks at some hundreds at
    most; beyond it is `evolution`, which takes no time and found better points than `local` with 600.

    Source:
        Measured on tables of trained networks: `benchmarks/search.py`.

    Args:
        setting: What it is made for. Where only time ends the search, evaluations count as few.
        few: Evaluations up to which a model of all points pays.

    Returns:
        The sampler, with the name of the one that was chosen as `chosen`, and why, a sentence, as `says`.
    """
    chosen, why = _choice(setting.evaluations, few)
    return _Auto(
        get("search.samplers", chosen)(setting),
        chosen,
        say("points are proposed by {chosen}, since {why}", chosen=chosen, why=why),
    )


class _Auto:
    """Another sampler.

    Attributes:
        chosen: Its name.
        says: Why it was chosen.
    """

    def __init__(self, sampler: Sampler, chosen: str, says: str) -> None:
        self._sampler = sampler
        self.chosen, self.says = chosen, says

    def ask(self) -> Proposal | None:
        """What it asks for."""
        return self._sampler.ask()

    def tell(self, point: Point, quality: float) -> None:
        """Tells it."""
        self._sampler.tell(point, quality)

    def health(self) -> dict[str, float]:
        """Its health."""
        return self._sampler.health()


def _choice(evaluations: int | None, few: int) -> tuple[str, str]:
    if evaluations is None:
        return "gaussian-process", say("it makes most of each evaluation, and it isn't known how many there will be")
    if evaluations <= few:
        return "gaussian-process", say(
            "with {evaluations} evaluations, up to {few}, it makes most of each", evaluations=evaluations, few=few
        )
    return (
        "evolution",
        say(
            "{evaluations} evaluations are more than {few}, where a model of all points takes longer than it is worth",
            evaluations=evaluations,
            few=few,
        ),
    )
