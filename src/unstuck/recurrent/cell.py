"""Recurrent cells: what one step computes, written once as a small function.

    def lstm(step):
        i, f, g, o = step.gates("i", "f", "g", "o")
        c = sigmoid(f) * step.state("c") + sigmoid(i) * tanh(g)
        return {"h": sigmoid(o) * tanh(c), "c": c}

The function is called once, with symbols: `trace` keeps what it did. From this follow the parameters, a plain differentiable loop,
and kernels for the forward and the backward pass (`_programs`). All symbols are vectors over the units of the layer. A *linear map* of the
input or of a state is named by its gate; everything else is element by element: `+ - *` with each other and with numbers, `sigmoid`,
`tanh`, `relu`, `normalized`, parameters with one number a unit (`step.vector`), masks (`step.zoneout`, `step.dropout`).

The state called `h`, the first, is the output of the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from unstuck.errors import MisuseError
from unstuck.recurrent._graph import Graph, Op, Source


@dataclass(frozen=True, eq=False)
class Value:
    """Numbers of all units in one step, to be.

    Attributes:
        graph: Where it is noted.
        node: Its place there.
        projected: It has the projection's width, and can only be a new state.
    """

    graph: Graph
    node: int
    projected: bool = False

    def _with(self, op: Op, other: Value | float, *, swap: bool = False) -> Value:
        if isinstance(other, (int, float)):
            other = Value(self.graph, self.graph.const(float(other)))
        if not isinstance(other, Value):
            return NotImplemented
        if self.projected or other.projected:
            raise MisuseError("a projected value has another width than the units: it can only be returned as a state")
        a, b = (other, self) if swap else (self, other)
        return Value(self.graph, self.graph.apply(op, a.node, b.node))

    def __add__(self, other: Value | float) -> Value:
        return self._with(Op.ADD, other)

    def __radd__(self, other: float) -> Value:
        return self._with(Op.ADD, other, swap=True)

    def __sub__(self, other: Value | float) -> Value:
        return self._with(Op.SUB, other)

    def __rsub__(self, other: float) -> Value:
        return self._with(Op.SUB, other, swap=True)

    def __mul__(self, other: Value | float) -> Value:
        return self._with(Op.MUL, other)

    def __rmul__(self, other: float) -> Value:
        return self._with(Op.MUL, other, swap=True)

    def __neg__(self) -> Value:
        return 0.0 - self

    def __bool__(self) -> bool:
        raise MisuseError(
            "a cell is written without branches on its values: what it computes is noted once, before there are any"
        )


def _unary(op: Op, value: Value) -> Value:
    if value.projected:
        raise MisuseError("a projected value has another width than the units: it can only be returned as a state")
    return Value(value.graph, value.graph.apply(op, value.node))


def sigmoid(value: Value) -> Value:
    """The logistic function, unit by unit."""
    return _unary(Op.SIGMOID, value)


def tanh(value: Value) -> Value:
    """The hyperbolic tangent, unit by unit."""
    return _unary(Op.TANH, value)


def relu(value: Value) -> Value:
    """What is positive, and 0 for the rest, unit by unit."""
    return _unary(Op.RELU, value)


def normalized(value: Value, *, eps: float = 1e-5) -> Value:
    """Shifted and scaled to mean 0 and variance 1 over the units (layer normalisation without gain and bias).

    Source: Ba et al. 2016, eq. 4, over the units of one gate, each gate by itself.
    """
    centred = value - _unary(Op.MEAN, value)
    return centred * _unary(Op.RSQRT, _unary(Op.MEAN, centred * centred) + eps)


@dataclass(frozen=True)
class Gate:
    """One linear map to all units.

    Attributes:
        name: Its name.
        bias: Where its bias starts.
        keeps: 1 where a large value keeps what a state holds, -1 where it replaces it, 0 for neither; biases that are set by a horizon
            follow it.
    """

    name: str
    bias: float = 0.0
    keeps: int = 0


@dataclass(frozen=True)
class Group:
    """Linear maps of one value, computed together.

    Attributes:
        name: Name of the weight, "hh" of the output state.
        operand: What is mapped, a node of the cell's graph.
        state: The state that it is, if it is just that.
        gates: The maps, in the order of the weight's rows.
        with_input: Those whose map of the input is added to it, by name.
    """

    name: str
    operand: int
    state: str | None
    gates: tuple[Gate, ...] = ()
    with_input: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Vector:
    """A parameter with one number a unit, drawn uniformly between two numbers to start with."""

    name: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Mask:
    """Random numbers by unit, 0 or `high`, drawn anew at every step or for every sequence.

    Attributes:
        name: Its name.
        rate: How often it is not 0.
        high: What it is then.
        by_step: Drawn at every step.
    """

    name: str
    rate: float
    high: float
    by_step: bool


@dataclass(frozen=True, eq=False)
class Cell:
    """A traced cell.

    Attributes:
        name: Name of its function.
        graph: What it computes.
        states: Node of each new state by its name, the output first.
        inputs: Linear maps of the input, in the order of the weight's rows.
        groups: Linear maps of anything else.
        vectors: Parameters with one number a unit.
        masks: Random masks; there are none in evaluation.
        projection: What the output is a projection of, a node.
        identity: Recurrent weights start as this times the identity; None for orthogonal ones.
        input_scale: Standard deviation that input weights start with; None for Glorot's.
    """

    name: str
    graph: Graph
    states: Mapping[str, int]
    inputs: tuple[Gate, ...]
    groups: tuple[Group, ...]
    vectors: tuple[Vector, ...] = ()
    masks: tuple[Mask, ...] = ()
    projection: int | None = None
    identity: float | None = None
    input_scale: float | None = None

    @property
    def output(self) -> str:
        """The state that is the layer's output."""
        return next(iter(self.states))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for cells that compute the same from the same parameters."""
        return (
            tuple(self.graph.nodes), tuple(self.states.items()), tuple(g.name for g in self.inputs),
            tuple((g.name, g.operand, tuple(m.name for m in g.gates), g.with_input) for g in self.groups),
            tuple(v.name for v in self.vectors), tuple((m.name, m.by_step) for m in self.masks), self.projection,
        )  # fmt: skip


@dataclass
class Step:
    """What a cell's function is given: the symbols of one step.

    Attributes:
        training: Whether masks are random.
        project: Whether a projection is asked for.
        drop_state: Rate at which the output state's units are dropped on their way into its linear maps, one mask for a sequence.
    """

    training: bool = True
    project: bool = False
    drop_state: float = 0.0
    graph: Graph = field(default_factory=Graph)
    _inputs: dict[str, Gate] = field(default_factory=dict)
    _groups: dict[int, Group] = field(default_factory=dict)
    _vectors: dict[str, Vector] = field(default_factory=dict)
    _masks: dict[str, Mask] = field(default_factory=dict)
    _projection: int | None = None
    _identity: float | None = None
    _input_scale: float | None = None

    @property
    def h(self) -> Value:
        """The output state after the step before."""
        return self.state("h")

    def state(self, name: str) -> Value:
        """A state after the step before."""
        return self._load("state", name)

    def input(self, name: str, *, bias: float = 0.0, keeps: int = 0) -> Value:
        """A linear map of the input.

        Args:
            name: Of the gate; each may be asked for once.
            bias: Where its bias starts.
            keeps: See `Gate`.

        Returns:
            The value.

        Raises:
            MisuseError: There is one of that name.
        """
        if name in self._inputs:
            raise MisuseError(f"the input is mapped to {name!r} twice: keep the first in a variable")
        self._inputs[name] = Gate(name, bias, keeps)
        return self._load("input", name)

    def hidden(self, name: str, *, of: Value | None = None, bias: float = 0.0, keeps: int = 0) -> Value:
        """A linear map of the output state.

        Args:
            name: Of the gate; each may be asked for once.
            of: What to map instead, computed from states and gates.
            bias: Where its bias starts.
            keeps: See `Gate`.

        Returns:
            The value.
        """
        self._map(Gate(name, bias, keeps), of, with_input=False)
        return self._load("linear", name)

    def gate(self, name: str, *, of: Value | None = None, bias: float = 0.0, keeps: int = 0) -> Value:
        """A linear map of the input plus one of the output state.

        Args:
            name: Of the gate; each may be asked for once.
            of: What to map instead of the output state, computed from states and gates.
            bias: Where its bias starts.
            keeps: See `Gate`.

        Returns:
            The value.
        """
        self.input(name, bias=bias, keeps=keeps)
        self._map(Gate(name), of, with_input=True)
        return self._load("gate", name)

    def gates(self, *names: str) -> tuple[Value, ...]:
        """Several gates."""
        return tuple(self.gate(name) for name in names)

    def vector(self, name: str, *, low: float = 0.0, high: float = 0.0) -> Value:
        """A parameter with one number a unit.

        Args:
            name: Its name.
            low: It starts between this
            high: and this, drawn uniformly.

        Returns:
            The value.
        """
        self._vectors[name] = Vector(name, low, high)
        return self._load("vector", name)

    def projected(self, value: Value) -> Value:
        """The value, or its projection by a matrix where the layer is asked for one."""
        if not self.project:
            return value
        self._projection = value.node
        return replace(self._load("projection", "h"), projected=True)

    def zoneout(self, name: str, new: Value, rate: float) -> Value:
        """A new state of which a share of the units keeps what it was, at random in training and in the mean in evaluation.

        Source: Krueger et al. 2017, eq. 4.
        """
        if rate == 0.0:
            return new
        keep = self._mask(f"zoneout_{name}", rate, 1.0, by_step=True, mean=rate)
        return keep * self.state(name) + (1.0 - keep) * new

    def dropout(self, name: str, value: Value, rate: float, *, by_step: bool = False) -> Value:
        """The value with a share of its units dropped in training and the others scaled up; the same ones for a whole sequence unless
        `by_step`.

        Source: Gal and Ghahramani 2016 (for a sequence); Semeniuta et al. 2016 (by step, on a cell's candidate).
        """  # noqa: D205
        if rate == 0.0:
            return value
        return self._mask(f"dropout_{name}", 1 - rate, 1 / (1 - rate), by_step=by_step, mean=1.0) * value

    def starts(self, *, identity: float | None = None, input_scale: float | None = None) -> None:
        """How weights start: recurrent ones as a multiple of the identity, input ones with this standard deviation."""
        self._identity, self._input_scale = identity, input_scale

    def _load(self, *source: str) -> Value:
        return Value(self.graph, self.graph.load(*source))

    def _mask(self, name: str, rate: float, high: float, *, by_step: bool, mean: float) -> Value:
        if not 0 <= rate <= 1:
            raise MisuseError(f"a rate of {rate} is not one from 0 to 1")
        if not self.training:
            return Value(self.graph, self.graph.const(mean))
        self._masks[name] = Mask(name, rate, high, by_step)
        return self._load("mask" if by_step else "still", name)

    def _map(self, gate: Gate, of: Value | None, *, with_input: bool) -> None:
        if any(gate.name == known.name for group in self._groups.values() for known in group.gates):
            raise MisuseError(f"a state is mapped to {gate.name!r} twice: keep the first in a variable")
        operand = self.dropout("h", self.h, self.drop_state) if of is None else of
        source: Source = self.graph.nodes[operand.node].source
        state = source[1] if source[:1] == ("state",) else None
        default = of is None or state == "h"
        group = self._groups.setdefault(operand.node, Group("hh" if default else gate.name, operand.node, state))
        self._groups[operand.node] = replace(
            group, gates=(*group.gates, gate), with_input=group.with_input | ({gate.name} if with_input else frozenset())
        )  # fmt: skip


Definition = Callable[..., Mapping[str, Value]]
"""Of a cell: a function of a `Step` and of keyword-only settings, which returns the new states by name, the output `h` first."""


def trace(
    definition: Definition,
    *,
    training: bool = True,
    project: bool = False,
    zoneout: Mapping[str, float] | float = 0.0,
    drop_state: float = 0.0,
    **settings: object,
) -> Cell:
    """Calls a cell's function with symbols, and keeps what it did.

    Args:
        definition: The function.
        training: Whether masks are random.
        project: Whether the output is projected.
        zoneout: Rate at which units of a state keep what they hold, of all or by state.
        drop_state: Rate of the units of `h` that are dropped for a whole sequence on the way into its linear maps.
        **settings: For the function.

    Returns:
        The cell.

    Raises:
        MisuseError: What it returns are not states, or it can't be projected.
    """
    step = Step(training, project, drop_state)
    states = dict(definition(step, **settings))
    name = getattr(definition, "__name__", "cell")
    if not states or next(iter(states)) != "h" or not all(isinstance(v, Value) for v in states.values()):
        raise MisuseError(
            f"the cell {name} returns {list(states)}: new states by name are expected, the output 'h' first"
        )
    if project and step._projection is None:
        raise MisuseError(f"the cell {name} has no projection; use step.projected(...) for its output")
    if step.graph is not next(iter(states.values())).graph:
        raise MisuseError(f"the cell {name} returns values of another cell")
    for state, value in states.items():
        rate = zoneout.get(state, 0.0) if isinstance(zoneout, Mapping) else zoneout
        if rate and value.projected:
            raise MisuseError(
                "zoneout is not there for a projected state; give a rate for the others: zoneout={'c': 0.1}"
            )
        states[state] = step.zoneout(state, value, rate)
    used = {n.source[1] for n in step.graph.nodes if n.source[:1] == ("state",)}
    if unknown := used - set(states):
        raise MisuseError(f"the cell {name} uses the states {sorted(unknown)} and doesn't return them")
    if project and any(n.source == ("state", "h") and _is_used(step, p) for p, n in enumerate(step.graph.nodes)):
        raise MisuseError(
            f"the cell {name} uses its projected output unit by unit, but it has another width than the units"
        )
    return Cell(
        name, step.graph, {s: v.node for s, v in states.items()}, tuple(step._inputs.values()), tuple(step._groups.values()),
        tuple(step._vectors.values()), tuple(step._masks.values()), step._projection, step._identity, step._input_scale,
    )  # fmt: skip


def _is_used(step: Step, place: int) -> bool:
    return any(place in node.args for node in step.graph.nodes)
