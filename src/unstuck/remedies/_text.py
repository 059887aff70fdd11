"""Expressions as a person would write them."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from unstuck.source import Edit, EditError, Source, called


def literal(value: float) -> str:
    """A number: "0.01", "1e-05" as "1e-5"."""
    text = f"{value:.4g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def literals(values: Sequence[float]) -> str:
    """Numbers, within brackets."""
    return f"[{', '.join(literal(v) for v in values)}]"


def reshaped(text: str, like: str, shape: Sequence[int]) -> str:
    """A batch in the shape of another: by the name of that, else by its numbers, so that nothing is computed twice.

    Args:
        text: The batch that is reshaped.
        like: The other.
        shape: Its shape.
    """
    if like.replace(".", "").isidentifier():
        return f"{text}.reshape({like}.shape)"
    return f"{text}.reshape({', '.join(str(n) for n in (-1, *shape[1:]))})"


def in_torch(source: Source, dotted: str) -> tuple[str, list[Edit]]:
    """How a file may call something of torch's, and the import it takes: "nn.ReLU" where `torch.nn` goes by `nn`.

    Args:
        source: The file.
        dotted: Its full name, "torch.nn.ReLU".
    """
    module, _, name = dotted.rpartition(".")
    alias = source.alias(module)
    if alias:
        return f"{alias}.{name}", []
    return dotted, source.imports("torch", "import torch")


def in_sequential(source: Source, call: ast.Call, *, first: bool = True) -> bool:
    """Whether a call is an argument of a `Sequential`, so that another can stand beside it.

    Args:
        source: The file.
        call: The call.
        first: Also where it is the first.
    """
    outer = source.parents[call]
    if not isinstance(outer, ast.Call) or called(outer).rpartition(".")[2] != "Sequential":
        return False
    return call in outer.args and (first or outer.args[0] is not call)


def renamed(source: Source, call: ast.Call, name: str, *, dotted: str) -> tuple[str, list[Edit]]:
    """Another name in place of the last of what a call calls: "nn.ReLU" for "nn.Sigmoid"; in full where it was imported by itself.

    Args:
        source: The file.
        call: The call.
        name: The other name, "ReLU".
        dotted: It in full, "torch.nn.ReLU".
    """
    prefix = called(call).rpartition(".")[0]
    return (f"{prefix}.{name}", []) if prefix else in_torch(source, dotted)


def trained_loss(source: Source, statement: ast.stmt) -> ast.expr:
    """What backward is called on: `loss` of `loss.backward()`, `scaler.scale(loss).backward()` and `(loss / 4).backward()`.

    Raises:
        EditError: It isn't called plainly.
    """
    for call in ast.walk(statement):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "backward"):
            continue
        root = (
            call.args[0]
            if source.of(call.func.value) in ("accelerator", "fabric", "self") and call.args
            else call.func.value
        )
        if (
            isinstance(root, ast.Call)
            and isinstance(root.func, ast.Attribute)
            and root.func.attr == "scale"
            and root.args
        ):
            root = root.args[0]
        if isinstance(root, ast.BinOp) and isinstance(root.op, ast.Div) and isinstance(root.left, ast.Name):
            root = root.left
        return root
    raise EditError("it can't be told what backward is called on")
