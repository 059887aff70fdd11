"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.errors import MisuseError
from unstuck.recurrent.cell import Step, Value, sigmoid, tanh


def lstm(
    step: Step, *, forget: bool = True, peephole: bool = False, coupled: bool = False, forget_bias: float = 1.0
) -> Mapping[str, Value]:
    """Long short-term memory: a cell whose content is kept, added to and shown by gates.

    Source:
        Hochreiter and Schmidhuber 1997; forget gates: Gers et al. 2000; peepholes: Gers et al. 2002; coupled gates and the comparison of
        all: Greff et al. 2017; a forget bias of 1: Jozefowicz et al. 2015.

    Args:
        step: The symbols.
        forget: Whether there is a forget gate; the content is kept as it is without.
        peephole: Whether gates see the content, unit by unit.
        coupled: What is forgotten is replaced: the input gate is one minus the forget gate.
        forget_bias: Where the forget gates' bias starts. torch.nn.LSTM's is near 0, so that a new one forgets half at each step.

    Returns:
        The output `h` and the content `c`.

    Raises:
        MisuseError: Coupled, and without a forget gate.
    """
    if coupled and not forget:
        raise MisuseError("coupled gates are one minus the forget gate, which isn't there")
    content = step.state("c")

    def seen(gate: Value, name: str, what: Value) -> Value:
        return gate + step.vector(f"peephole_{name}", low=-0.1, high=0.1) * what if peephole else gate

    enter: Value | float = 1.0 if coupled else sigmoid(seen(step.gate("i", keeps=-1), "i", content))
    keep: Value | float = 1.0
    if forget:
        keep = sigmoid(seen(step.gate("f", bias=forget_bias, keeps=1), "f", content))
        enter = 1.0 - keep if coupled else enter
    candidate = tanh(step.gate("g"))
    opened = step.gate("o")
    new = keep * content + enter * candidate
    return {"h": step.projected(sigmoid(seen(opened, "o", new)) * tanh(new)), "c": new}
