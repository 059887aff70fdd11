"""Convolutional networks layer by layer, with links from any layer to any later one.

    def space(draw):
        return convolutional(draw, layers=(2, 6))

    def training(net):
        return Training(net.module(channels=3, classes=10), ...)

A proposal is a `ConvolutionalNet`: a description that takes no torch to make or to compare. Its module is made by running its source, which
is what a search exports: the same lines, as fast, with parameters of the same names.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unstuck.errors import MisuseError
from unstuck.search._compiled import compiled
from unstuck.search._isomorphism import Graph, form
from unstuck.search.space import Draw

if TYPE_CHECKING:
    from torch import nn

_WIDTH = 88  # of a line of source


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it.

    Attributes:
        height, width: Of its filters, odd.
        filters: How many.
        stride_height, stride_width: From one place of a filter to the next, in pixels, down and across.
        pool: Side of the squares of which only the largest value is kept; 1 for none.
        inputs: What it sees, concatenated: 0 is the image, 1 the first layer.
    """

    height: int
    width: int
    filters: int
    stride_height: int = 1
    stride_width: int = 1
    pool: int = 1
    inputs: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        """Such as "3 x 5, 48 filters, stride 2"."""
        return ", ".join([f"{self.height} x {self.width}", f"{self.filters} filters", *self.shrinks])

    @property
    def shrinks(self) -> list[str]:
        """What makes the map smaller, in words."""
        down, across = self.stride_height, self.stride_width
        stride = [f"stride {down}" if down == across else f"stride {down} x {across}"] if down * across > 1 else []
        return stride + ([f"pooled by {self.pool}"] if self.pool > 1 else [])


@dataclass(frozen=True)
class ConvolutionalNet:
    """A convolutional network: layers that see the image or layers before them, an average over each map, and a linear layer.

    Attributes:
        layers: In an order in which they can be computed.
        batch_norm: Whether there is batch normalisation between convolution and ReLU. Without, filters start as in He et al. 2015, so
            that deep networks can be trained all the same.
    """

    layers: tuple[Layer, ...]
    batch_norm: bool = True

    @property
    def outputs(self) -> tuple[int, ...]:
        """Layers that no other one sees, the first is 1: what is classified by."""
        seen = {i for layer in self.layers for i in layer.inputs}
        return tuple(n for n in range(1, len(self.layers) + 1) if n not in seen)

    @functools.cached_property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """What the image's height and width are divided by, rounded up, in the image and in the map of each layer."""
        found = [(1, 1)]
        for layer in self.layers:
            down, across = (min(found[i][axis] for i in layer.inputs) for axis in (0, 1))
            found.append((down * layer.stride_height * layer.pool, across * layer.stride_width * layer.pool))
        return tuple(found)

    def is_padded(self, layer: int, *, source: int) -> bool:
        """Whether a layer, the first is 1, sees another one's map with zeros added, as it also sees a larger one."""
        largest = [min(self.scales[i][axis] for i in self.layers[layer - 1].inputs) for axis in (0, 1)]
        return list(self.scales[source]) != largest

    def canonical(self) -> tuple[Any, ...]:
        """Equal for networks that differ only by the order in which layers are listed, as channels then do by their order.

        There are no layers without effect that could be left out: those that no other one sees are classified by.
        """
        labels = [(y.height, y.width, y.filters, y.stride_height, y.stride_width, y.pool) for y in self.layers]
        inputs = [(), *(layer.inputs for layer in self.layers)]
        outputs: list[list[int]] = [[] for _ in inputs]
        for n, seen in enumerate(inputs):
            for i in seen:
                outputs[i].append(n)
        return self.batch_norm, form(Graph([(), *labels], inputs, [tuple(o) for o in outputs]))

    def num_parameters(self, channels: int, classes: int) -> int:
        """Parameters of the module.

        Args:
            channels: Of the images.
            classes: Numbers given for each image.

        Returns:
            How many numbers are trained.
        """
        widths = [channels, *(layer.filters for layer in self.layers)]
        head = (sum(widths[n] for n in self.outputs) + 1) * classes
        others = (2 if self.batch_norm else 1) * sum(widths[1:])
        return (
            head + others + sum(y.height * y.width * y.filters * sum(widths[i] for i in y.inputs) for y in self.layers)
        )

    def module(self, channels: int, classes: int) -> nn.Module:
        """The network, for images of any size.

        Args:
            channels: Of the images.
            classes: Numbers to be given for each image.

        Returns:
            A new module: `(batch, channels, height, width)` to `(batch, classes)`. It is what running `source` gives.
        """
        return compiled(self.source(), "Net")(channels, classes)

    def source(self, name: str = "Net") -> str:
        """The network as a person would write it, on torch alone.

        Args:
            name: Of the class.

        Returns:
            A Python file. Its class is called with `channels` and `classes` and loads the module's `state_dict`.
        """
        imports = ["import torch", "from torch import Tensor, nn"]
        parts = [_class(self, name), _layer_source(self)]
        if "joined(" in parts[0]:
            imports.insert(1, "import torch.nn.functional as F")
            parts.append(_JOINED)
        if "torch." not in "".join(parts):
            imports.remove("import torch")
        return "\n\n\n".join(["\n".join(imports), *(part.strip("\n") for part in parts)]) + "\n"


def convolutional(
    draw: Draw,
    *,
    layers: tuple[int, int] = (6, 15),
    heights: Sequence[int] = (1, 3, 5, 7),
    widths: Sequence[int] = (1, 3, 5, 7),
    filters: Sequence[int] = (24, 36, 48, 64),
    strides: Sequence[int] = (1, 2, 3),
    pooling: Sequence[int] = (1,),
    skip: bool = True,
    batch_norm: bool = True,
) -> ConvolutionalNet:
    """Draws a convolutional network layer by layer.

    Links make any graph: a layer that none leads to sees the image, several inputs are concatenated, and so are, for the classifier, all
    layers that lead to no other. Maps of different size are padded with zeros, at the right and at the bottom, to the largest.

    Source:
        Zoph and Le 2017, sections 3.3 and 4.1. Their classifier isn't described; here each map is averaged over its own area, so that
        images may be of any size, and the averages are concatenated without padding. In their table 1, strides of 1 did better on
        CIFAR-10 (5.50% error) than strides that were searched (6.01%), and pooling better than both; strides take far less time.

    Args:
        draw: Makes the decisions: `layers`, and of each layer `height`, `width`, `stride_height`, `stride_width`, `filters`, `pool` and
            `skip`. Where there is one option only, nothing is decided.
        layers: Fewest and most.
        heights: Of filters, odd, so that maps keep their size.
        widths: The same.
        filters: In a layer.
        strides: Down and across; `(1,)` for none.
        pooling: Sides of the squares that maps are pooled by, such as `(1, 2)`.
        skip: Whether layers see any of those before; without, each sees the one before it.
        batch_norm: Whether maps are normalised over each batch.

    Returns:
        The network.

    Raises:
        MisuseError: An option can't be.
    """  # noqa: DOC502
    options = {
        "height": heights, "width": widths, "stride_height": strides, "stride_width": strides, "filters": filters, "pool": pooling,
    }  # fmt: skip
    _check(layers, options)
    depth = draw.depth("layers", *layers) if layers[0] < layers[1] else layers[0]
    return ConvolutionalNet(tuple(_drawn(draw, n, options, skip=skip) for n in range(1, depth + 1)), batch_norm)


def _drawn(draw: Draw, n: int, options: dict[str, Sequence[int]], *, skip: bool) -> Layer:
    found = {
        name: some[0] if len(some) == 1 else draw.choice(name, some, of=n, ordered=True)
        for name, some in options.items()
    }
    if not skip:
        return Layer(**found, inputs=(n - 1,))
    links = draw.links("skip", n - 1, of=n)
    return Layer(**found, inputs=tuple(i for i, linked in enumerate(links, 1) if linked) or (0,))


def _check(layers: tuple[int, int], options: dict[str, Sequence[int]]) -> None:
    if not 1 <= layers[0] <= layers[1]:
        raise MisuseError(f"layers={tuple(layers)}: the fewest and the most are expected, one at least")
    for name, some in options.items():
        odd = name in ("height", "width")
        if not some or not all(isinstance(v, int) and v > 0 and (v % 2 or not odd) for v in some):
            raise MisuseError(
                f"{name} is to be one of {list(some)}: {'odd' if odd else 'whole'} numbers above 0 are expected"
            )


def _class(net: ConvolutionalNet, name: str) -> str:
    widths = sum(net.layers[n - 1].filters for n in net.outputs)
    made = [f"self.layer{n} = {_call(net, layer)}" for n, layer in enumerate(net.layers, 1)]
    seen = [f"x{n} = self.layer{n}({{}})" for n in range(1, len(net.layers) + 1)]
    computed = [_statement(line, _inputs(net, n)) for n, line in enumerate(seen, 1)]
    if len(net.outputs) == 1:
        classified = [f"        return self.head(x{net.outputs[0]}.mean((2, 3)))"]
    else:
        outputs = _statement("outputs = ({})", ", ".join(f"x{n}" for n in net.outputs))
        means = "        means = [x.mean((2, 3)) for x in outputs]"
        classified = [outputs, means, "        return self.head(torch.cat(means, 1))"]
    return _CLASS.format(
        name=name,
        layers="1 layer" if len(net.layers) == 1 else f"{len(net.layers)} layers",
        made="\n".join(f"        {line}" for line in [*made, f"self.head = nn.Linear({widths}, classes)"]),
        computed="\n".join([*computed, *classified]),
    )


def _call(net: ConvolutionalNet, layer: Layer) -> str:
    width = sum(net.layers[i - 1].filters for i in layer.inputs if i)
    inputs = str(width) if 0 not in layer.inputs else f"channels + {width}" if width else "channels"
    strides = (layer.stride_height, layer.stride_width)
    stride = f", stride={strides}" if strides != (1, 1) else ""
    pool = f", pool={layer.pool}" if layer.pool > 1 else ""
    return f"layer({inputs}, {layer.filters}, {(layer.height, layer.width)}{stride}{pool})"


def _inputs(net: ConvolutionalNet, n: int) -> str:
    inputs = net.layers[n - 1].inputs
    names = ", ".join(f"x{i}" if i else "x" for i in inputs)
    if len(inputs) == 1:
        return names
    padded = any(net.is_padded(n, source=i) for i in inputs)
    return f"joined({names})" if padded else f"torch.cat([{names}], 1)"


def _statement(line: str, argument: str) -> str:
    """A line of a method, in several where it would be too long."""
    inner, outer = " " * 12, " " * 8
    whole = outer + line.format(argument)
    if len(whole) <= _WIDTH:
        return whole
    folded = textwrap.wrap(
        argument, _WIDTH, initial_indent=inner, subsequent_indent=inner + "    ", break_long_words=False
    )
    return "\n".join([outer + line.partition("{}")[0], *folded, f"{outer})"])


def _layer_source(net: ConvolutionalNet) -> str:
    pooled, norm = any(layer.pool > 1 for layer in net.layers), net.batch_norm
    does = ["Convolution", *(["batch normalisation"] if norm else []), "ReLU", *(["max pooling"] if pooled else [])]
    parts = "convolution, nn.BatchNorm2d(filters), nn.ReLU()" if norm else "convolution, nn.ReLU()"
    return _LAYER.format(
        extra="\n    pool: int = 1," if pooled else "",
        does=", ".join(does[:-1]) + " and " + does[-1],
        shrink=" and pooling" if pooled else "",
        convolution=_NORMALISED if norm else _PLAIN,
        returned=(_POOLED if pooled else "    return nn.Sequential({})").format(parts),
    )


_CLASS = '''
class {name}(nn.Module):
    """Convolutional network of {layers}, found by a search.

    Args:
        channels: Of the images.
        classes: Numbers given for each image.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
{made}

    def forward(self, x: Tensor) -> Tensor:
        """Images `(batch, channels, height, width)` to scores `(batch, classes)`."""
{computed}
'''

_LAYER = '''
def layer(
    inputs: int,
    filters: int,
    size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),{extra}
) -> nn.Sequential:
    """{does}.

    Zeros around the map keep its size, which only strides{shrink} make smaller.
    """
{convolution}
{returned}
'''

_NORMALISED = """\
    padding = (size[0] // 2, size[1] // 2)
    convolution = nn.Conv2d(inputs, filters, size, stride, padding, bias=False)"""

_PLAIN = """\
    convolution = nn.Conv2d(inputs, filters, size, stride, (size[0] // 2, size[1] // 2))
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)"""

_POOLED = """\
    parts = [{}]
    if pool > 1:
        parts.append(nn.MaxPool2d(pool, ceil_mode=True))
    return nn.Sequential(*parts)"""

_JOINED = '''
def joined(*maps: Tensor) -> Tensor:
    """Concatenates channels; smaller maps get zeros at the right and at the bottom."""
    height, width = max(m.shape[2] for m in maps), max(m.shape[3] for m in maps)
    short = [(width - m.shape[3], height - m.shape[2]) for m in maps]
    padded = [F.pad(m, (0, w, 0, h)) if w or h else m for m, (w, h) in zip(maps, short)]
    return torch.cat(padded, 1)
'''
