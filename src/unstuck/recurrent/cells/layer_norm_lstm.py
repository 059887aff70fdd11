"""Layer-normalised long short-term memory."""

from __future__ import annotations

from collections.abc import Mapping

from unstuck.recurrent.cell import Step, Value, normalized, sigmoid, tanh


def layer_norm_lstm(step: Step, *, forget_bias: float = 1.0) -> Mapping[str, Value]:
    """Long short-term memory whose linear maps and content are normalised over the units at each step.

    Source:
        Ba et al. 2016, eq. 20 to 22. Each gate is normalised by itself rather than all four together, as in TensorFlow's
        LayerNormBasicLSTMCell, and has one gain for the input's map and one for the state's.

    Args:
        step: The symbols.
        forget_bias: Where the forget gates' shift starts.

    Returns:
        The output `h` and the content `c`.
    """

    def scaled(value: Value, name: str) -> Value:
        return normalized(value) * step.vector(f"gain_{name}", low=1.0, high=1.0)

    def gate(name: str, shift: float = 0.0) -> Value:
        both = scaled(step.input(name), f"input_{name}") + scaled(step.hidden(name), f"hidden_{name}")
        return both + step.vector(f"shift_{name}", low=shift, high=shift)

    i, f, g, o = gate("i"), gate("f", forget_bias), gate("g"), gate("o")
    content = sigmoid(f) * step.state("c") + sigmoid(i) * tanh(g)
    shown = tanh(scaled(content, "content") + step.vector("shift_content"))
    return {"h": sigmoid(o) * shown, "c": content}
