"""Gradients that are not cleared between updates, or are cleared before they are used."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from unstuck._language import say
from unstuck.evidence import Layer, Parameter, Record
from unstuck.rules._dead import whole_dead
from unstuck.rules._depth import weighted
from unstuck.rules._finding import finding
from unstuck.rules._learning import progress, step_together
from unstuck.rules._words import number, share
from unstuck.verdict import Evidence, Finding


def gradients_accumulate(record: Record, *, steps: float = 0.5, left: float = 0.05) -> list[Finding]:
    """`zero_grad` is missing, or stands at the wrong place.

    Without it every update follows the sum of all gradients since the first: the step grows and turns as old
    gradients, of weights long gone, outweigh the new one. Between `backward` and `step` it throws the gradient
    away, and nothing is learned.

    Told apart:
        At the first backward pass of a step nothing should be left of the step before; what is left is measured
        against the gradient that the update then uses. Accumulation over several backward passes an update is a
        pattern of its own: there the gradients are clear at the first of them. Where optimizers take
        turns only parameters of the main one count, since in a GAN the gradients of the other network wait. Thrown away too
        early: the layers receive gradients, the parameters have none at any update, though something other than the zeros of
        dead units goes into them.

    Wrong when:
        Gradients are kept on purpose, as a momentum by hand.

    Args:
        record: The run.
        steps: Share of the sampled steps (the first left out) at which gradients must be left over.
        left: The least that must be left, relative to the gradient used: rounding leaves nothing, a gradient
            that was not cleared about as much as it was.

    Returns:
        One finding at most.
    """
    several = range(len(record.program.optimizers)) if step_together(record) else (0,)
    return next((found for i in several if (found := _of_one(record, i, steps, left))), [])


def _of_one(record: Record, index: int, steps: float, left: float) -> list[Finding]:
    """What is to be said of the parameters of one optimizer."""
    program = record.program
    if not program.optimizers or program.optimizers[index].closure:
        return []
    held = [p for p in program.parameters if index in p.optimizers and p.trainable and p.used]
    thrown = _thrown_away(record, held)
    if thrown:
        return thrown
    if program.optimizers[index].backwards_per_step > 1.5:
        return []
    kept = {p.name: record.series("stale_rms", p.name).after(1).finite for p in held}
    kept = {name: series for name, series in kept.items() if len(series)}
    if not kept:
        return []
    biggest = max(kept, key=lambda name: float(np.mean(kept[name].values > left)))
    series = kept[biggest]
    often = float(np.mean([np.mean(s.values > left) for s in kept.values()]))
    if len(series) < 2 or often < steps:
        return []
    learning = progress(record)
    says = say(
        "gradients are not cleared: at {share} of the sampled steps those of the step before are "
        "still there when backward begins, {times} times the gradient that is then used; {words}",
        share=share(often),
        times=number(series.median()),
        words=learning.words(),
    )
    return finding(
        "gradients-accumulate",
        learning.weigh(learns="error", well="warning", unknown="warning"),
        0.7 if program.optimizers[index].cleared else 0.96,
        says,
        evidence=[Evidence("stale_rms", biggest, int(series.steps[-1]), series.last)],
        treated_by=("zero-grad",),
    )


def _thrown_away(record: Record, held: list[Parameter]) -> list[Finding]:
    """Layers receive gradients, yet no parameter has any at an update."""
    dead = {layer.name for layer in whole_dead(record, progress(record), from_start=True)}
    layers = [
        w for w in weighted(record) if record.series("back_rms", w.name).median() > 0 and _fed(record, w.layer, dead)
    ]
    if not held or not layers or record.steps < 3:
        return []
    for p in held:
        gradient = record.series("grad_rms", p.name).finite
        if (p.got_grad and not len(gradient)) or bool((gradient.after(1).values > 0).any()) or p.changed:
            return []
    last = layers[-1]
    back = record.series("back_rms", last.name)
    says = say(
        "gradients are cleared between backward and step: {layer} receives a gradient, but no "
        "parameter has any left when the optimizer steps; {words}",
        layer=last.name,
        words=progress(record).words(),
    )
    evidence = Evidence("back_rms", last.name, int(back.steps[-1]), back.median())
    return finding("gradients-accumulate", "error", 0.9, says, evidence=[evidence], treated_by=("zero-grad",))


def _fed(record: Record, layer: Layer, dead: Collection[str]) -> bool:
    """Whether anything but zeros goes into a layer: behind dead units its weights have a gradient of zero by right."""
    todo, seen = list(layer.inputs), set[str]()
    while todo:
        name = todo.pop()
        before = record.layers.get(name)
        if name in dead or name in seen:
            continue
        if before is None or before.parameters or not before.inputs:
            return True
        seen.add(name)
        todo.extend(before.inputs)
    return not layer.inputs
