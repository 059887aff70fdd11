"""Architectures as pictures: SVG text that needs nothing else, in light and dark.

A convolutional network is a column of boxes, read downwards, with an arc for every link that isn't to the next layer. A recurrent cell is a
tree, read upwards, from the input and the last output to the new one. Colours follow the page that a picture stands in, where it has the
variables of the HTML report, and otherwise the reader's light or dark setting.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unstuck.search._svg import number, rect, text, whole
from unstuck.search.convolutional import ConvolutionalNet, Layer
from unstuck.search.recurrent_cell import CellTree, Node

_MARGIN = 20.0

Parts = list[str]


def svg(net: ConvolutionalNet | CellTree, *, title: str | None = None) -> str:
    """Draws an architecture.

    Args:
        net: What a space made.
        title: Names the picture for those who don't see it; by default what it shows.

    Returns:
        SVG text, to stand in an HTML page or in a file of its own.
    """
    return _cell(net, title) if isinstance(net, CellTree) else _convolutional(net, title)


# Convolutional networks -----------------------------------------------------------------------------------------------------------------

_BOX, _LOWEST, _END = 276.0, 46.0, 34.0  # width of boxes, least height of layers and of both ends
_GAP = 26.0  # between two boxes
_PORT = 7.0  # between two ends of arcs


@dataclass(frozen=True)
class _Arc:
    """A link that isn't to the next layer; the image is 0, and what comes after the last layer the classifier.

    Attributes:
        start, end: The two.
        left: It is drawn on the left, where the image's links and those to the classifier are.
        padded: Zeros are added.
    """

    start: int
    end: int
    left: bool
    padded: bool

    @property
    def reach(self) -> float:
        """How far it goes aside."""
        return 24 + 19 * (self.end - self.start) ** 0.95


def _convolutional(net: ConvolutionalNet, title: str | None) -> str:
    arcs = _arcs(net)
    left, right = (max([a.reach * 0.75 for a in arcs if a.left is side], default=0) for side in (True, False))
    x = _MARGIN + left
    tops, heights = _places(net, arcs)
    bottom = tops[-1] + heights[-1]
    notes = _notes(net, arcs)
    width, height = max(x + _BOX + right + _MARGIN, 400.0), bottom + 14 + 17 * len(notes) + 8
    parts = [_end(x, tops[0], heights[0], "image"), _end(x, tops[-1], heights[-1], "mean of each map, linear layer")]
    for n, layer in enumerate(net.layers, 1):
        parts += _box(net, n, layer, x, tops[n], heights[n])
    parts += _straight(net, x + _BOX / 2, tops, heights)
    for arc, start, end in _with_ports(arcs, tops, heights):
        parts += _arc(arc, x if arc.left else x + _BOX, start, end)
    parts += [text(_MARGIN, bottom + 26 + 17 * i, note, "note") for i, note in enumerate(notes)]
    layers = "1 layer" if len(net.layers) == 1 else f"{len(net.layers)} layers"
    return whole(width, height, title or f"Convolutional network of {layers}", _told(net), parts)


def _arcs(net: ConvolutionalNet) -> list[_Arc]:
    last = len(net.layers) + 1
    links = [(i, n) for n, layer in enumerate(net.layers, 1) for i in layer.inputs if n > i + 1]
    between = [_Arc(i, n, i == 0, net.is_padded(n, source=i)) for i, n in links]
    return between + [_Arc(n, last, True, False) for n in net.outputs if n < last - 1]


def _places(net: ConvolutionalNet, arcs: Sequence[_Arc]) -> tuple[list[float], list[float]]:
    """Where boxes begin, and how high they are: higher where many arcs end."""
    ends = len(net.layers) + 2
    ports = [
        max(sum(n in (a.start, a.end) for a in arcs if a.left is side) for side in (True, False)) for n in range(ends)
    ]
    heights = [max(_END if n in (0, ends - 1) else _LOWEST, 18 + _PORT * ports[n]) for n in range(ends)]
    tops = [_MARGIN]
    for high in heights[:-1]:
        tops.append(tops[-1] + high + _GAP)
    return tops, heights


def _with_ports(
    arcs: Sequence[_Arc], tops: Sequence[float], heights: Sequence[float]
) -> Iterable[tuple[_Arc, float, float]]:
    """Arcs with the heights that they start and end at: ends above starts, so that none cross where they needn't."""
    found: dict[tuple[_Arc, bool], float] = {}
    for n, (top, high) in enumerate(zip(tops, heights, strict=True)):
        for side in (True, False):
            mine = [a for a in arcs if a.left is side]
            coming = sorted((a for a in mine if a.end == n), key=lambda a: -a.start)
            going = sorted((a for a in mine if a.start == n), key=lambda a: -a.end)
            ports = [(a, False) for a in coming] + [(a, True) for a in going]
            for i, port in enumerate(ports, 1):
                found[port] = top + high * i / (len(ports) + 1)
    return [(a, found[a, True], found[a, False]) for a in arcs]


def _arc(arc: _Arc, x: float, start: float, end: float) -> Parts:
    side = -1 if arc.left else 1
    aside, tip = x + side * arc.reach, x + side * 6
    colour = "plain" if arc.left else f"from{arc.start % 6}"
    kind = f"link {colour}{' padded' if arc.padded else ''}"
    y, to_y, bend = number(start), number(end), number(aside)
    return [
        f'<g class="{kind}"><path d="M{number(x)} {y}C{bend} {y} {bend} {to_y} {number(tip)} {to_y}"/>',
        f'<path class="tip" d="M{number(x + side)} {number(end)}l{side * 7} -3.5v7z"/>',
        f'<circle class="tip" cx="{number(x)}" cy="{number(start)}" r="2.5"/></g>',
    ]


def _straight(net: ConvolutionalNet, x: float, tops: Sequence[float], heights: Sequence[float]) -> Parts:
    """Arrows to the next layer, and from the last."""
    found: Parts = []
    for n in range(len(net.layers) + 1):
        if n == len(net.layers) or n in net.layers[n].inputs:
            padded = " padded" if n < len(net.layers) and net.is_padded(n + 1, source=n) else ""
            start, end = tops[n] + heights[n], tops[n + 1]
            found += [
                f'<g class="link plain{padded}"><path d="M{number(x)} {number(start)}V{number(end - 6)}"/>',
                f'<path class="tip" d="M{number(x)} {number(end - 1)}l-3.5 -7h7z"/></g>',
            ]
    return found


def _box(net: ConvolutionalNet, n: int, layer: Layer, x: float, top: float, high: float) -> Parts:
    middle, most = top + high / 2, max(y.filters for y in net.layers)
    down, across = net.scales[n]
    words = [f"{layer.height} × {layer.width}, {layer.filters} filters", ", ".join(layer.shrinks).replace(" x ", " × ")]
    scale = "" if down * across == 1 else _share(down) if down == across else f"{_share(down)} × {_share(across)}"
    line = middle if words[1] else middle + 8
    return [
        rect(x, top, _BOX, high, "box", 8),
        text(x + 12, middle + 4, str(n), "soft"),
        *_kernel(x + 50, middle, layer),
        text(x + 76, line - 4, words[0], "strong"),
        *([text(x + 76, middle + 13, words[1], "small")] if words[1] else []),
        *([text(x + _BOX - 6, top + high + 14, scale, "small end")] if scale else []),
        rect(x + 8, top + high - 5, (_BOX - 16) * layer.filters / most, 2, "bar", 1),
    ]


def _share(parts: int) -> str:
    return "1" if parts == 1 else f"1/{parts}"


def _kernel(x: float, y: float, layer: Layer) -> Parts:
    """The filter as a grid around a place."""
    side = min(3.6, 27 / max(layer.height, layer.width))
    high, wide = side * layer.height, side * layer.width
    rows = [f"M{number(x - wide / 2)} {number(y - high / 2 + side * i)}h{number(wide)}" for i in range(1, layer.height)]
    columns = [
        f"M{number(x - wide / 2 + side * i)} {number(y - high / 2)}v{number(high)}" for i in range(1, layer.width)
    ]
    grid = [f'<path class="grid" d="{"".join(rows + columns)}"/>'] if rows or columns else []
    return [rect(x - wide / 2, y - high / 2, wide, high, "kernel", 1), *grid]


def _end(x: float, top: float, high: float, words: str) -> str:
    return rect(x, top, _BOX, high, "end", 8) + text(x + _BOX / 2, top + high / 2 + 4.5, words, "middle")


def _notes(net: ConvolutionalNet, arcs: Sequence[_Arc]) -> list[str]:
    after = "batch normalisation and ReLU" if net.batch_norm else "ReLU"
    padded = any(net.is_padded(n, source=i) for n, layer in enumerate(net.layers, 1) for i in layer.inputs)
    return [
        f"After each convolution: {after}.",
        *(["Below a layer: size of its map against the image's."] if any(s != (1, 1) for s in net.scales) else []),
        *(["On the left: from the image, or to the classifier."] if any(a.left for a in arcs) else []),
        *(["Dashed: padded with zeros to the largest map."] if padded else []),
    ]


def _told(net: ConvolutionalNet) -> str:
    lines = [
        f"{n}: {layer}, sees {' and '.join(str(i) if i else 'the image' for i in layer.inputs)}"
        for n, layer in enumerate(net.layers, 1)
    ]
    return "; ".join([*lines, f"classified by {' and '.join(str(n) for n in net.outputs)}"])


# Recurrent cells ------------------------------------------------------------------------------------------------------------------------

_WIDE, _HIGH = 92.0, 46.0  # of a node
_APART, _RISE = 102.0, 46.0  # from one leaf to the next, between a row and the one above
_PILL = (34.0, 22.0)


def _cell(tree: CellTree, title: str | None) -> str:
    columns, depths = _columns(tree), _depths(tree)
    notes = _cell_notes(tree)
    width = max(tree.base * _APART + 2 * _MARGIN, 420.0)
    aside = (width - tree.base * _APART) / 2 + _APART / 2
    xs = [aside + _APART * column for column in columns]
    tops = _tops(tree, depths)
    parts: Parts = []
    for n in range(len(tree.nodes)):
        parts += [_branch(tree, n, m, xs, tops) for m in tree.children(n)]
    for n, node in enumerate(tree.nodes):
        parts += _node(tree, n, node, xs[n], tops[n])
    root = len(tree.nodes) - 1
    out = _out(tree, root, tops)
    parts += [_flow(xs[root], out, xs[root], out - 23), *_pill(xs[root], out - 34, "h", "t", "output")]
    bottom = max(tops) + _HIGH + 22 + _PILL[1]
    lines = [line for note in notes for line in textwrap.wrap(note, int((width - 2 * _MARGIN) / 7.2))]
    parts += [text(_MARGIN, bottom + 28 + 17 * i, line, "note") for i, line in enumerate(lines)]
    leaves = "1 leaf" if tree.base == 1 else f"{tree.base} leaves"
    return whole(width, bottom + 28 + 17 * len(lines), title or f"Recurrent cell of {leaves}", _cell_told(tree), parts)


def _columns(tree: CellTree) -> list[float]:
    """Places of nodes, in leaves from the left: a node stands over the middle of its own."""
    found = [0.0] * len(tree.nodes)
    order = iter(range(tree.base))

    def place(n: int) -> float:
        children = tree.children(n)
        found[n] = sum(place(m) for m in children) / 2 if children else float(next(order))
        return found[n]

    place(len(tree.nodes) - 1)
    return found


def _depths(tree: CellTree) -> list[int]:
    """Rows of nodes, 0 for the root."""
    found = [0] * len(tree.nodes)
    for n in reversed(range(len(tree.nodes))):
        for m in tree.children(n):
            found[m] = found[n] + 1
    return found


def _tops(tree: CellTree, depths: Sequence[int]) -> list[float]:
    entered = depths[tree.memory.read_by] if tree.memory else -1
    rows = [_MARGIN + _PILL[1] + 22.0]
    for depth in range(max(depths) + 1):
        rows[-1] += (_HIGH + 14) * (depth == entered)
        rows.append(rows[-1] + _HIGH + _RISE)
    return [rows[d] for d in depths]


def _out(tree: CellTree, n: int, tops: Sequence[float]) -> float:
    """Where the value of a node comes out."""
    return tops[n] - (_HIGH + 14) * (tree.memory is not None and tree.memory.read_by == n)


def _branch(tree: CellTree, parent: int, child: int, xs: Sequence[float], tops: Sequence[float]) -> str:
    aside = -16 if child == tree.children(parent)[0] else 16
    return _flow(xs[child], _out(tree, child, tops), xs[parent] + aside, tops[parent] + _HIGH)


def _flow(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (y + to_y) / 2
    curve = f"M{number(x)} {number(y)}C{number(x)} {number(middle)} {number(to_x)} {number(middle)} {number(to_x)} {number(to_y + 6)}"
    tip = f"M{number(to_x)} {number(to_y + 1)}l-3.5 7h7z"
    return f'<g class="link plain"><path d="{curve}"/><path class="tip" d="{tip}"/></g>'


def _node(tree: CellTree, n: int, node: Node, x: float, top: float) -> Parts:
    memory, found = tree.memory, []
    written = memory is not None and memory.written_by == n
    found += _operation(node, x, top, "box written" if written else "box")
    if written:
        found += [_state(x + 11, top + 39, "c", "t", "state", "→ ")]
    if n < tree.base:
        found += _leaf(x, top + _HIGH)
    if memory and memory.read_by == n:
        found += [_flow(x, top, x, top - 14), *_operation(memory.node, x, top - _HIGH - 14, "box entered")]
        found += [_state(x + 10, top - 21, "c", "t−1", "state", "")]
    return found


def _operation(node: Node, x: float, top: float, kind: str) -> Parts:
    left = x - _WIDE / 2
    curve = f'<path class="curve" d="M{number(left + 8)} {number(top + 18)}{_CURVES[node.activation]}"/>'
    quiet = " soft" if node.activation == "identity" else ""
    return [
        rect(left, top, _WIDE, _HIGH, kind, 8),
        f'<path class="rule" d="M{number(left)} {number(top + 25)}h{number(_WIDE)}"/>',
        curve,
        text(left + 31, top + 17, node.activation, f"small{quiet}"),
        text(x, top + 41, "×" if node.combination == "mul" else "+", "sign middle"),
    ]


def _leaf(x: float, bottom: float) -> Parts:
    found: Parts = []
    for aside, letter, index, kind in [(-19, "x", "t", "input"), (19, "h", "t−1", "output")]:
        found += [
            _flow(x + aside, bottom + 22, x + aside * 0.85, bottom),
            *_pill(x + aside, bottom + 33, letter, index, kind),
        ]
    return found


def _pill(x: float, y: float, letter: str, index: str, kind: str) -> Parts:
    wide, high = _PILL
    frame = rect(x - wide / 2, y - high / 2, wide, high, f"pill {kind}", high / 2)
    return [frame, _state(x, y + 4, letter, index, f"{kind} middle", "")]


def _state(x: float, y: float, letter: str, index: str, kind: str, before: str) -> str:
    symbol = f'{before}<tspan class="letter">{letter}</tspan><tspan class="index" dy="3">{index}</tspan>'
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}">{symbol}</text>'


def _cell_notes(tree: CellTree) -> list[str]:
    return [
        "Each leaf has linear maps of its own of the input x and of the last output h.",
        "A node combines its inputs unit by unit, + or ×, and then applies its activation.",
        *(["Orange: where the cell state c enters, and the node that writes the new one, before its activation."] if tree.memory else []),
    ]  # fmt: skip


def _cell_told(tree: CellTree) -> str:
    lines = []
    for n, node in enumerate(tree.nodes):
        of = " and ".join(str(m) for m in tree.children(n)) or "maps of x and h"
        lines.append(f"{n}: {node.combination} of {of}, {node.activation}")
    if tree.memory:
        node = tree.memory.node
        lines.append(f"the cell state enters node {tree.memory.read_by} by {node.combination}, {node.activation}")
        lines.append(f"and is written by node {tree.memory.written_by} before its activation")
    return "; ".join(lines)


_CURVES = {  # 18 wide, 12 high, from the lower left
    "identity": "l18 -12",
    "tanh": "c10 0 8 -12 18 -12",
    "sigmoid": "c12 0 6 -12 18 -12m-18 12h18",
    "relu": "h9l9 -11",
}
