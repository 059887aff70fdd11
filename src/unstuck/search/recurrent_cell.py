"""Recurrent cells as trees: what is combined how, and where a cell state comes in and goes out.

    def space(draw):
        return recurrent_cell(draw, base=8)

    def training(cell):
        return Training(Model(cell.module(input_size=200, hidden_size=200)), ...)

A proposal is a `CellTree`: a description that takes no torch to make or to compare. It is run by the compiled kernels of
`unstuck.recurrent`, and exported as plain PyTorch or as a function of a `Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unstuck.errors import MisuseError
from unstuck.search._cell_module import leaves, module_source
from unstuck.search._compiled import compiled
from unstuck.search.space import Draw

if TYPE_CHECKING:
    from unstuck.recurrent.cell import Step, Value
    from unstuck.recurrent.layers import Recurrent

COMBINATIONS = {"add": "+", "mul": "*"}
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu")


@dataclass(frozen=True)
class Node:
    """What a node does with its two inputs, unit by unit: `activation(left combination right)`.

    Attributes:
        combination: "add" or "mul".
        activation: "identity", "tanh", "sigmoid" or "relu".
    """

    combination: str
    activation: str


_SUM, _PRODUCT, _GATE = Node("add", "identity"), Node("mul", "identity"), Node("add", "sigmoid")
_PASSING = ("identity", "relu")  # activations that a factor above 0 passes


@dataclass(frozen=True)
class Memory:
    """A state beside the output: the cell state `c`.

    Attributes:
        node: How it enters: `activation(value of a node combination c)` takes the place of the value.
        read_by: The node that it enters.
        written_by: The node whose combination, before its activation, is the new state.
    """

    node: Node
    read_by: int
    written_by: int


@dataclass(frozen=True)
class CellTree:
    """A recurrent cell as a binary tree.

    Each leaf combines a linear map of the input with one of the output one step before, each with weights and biases of its own. The
    other nodes have no parameters.

    Attributes:
        nodes: The leaves, numbered from 0 to `base - 1`, then those above: node `base + j` combines nodes `2j` and `2j + 1`. The last is
            the new output.
        memory: The cell state, None where there is none.
    """

    nodes: tuple[Node, ...]
    memory: Memory | None = None

    @property
    def base(self) -> int:
        """How many leaves."""
        return (len(self.nodes) + 1) // 2

    def children(self, node: int) -> tuple[int, ...]:
        """The two nodes that a node combines; none for a leaf."""
        left = 2 * (node - self.base)
        return (left, left + 1) if left >= 0 else ()

    @property
    def keepers(self) -> tuple[int, ...]:
        """Leaves whose biases say how much of the cell state is kept, as the forget gate's does in an LSTM.

        They are added, as they are, to sums whose sigmoids the state is multiplied by on its way to the new one. Their biases start at 1,
        see `unstuck.recurrent.cells.lstm`, and follow the layer's horizon.
        """
        gates = [n for n in self._multiplied() if self.nodes[n] == _GATE]
        return tuple(leaf for gate in gates if (leaf := self._added(gate)) is not None)

    def canonical(self) -> tuple[Any, ...]:
        """Equal for cells that compute the same with as many parameters.

        Sums and products may be in any order and grouping, and factors that are never negative before a ReLU or behind it. Every node
        leads to the output, so there are none without effect that could be left out.
        """
        return self._form(len(self.nodes) - 1)

    def num_parameters(self, input_size: int, hidden_size: int) -> int:
        """Parameters of a layer.

        Args:
            input_size: Numbers in the input of each step.
            hidden_size: Units.

        Returns:
            How many numbers are trained, two biases for each leaf included, as in torch's layers.
        """
        return self.base * hidden_size * (input_size + hidden_size + 2)

    def cell(self, step: Step) -> Mapping[str, Value]:
        """One step, for `unstuck.recurrent.layers.Recurrent`: `Recurrent(tree.cell, 200, 200, num_layers=2)`.

        Args:
            step: The symbols.

        Returns:
            The new states: the output `h`, and the cell state `c` where there is one.
        """
        return compiled(self.cell_source(), "cell")(step)

    def module(self, input_size: int, hidden_size: int, **options: Any) -> Recurrent:
        """Recurrent layers of this cell.

        Args:
            input_size: Numbers in the input of each step.
            hidden_size: Units.
            **options: Of `unstuck.recurrent.layers.Recurrent`, such as `num_layers` and `dropout`.

        Returns:
            New layers, called like torch's.
        """
        from unstuck.recurrent.layers import Recurrent

        return Recurrent(self.cell, input_size, hidden_size, **options)

    def cell_source(self, name: str = "cell") -> str:
        """The cell as a function of a step, for `unstuck.recurrent.layers.Recurrent`.

        Args:
            name: Of the function.

        Returns:
            A Python file.
        """

        def leaf(n: int) -> str:
            if self.nodes[n].combination == "mul":
                return f'step.input("{n}") * step.hidden("{n}")'
            return f'step.gate("{n}"{", bias=1.0, keeps=1" if n in self.keepers else ""})'

        used = sorted(self._activations)
        imports = [f"from unstuck.recurrent.cell import {', '.join(used)}", "", ""] if used else []
        lines = ['c = step.state("c")'] if self.memory else []
        lines += self._lines(leaf, "")
        returned = '{"h": %s, "c": new_c}' if self.memory else '{"h": %s}'
        says = f'"""Recurrent cell of {leaves(self.base)}, found by a search."""'
        body = [says, *lines, f"return {returned % self._last}"]
        return "\n".join([*imports, f"def {name}(step):", *(f"    {line}" for line in body)]) + "\n"

    def source(self, name: str = "SearchedCell") -> str:
        """Layers of the cell as a person would write them, on torch alone: a loop over the steps.

        Slower than `module`, and without its options but for `num_layers` and `batch_first`.

        Args:
            name: Of the class.

        Returns:
            A Python file. Its class is called like torch.nn.LSTM, gives what `module` gives, and loads its `state_dict`.
        """
        lines = self._lines(lambda n: f"x[{n}] {_sign(self.nodes[n])} h[{n}]", "torch.")
        returned = f"{self._last}, new_c" if self.memory else self._last
        return module_source(name, self.base, self.keepers, lines, returned, memory=self.memory is not None)

    def _multiplied(self) -> list[int]:
        """Nodes that the cell state is multiplied by before it is added to anything, and not after the new one is written."""
        memory, last = self.memory, len(self.nodes) - 1
        if memory is None or memory.node.combination != "mul":
            return []
        found, at, node = self._factors(memory.read_by), memory.read_by, memory.node
        above = [at]
        while above[-1] != last:
            above.append(self.base + above[-1] // 2)
        if memory.written_by not in above[1:]:
            return []
        for parent in above[1:]:
            if at == memory.written_by or node.activation not in _PASSING or self.nodes[parent].combination != "mul":
                break
            found += [m for n in self.children(parent) if n != at for m in self._factors(n)]
            at, node = parent, self.nodes[parent]
        return found

    def _factors(self, n: int) -> list[int]:
        """What a node is a product of, where it is one; a factor above 0 may as well stand behind a ReLU."""
        node = self.nodes[n]
        if n < self.base or node.combination != "mul" or node.activation not in _PASSING:
            return [n]
        return [m for child in self.children(n) for m in self._factors(child)]

    def _added(self, n: int) -> int | None:
        """The first leaf that is added to a sum as it is."""
        if n < self.base:
            return n
        found = (self._added(m) for m in self.children(n) if self.nodes[m] == _SUM)
        return next((leaf for leaf in found if leaf is not None), None)

    @property
    def _last(self) -> str:
        return f"a{len(self.nodes) - 1}"

    @property
    def _activations(self) -> set[str]:
        nodes = [*self.nodes, *([self.memory.node] if self.memory else [])]
        return {node.activation for node in nodes} - {"identity"}

    def _lines(self, leaf: Callable[[int], str], prefix: str) -> list[str]:
        """Statements that compute each node `n` as `an`, of leaves that are written so."""
        found = []
        for n, node in enumerate(self.nodes):
            combined = leaf(n) if n < self.base else f" {_sign(node)} ".join(f"a{m}" for m in self.children(n))
            if self.memory and n == self.memory.written_by:
                found.append(f"new_c = {combined}")
                combined = "new_c"
            found.append(f"a{n} = {_activated(node, combined, prefix)}")
            if self.memory and n == self.memory.read_by:
                entered = f"a{n} {_sign(self.memory.node)} c"
                found.append(f"a{n} = {_activated(self.memory.node, entered, prefix)}")
        return found

    def _form(self, n: int) -> tuple[Any, ...]:
        """What a node computes, sums of sums and products of products as one."""
        parts = [self._form(m) for m in self.children(n)] or [("x",), ("h",)]
        memory = self.memory
        found = _flat(self.nodes[n], parts, written=memory is not None and n == memory.written_by)
        return _flat(memory.node, [found, ("c",)]) if memory and n == memory.read_by else found


def recurrent_cell(
    draw: Draw,
    *,
    base: int = 8,
    combinations: Sequence[str] = ("add", "mul"),
    activations: Sequence[str] = ACTIVATIONS,
    inject: bool = True,
) -> CellTree:
    """Draws a recurrent cell: what each node of a tree does, and where the cell state enters and leaves it.

    With a base of 8 there are 6e16, among them the LSTM (`lstm_tree`); the GRU takes a base of 16 (`gru_tree`).

    Source:
        Zoph and Le 2017, section 3.4 and figure 5, whose numbering of nodes this is. Linear maps have biases here.

    Args:
        draw: Makes the decisions: `combination` and `activation` of each node and of the place where the cell state enters (`of="cell"`),
            `read_by` and `written_by`, see `Memory`. Where there is one option only, nothing is decided.
        base: Leaves.
        combinations: Some of "add" and "mul".
        activations: Some of "identity", "tanh", "sigmoid" and "relu".
        inject: Whether there is a cell state.

    Returns:
        The cell.

    Raises:
        MisuseError: An option can't be.
    """  # noqa: DOC502
    _check(base, combinations, activations)

    def node(of: int | str) -> Node:
        return Node(
            _one(draw, "combination", combinations, of=of),
            _one(draw, "activation", activations, of=of),
        )

    nodes = tuple(node(n) for n in range(2 * base - 1))
    if not inject:
        return CellTree(nodes)
    entering, places = node("cell"), tuple(range(2 * base - 1))
    return CellTree(nodes, Memory(entering, _one(draw, "read_by", places), _one(draw, "written_by", places)))


def lstm_tree() -> CellTree:
    """The long short-term memory, of base 8.

    Leaves 0 to 3 are added up to the output gate, 4 and 5 to the forget gate, 6 is the input gate and 7 the candidate. Weights of the
    leaves that are too many may be 0: then it is torch.nn.LSTM.
    """
    nodes = [_SUM] * 6 + [_GATE, Node("add", "tanh"), _SUM, _SUM, _GATE, _PRODUCT, _GATE, Node("add", "tanh"), _PRODUCT]
    return CellTree(tuple(nodes), Memory(_PRODUCT, read_by=10, written_by=13))


def gru_tree() -> CellTree:
    """The gated recurrent unit, of base 16.

    The cell state is the output. Leaves 0 to 7 are added up to the gate that keeps, 8 to 11 to the one that lets in, 12 and 13 to the
    candidate's map of the input, 14 is the reset gate and 15 the candidate's map of the state. It is torch.nn.GRU where weights and biases
    of 0 and 8 are each other's negative, 12 has no weights of the state and 15 none of the input, and the rest are 0.
    """
    above = [_SUM] * 7 + [_PRODUCT, _SUM, _SUM, _GATE, Node("add", "tanh"), _GATE, _PRODUCT, _SUM]
    return CellTree((*[_SUM] * 14, _GATE, _SUM, *above), Memory(_PRODUCT, read_by=28, written_by=30))


def _one(draw: Draw, name: str, options: Sequence[Any], *, of: int | str | None = None) -> Any:
    return options[0] if len(options) == 1 else draw.choice(name, options, of=of)


def _check(base: int, combinations: Sequence[str], activations: Sequence[str]) -> None:
    if base < 1:
        raise MisuseError(f"a tree of {base} leaves is none: one at least")
    for what, some, known in [("combinations", combinations, COMBINATIONS), ("activations", activations, ACTIVATIONS)]:
        if not some or isinstance(some, str) or not set(some) <= set(known):
            raise MisuseError(f"{what}={some!r}: some of {', '.join(known)} are expected, in a tuple")


def _flat(node: Node, parts: Sequence[tuple[Any, ...]], *, written: bool = False) -> tuple[Any, ...]:
    """A node over others; where one of them is the same operation, and nothing else, by what that one is over."""
    mine = (node.combination, "identity", False)
    spread = [inner for part in parts for inner in (part[3] if part[:3] == mine else (part,))]
    rest = [part for part in spread if not _positive(part)]
    if node.activation != "relu" or (rest and (written or node.combination == "add" or len(rest) == len(spread))):
        return node.combination, node.activation, written, tuple(sorted(spread))
    factors = [*filter(_positive, spread), *([_rectified(rest)] if rest else [])]
    return node.combination, "identity", written, tuple(sorted(factors))


def _rectified(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The ReLU of a product."""
    if len(parts) == 1 and parts[0][1:2] == ("identity",):
        return parts[0][0], "relu", *parts[0][2:]
    return "mul", "relu", False, tuple(sorted(parts))


def _positive(part: tuple[Any, ...]) -> bool:
    """Whether it is never below 0, so that a ReLU leaves it as it is."""
    if len(part) == 1:
        return False
    return part[1] in ("sigmoid", "relu") or all(_positive(inner) for inner in part[3])


def _sign(node: Node) -> str:
    return COMBINATIONS[node.combination]


def _activated(node: Node, combined: str, prefix: str) -> str:
    return combined if node.activation == "identity" else f"{prefix}{node.activation}({combined})"
