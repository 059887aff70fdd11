"""Convolutional networks: what is drawn, what it computes, which ones are the same, and the source."""

import ast
import copy
import itertools
import math
import pickle
import random
import subprocess
import sys
import traceback

import pytest
import torch
import torch.nn.functional as F

from unstuck.errors import MisuseError
from unstuck.search import _isomorphism
from unstuck.search.convolutional import ConvolutionalNet, Layer, convolutional
from unstuck.search.space import Draw, Space

SIZES = [(1, 1), (2, 7), (11, 8)]


def space(**options):
    return Space(lambda draw: convolutional(draw, **options))


def some(count, seed=0, **options):
    rng, known = random.Random(seed), space(**{"layers": (1, 9), "filters": (2, 3, 4), "pooling": (1, 2, 3)} | options)
    return [known.random(rng).chosen for _ in range(count)]


def slow(net, module, x):
    """The network, pixel row by pixel row from its description, with a module's parameters."""
    weights, maps = module.state_dict(), [x]
    for n, layer in enumerate(net.layers, 1):
        seen = [maps[i] for i in layer.inputs]
        high, wide = max(m.shape[2] for m in seen), max(m.shape[3] for m in seen)
        whole = x.new_zeros(len(x), sum(m.shape[1] for m in seen), high, wide)
        at = 0
        for m in seen:
            whole[:, at : at + m.shape[1], : m.shape[2], : m.shape[3]] = m
            at += m.shape[1]
        made = convolved(whole, weights[f"layer{n}.0.weight"], weights.get(f"layer{n}.0.bias"), layer)
        if net.batch_norm:
            mean, var = made.mean((0, 2, 3), keepdim=True), made.var((0, 2, 3), unbiased=False, keepdim=True)
            gain, shift = (weights[f"layer{n}.1.{p}"][None, :, None, None] for p in ("weight", "bias"))
            made = (made - mean) / (var + 1e-5).sqrt() * gain + shift
        made = made.clamp(min=0)
        if layer.pool > 1:
            rows, columns = (range(0, size, layer.pool) for size in made.shape[2:])
            cells = [[made[:, :, r : r + layer.pool, c : c + layer.pool].amax((2, 3)) for c in columns] for r in rows]
            made = torch.stack([torch.stack(row, -1) for row in cells], -2)
        maps.append(made)
    features = torch.cat([maps[n].sum((2, 3)) / maps[n][0, 0].numel() for n in net.outputs], 1)
    return features @ weights["head.weight"].T + weights["head.bias"]


def convolved(x, weight, bias, layer):
    reach_down, reach_across = layer.height // 2, layer.width // 2
    wide = F.pad(x, (reach_across, reach_across, reach_down, reach_down))
    rows = []
    for r in range(0, x.shape[2], layer.stride_height):
        patches = [
            torch.einsum("bchw,fchw->bf", wide[:, :, r : r + layer.height, c : c + layer.width], weight)
            for c in range(0, x.shape[3], layer.stride_width)
        ]
        rows.append(torch.stack(patches, -1))
    found = torch.stack(rows, -2)
    return found if bias is None else found + bias[None, :, None, None]


def drawn(values, **options):
    return space(**options).at(values).chosen


def test_layers_without_a_link_see_the_image_and_those_that_lead_nowhere_are_classified_by():
    values = {"layers": 4, "skip[2]": [0], "skip[3]": [1, 1], "skip[4]": [1, 0, 0], "filters[4]": 64}
    options = {"heights": (3,), "widths": (5,), "strides": (1,)}
    values |= {f"filters[{n}]": 24 for n in (1, 2, 3)}
    net = drawn(values, layers=(1, 4), filters=(24, 64), **options)
    assert [layer.inputs for layer in net.layers] == [(0,), (0,), (1, 2), (1,)]
    assert net.outputs == (3, 4)
    assert net.layers[3] == Layer(3, 5, 64, inputs=(1,))


def test_what_has_one_option_is_not_decided():
    draw = Draw(lambda decision: decision.sample(random.Random(0)))
    net = convolutional(draw, layers=(3, 3), heights=(3,), widths=(3,), filters=(8,), strides=(1,), skip=False)
    assert draw.decisions == []
    assert net == ConvolutionalNet((Layer(3, 3, 8), Layer(3, 3, 8, inputs=(1,)), Layer(3, 3, 8, inputs=(2,))))


def test_decisions_of_a_layer_are_those_of_the_paper():
    point = space(layers=(2, 3)).random(random.Random(0))
    assert [d.role for d in point.decisions[:12]] == [
        "layers", "height", "width", "stride_height", "stride_width", "filters",
        "height", "width", "stride_height", "stride_width", "filters", "skip",
    ]  # fmt: skip
    assert next(d.name for d in point.decisions if d.role == "skip") == "skip[2]"


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_module_computes_what_the_description_says(batch_norm):
    for net in some(6, layers=(1, 6), batch_norm=batch_norm):
        torch.manual_seed(0)
        module = net.module(2, 3).double()
        for size in SIZES:
            x = torch.randn(4, 2, *size, dtype=torch.float64)
            # Sums in another order, over at most a thousand terms, through nine layers that are normalised.
            torch.testing.assert_close(module(x), slow(net, module, x), rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [True, False])
def test_its_source_is_a_file_of_its_own_that_computes_exactly_the_same(batch_norm):
    for net in some(7, seed=1, layers=(1, 18), batch_norm=batch_norm):
        source = net.source("Found")
        imported = {
            name.name.split(".")[0]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import)
            for name in node.names
        }
        assert imported <= {"torch"}
        assert max(map(len, source.splitlines())) <= 88
        scope = {}
        exec(source, scope)
        module, other = net.module(3, 5), scope["Found"](3, 5)
        other.load_state_dict(module.state_dict())
        x = torch.randn(2, 3, 9, 11)
        for training in (True, False):
            assert torch.equal(module.train(training)(x), other.train(training)(x))
        assert all(
            torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_parameters_are_counted_without_making_the_module():
    for net in some(6) + some(6, batch_norm=False):
        assert net.num_parameters(3, 10) == sum(p.numel() for p in net.module(3, 10).parameters())


def test_scales_say_how_large_maps_are_and_which_are_padded():
    for net in some(10, seed=2):
        module, sizes = net.module(1, 2), {0: (23, 31)}
        for n in range(1, len(net.layers) + 1):
            layer = module.get_submodule(f"layer{n}")
            layer.register_forward_hook(lambda _, __, out, n=n, sizes=sizes: sizes.update({n: tuple(out.shape[2:])}))
        module(torch.randn(2, 1, 23, 31))
        assert sizes == {n: (math.ceil(23 / a), math.ceil(31 / b)) for n, (a, b) in enumerate(net.scales)}
        for n, layer in enumerate(net.layers, 1):
            largest = tuple(max(sizes[i][axis] for i in layer.inputs) for axis in (0, 1))
            padded = {i for i in layer.inputs if net.is_padded(n, source=i)}
            assert {i for i in layer.inputs if sizes[i] != largest} <= padded
            if any(net.scales[i] != net.scales[layer.inputs[0]] for i in layer.inputs):
                assert padded


def test_maps_of_one_pixel_stay():
    net = some(1, layers=(6, 6), strides=(3,), pooling=(3,), skip=False, batch_norm=False)[0]
    assert net.module(1, 2)(torch.ones(1, 1, 1, 1)).isfinite().all()


def relisted(net, rng):
    """The same network with its layers listed in another order."""
    waiting, order = set(range(1, len(net.layers) + 1)), [0]
    while waiting:
        ready = [n for n in sorted(waiting) if set(net.layers[n - 1].inputs) <= set(order)]
        order.append(rng.choice(ready))
        waiting.remove(order[-1])
    places = {n: i for i, n in enumerate(order)}
    layers = [net.layers[n - 1] for n in order[1:]]
    moved = [Layer(**{**vars(y), "inputs": tuple(sorted(places[i] for i in y.inputs))}) for y in layers]
    return ConvolutionalNet(tuple(moved), net.batch_norm)


def test_the_order_in_which_layers_are_listed_does_not_count():
    rng = random.Random(3)
    nets = some(60, seed=3, layers=(4, 12), heights=(3,), widths=(3,), strides=(1,), filters=(2, 3), pooling=(1,))
    moved = [relisted(net, rng) for net in nets]
    assert sum(a != b for a, b in zip(nets, moved, strict=True)) > 40
    assert all(a.canonical() == b.canonical() for a, b in zip(nets, moved, strict=True))


def alike(a, b):
    """Whether some order of layers makes one of the other: tried one after the other."""
    numbers = range(1, len(a.layers) + 1)
    for order in itertools.permutations(numbers):
        places = {0: 0} | dict(zip(numbers, order, strict=True))
        if all(
            {places[i] for i in layer.inputs} == set(b.layers[places[n] - 1].inputs)
            and layer.filters == b.layers[places[n] - 1].filters
            for n, layer in enumerate(a.layers, 1)
        ):
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "filters"), [(4, (8,)), (3, (8, 16))])
def test_networks_count_once_if_and_only_if_they_are_isomorphic(depth, filters):
    known = space(layers=(depth, depth), heights=(3,), widths=(3,), strides=(1,), filters=filters)
    nets = []
    for links in itertools.product(*(itertools.product((0, 1), repeat=n) for n in range(1, depth))):
        for chosen in itertools.product(filters, repeat=depth):
            values = {f"skip[{n}]": list(link) for n, link in enumerate(links, 2)}
            nets.append(known.at(values | {f"filters[{n}]": f for n, f in enumerate(chosen, 1)}).chosen)
    assert len(set(nets)) == len(nets) == 2 ** (depth * (depth - 1) // 2) * len(filters) ** depth
    for a, b in itertools.combinations(nets, 2):
        assert (a.canonical() == b.canonical()) is alike(a, b)


def test_normalised_and_plain_networks_are_not_the_same():
    layers = (Layer(3, 3, 8),)
    assert ConvolutionalNet(layers).canonical() != ConvolutionalNet(layers, batch_norm=False).canonical()


def test_many_mirror_images_are_found_without_trying_all_orders(monkeypatch):
    # Seven chains of two equal layers: 7! orders that give the same.
    chains = [Layer(3, 3, 8, inputs=(0,))] * 7 + [Layer(3, 3, 8, inputs=(n,)) for n in range(1, 8)]
    net, calls, refined = ConvolutionalNet(tuple(chains)), [], _isomorphism._refined
    monkeypatch.setattr(_isomorphism, "_refined", lambda *args: calls.append(1) or refined(*args))
    first = net.canonical()
    assert len(calls) < 300
    assert relisted(net, random.Random(0)).canonical() == first


def test_a_point_is_known_by_its_network():
    known = space(layers=(3, 3), heights=(3,), widths=(3,), strides=(1,), filters=(8, 16))
    values = {"filters[1]": 8, "filters[2]": 16, "filters[3]": 8, "skip[2]": [0], "skip[3]": [1, 0]}
    swapped = {"filters[1]": 16, "filters[2]": 8, "filters[3]": 8, "skip[2]": [0], "skip[3]": [0, 1]}
    assert known.at(values).key == known.at(swapped).key
    assert known.at(values).key != known.at(values | {"skip[3]": [0, 1]}).key


def test_modules_can_be_copied_and_pickled():
    module = some(1, seed=5)[0].module(1, 2).eval()
    x = torch.randn(2, 1, 9, 9)
    expected = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), expected)
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
    assert torch.equal(module(x), expected)


def test_what_goes_wrong_in_a_module_shows_the_line():
    with pytest.raises(RuntimeError) as raised:
        ConvolutionalNet((Layer(3, 3, 8),)).module(3, 2)(torch.ones(1, 1, 5, 5))
    assert "x1 = self.layer1(x)" in "".join(traceback.format_tb(raised.value.__traceback__))


def test_without_normalisation_deep_networks_begin_with_a_signal():
    torch.manual_seed(0)
    net = some(
        1,
        layers=(15, 15),
        heights=(3,),
        widths=(3,),
        filters=(32,),
        strides=(1,),
        pooling=(1,),
        skip=False,
        batch_norm=False,
    )[0]
    module, found = net.module(3, 2), []
    module.get_submodule("layer15").register_forward_hook(lambda _, __, out: found.append(out.square().mean().item()))
    module(torch.randn(4, 3, 16, 16))
    # He et al. 2015 keep the second moment at that of the input but for the padding; torch's own start would leave 1e-9 of it.
    assert 0.05 < found[0] < 5


def test_proposals_take_no_torch():
    code = (
        "import random, sys\n"
        "from unstuck.search.convolutional import convolutional\n"
        "from unstuck.search.space import Space\n"
        "Space(convolutional).random(random.Random(0)).chosen.source()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": (0, 3)}, "one at least"),
        ({"layers": (4, 3)}, "the fewest and the most"),
        ({"heights": (2, 3)}, "height is to be one of .* odd numbers"),
        ({"widths": ()}, "width is to be one of"),
        ({"filters": (0,)}, "filters is to be one of .* whole numbers above 0"),
        ({"strides": (1.5,)}, "stride_height is to be"),
        ({"pooling": (0,)}, "pool is to be"),
    ],
)
def test_options_that_can_not_be_are_refused(options, says):
    with pytest.raises(MisuseError, match=says):
        space(**options).random(random.Random(0))


def test_a_layer_says_what_it_is():
    assert str(Layer(3, 5, 48, 2, 2)) == "3 x 5, 48 filters, stride 2"
    assert str(Layer(1, 1, 8, 2, 1, pool=2)) == "1 x 1, 8 filters, stride 2 x 1, pooled by 2"
