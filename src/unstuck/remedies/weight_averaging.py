"""The average of the weights over the last steps, for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unstuck.program import Script
from unstuck.remedies._network import evaluations, name_at, see_to_all
from unstuck.remedies._text import in_torch, literal
from unstuck.source import Edit, EditError
from unstuck.verdict import Verdict

if TYPE_CHECKING:
    from unstuck.evidence import Record
    from unstuck.training import Training


def propose(script: Script, verdict: Verdict) -> list[dict[str, Any]]:
    """Over a tenth of the run, at most a thousand steps."""
    steps = script.record.steps
    return [{"decay": 0.999 if steps >= 10_000 else 0.99 if steps >= 500 else 0.9}]


def weight_averaging(script: Script, *, decay: float = 0.99) -> list[Edit]:
    """What is evaluated is an exponential average of the weights (Polyak and Juditsky 1992), in which the noise of single steps cancels.

    The average is corrected for its start, as Adam's moments are (Kingma and Ba 2015): it is one of the weights there were, however
    few. Training itself goes on as before. Averages of batch norm's statistics go with it.

    Args:
        script: The script.
        decay: How much of the average is kept at each step, from 0 to less than 1: it is over the last 1 / (1 - decay) steps.

    Returns:
        The edits.

    Raises:
        EditError: The evaluation can't be pointed to the average, or it isn't known where the optimizer steps.
    """
    found, made = evaluations(script), script.optimizer()
    see_to_all(script, found)
    source, step = script.statement("step")
    home = made.source
    if found.source is not home:
        raise EditError("the network is evaluated in another file than it is made in")
    here = home.function(made.statement)
    early = [use for use in found.uses if home.function(use) is here and use.lineno < made.statement.lineno]
    average = home.free("averaged", "averaged_model")
    kind, imports = in_torch(home, "torch.optim.swa_utils.AveragedModel")
    kept, new = literal(decay), literal(1 - decay)
    rule = f"avg_fn=lambda old, new, n: old + (new - old) * {new} / (1 - {kept} ** (n + 1))"
    normed = any(layer.op == "batch_norm" for layer in script.record.program.layers)
    made_of = ", ".join([script.model, rule, *["use_buffers=True"] * normed])
    lines = [f"{average} = {kind}({made_of})"]
    update = f"{average}.update_parameters({script.model})"
    if source is home and (source.function(step) is here or (here is source.tree and _is_global(script))):
        updates = [source.after(step, [update])]
    else:
        if not made.target.isidentifier():
            raise EditError("the optimizer isn't given a plain name")
        lines.append(f"{made.target}.register_step_post_hook(lambda *args: {update})")
        updates = []
    uses = [home.replace(use, average) for use in found.uses if use not in early]
    return [*imports, home.after(made.statement, lines, rank=1), *updates, *uses]


def _is_global(script: Script) -> bool:
    """Whether the network goes by its own name where the optimizer steps."""
    source, step = script.statement("step")
    try:
        return name_at(script, source, step) == script.model
    except EditError:
        return False


def treat(training: Training, record: Record, *, decay: float = 0.99) -> None:
    """What is evaluated is an average of the weights, which the model is left with when training is over; no other that there may be.

    Raises:
        EditError: Nothing is evaluated.
    """
    if training.evaluation is None:
        raise EditError("the training evaluates nothing")
    from unstuck.optim.weight_average import WeightAverage

    training.average = WeightAverage(training.model, decay=decay)
