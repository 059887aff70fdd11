"""Graphs that grow from step to step, since something is carried on without `detach`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck._language import joined, say
from unstuck.evidence import Event, Record
from unstuck.rules._depth import RECURRENT
from unstuck.rules._finding import finding
from unstuck.rules._words import number, plural
from unstuck.verdict import Evidence, Finding

_FREED = "backward through the graph a second time"
_CHANGED = "modified by an inplace operation"


def growing_graph(record: Record, *, back: int = 2, samples: int = 2, growth: float = 1.3) -> list[Finding]:
    """A hidden state, or a sum of losses, is carried from step to step without `detach`, and the graph with it.

    Each backward then goes through all steps so far. As a rule torch refuses: the graph of the last step was freed
    ("Trying to backward through the graph a second time"), or, kept by `retain_graph=True`, its weights have been
    changed since ("modified by an inplace operation"). Where it doesn't, every step takes longer and more memory than
    the last.

    Told apart:
        Autograd numbers its nodes, so that a graph about to be differentiated shows whether it reaches back past the
        step. One step back is usual where two optimizers take turns (a GAN's generator learns from what it made for the
        critic's step), so two and more count, at several sampled steps, and more each time. When the script ends with
        one of torch's two errors, one step back is enough; without any, only the first of the errors is taken for it,
        in a recurrent network after its first step.

    Wrong when:
        A graph is meant to grow over a few updates, as in truncated backpropagation whose windows overlap.

    Args:
        record: The run.
        back: Steps that a graph must reach back, where the script went on.
        samples: Sampled steps that must show it.
        growth: Nodes older than the step at the last of them, relative to the first.

    Returns:
        One finding at most.
    """
    carried = record.happened("carried-graph")
    failed = _error(record)
    if failed and carried and record.steps - carried[-1].step <= 1:
        says = say(
            "{where}, and the script ended with torch's error for it: {failed}",
            where=_where(carried[-1]),
            failed=failed,
        )
        return _finding(record, carried, says, 0.95)
    if failed == _FREED and not carried and record.steps >= 1 and _recurs(record):
        says = say(
            "the script ended in step {step} with torch's error for a state that is carried without detach: {failed}",
            step=record.steps,
            failed=failed,
        )
        return _finding(record, carried, says, 0.6)
    far = [e for e in carried if _number(e, "steps") >= back]
    if len(far) < samples or not _number(far[-1], "nodes") > growth * _number(far[0], "nodes"):
        return []
    times = _slower(record)
    slower = say("; a step takes {times} times as long as at the start", times=number(times)) if times > growth else ""
    return _finding(record, far, joined((_where(far[-1]), slower)), 0.9)


def _finding(record: Record, carried: Sequence[Event], says: str, confidence: float) -> list[Finding]:
    failed = record.meta.get("status") == "failed"
    return finding(
        "growing-graph",
        "error" if failed else "warning",
        confidence,
        says,
        layers=dict.fromkeys(e.layer for e in carried if e.layer),
        evidence=[Evidence("older_nodes", e.layer, e.step, _number(e, "nodes")) for e in carried[-2:]],
    )


def _where(event: Event) -> str:
    steps, nodes = _number(event, "steps"), _number(event, "nodes")
    taken = say(" into {layer}", layer=event.layer) if event.layer else ""
    return say(
        "the graph that is differentiated in step {step} goes back {steps}, through {nodes} made "
        "before it: a state is carried{taken} without detach",
        step=event.step,
        steps=plural(int(steps), "step"),
        nodes=plural(int(nodes), "node"),
        taken=taken,
    )


def _number(event: Event, key: str) -> float:
    value = event.data.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _error(record: Record) -> str:
    """Which of torch's two errors the script ended with, "" when with none."""
    messages = " ".join(str(e.data.get("message", "")) for e in record.happened("exception"))
    return next((said for said in (_FREED, _CHANGED) if said in messages), "")


def _recurs(record: Record) -> bool:
    return bool(record.places("lag_grad")) or any(layer.op in RECURRENT for layer in record.program.layers)


def _slower(record: Record) -> float:
    """Time of the last steps relative to that of the first; the very first holds preparations. NaN when unknown."""
    seconds = record.series("step_seconds").after(3)
    first, last = seconds.head(0.1).median(), seconds.tail(0.1).median()
    return last / first if first > 0 and len(seconds) >= 10 else math.nan
