"""Whether a controller learns, told from the numbers that it gives about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Health:
    """How a controller is doing.

    Attributes:
        name: "collapsed", "not learning", "fine", or "too early" to say.
        sentence: The same with its numbers.
    """

    name: Literal["collapsed", "not learning", "fine", "too early"]
    sentence: str


def verdict(
    history: Sequence[Mapping[str, float]],
    *,
    repeats: float = 0.7,
    fallen: float = 0.01,
    updates: int = 20,
) -> Health:
    """How a controller is doing.

    It has collapsed where it mostly draws what was proposed before: it looks no further, and what is new comes from elsewhere. Near the end
    of a small space that is as it must be.
    It isn't learning where its entropy is still what it was at random, after many updates. That a search is no better than a random
    one is told elsewhere, by comparing them.

    The thresholds come from 15,625 architectures whose accuracies are known. With the published settings a controller had 99.9% of its
    first entropy after 500 children, and was no better than random. With a rate of 2e-2 and no safeguards it had 5% and 72% to
    77% repeats, and was stuck.

    Args:
        history: What `health()` of the sampler said, the oldest first.
        repeats: Share of repeats among its latest draws.
        fallen: Share of the highest entropy by which it must have fallen to have learned.
        updates: After how many that is to be expected.

    Returns:
        One of the four, and why.
    """
    told = [h for h in history if "entropy" in h]
    if not told:
        return Health("too early", "the controller has made no update yet")
    first, last = told[0], told[-1]
    entropy = f"its entropy is {last['entropy']:.3g} nats, {last['entropy_share']:.0%} of the highest"
    if last["updates"] < updates:
        return Health(
            "too early",
            f"after {last['updates']:.0f} updates it is too early to say whether the controller learns: {entropy}",
        )
    if last["repeats"] >= repeats:
        return Health(
            "collapsed",
            f"the controller has collapsed: {last['repeats']:.0%} of its latest draws are repeats, and {entropy}",
        )
    if 1.0 - last["entropy_share"] < fallen:
        went = f"its entropy went from {first['entropy']:.4g} to {last['entropy']:.4g} nats in {last['updates']:.0f} updates"
        return Health(
            "not learning", f"the controller isn't learning: {went}, and {last['highest']:.4g} is that of chance"
        )
    return Health(
        "fine", f"the controller learns: {entropy}, and {last['repeats']:.0%} of its latest draws are repeats"
    )
