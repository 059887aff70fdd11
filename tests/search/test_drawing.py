"""Pictures of architectures: everything is there, nothing overlaps, and they stand by themselves."""

import random
import re
import xml.etree.ElementTree as ET

import pytest

from unstuck.search.convolutional import ConvolutionalNet, Layer, convolutional
from unstuck.search.drawing import svg
from unstuck.search.recurrent_cell import CellTree, gru_tree, lstm_tree, recurrent_cell
from unstuck.search.space import Space

SVG = "{http://www.w3.org/2000/svg}"


def some_nets():
    rng, options = random.Random(0), {"pooling": (1, 2, 3), "heights": (1, 3, 11), "filters": (8, 1024)}
    spaces = [
        Space(lambda draw, deep=deep: convolutional(draw, layers=deep, **options))
        for deep in [(1, 1), (2, 6), (15, 15), (40, 40)]
    ]
    return [space.random(rng).chosen for space in spaces for _ in range(3)]


def some_cells():
    rng = random.Random(1)
    spaces = [Space(lambda draw, base=base: recurrent_cell(draw, base=base)) for base in (1, 2, 3, 5, 8, 16)]
    plain = Space(lambda draw: recurrent_cell(draw, inject=False)).random(rng).chosen
    return [*(space.random(rng).chosen for space in spaces for _ in range(3)), lstm_tree(), gru_tree(), plain]


EVERY = [pytest.param(net, id=f"{type(net).__name__}-{i}") for i, net in enumerate([*some_nets(), *some_cells()])]


def number(element, name):
    return float(element.get(name, "0"))


def box(element):
    """Left, top, right and bottom, of words as wide as in the widest usual font (DejaVu Sans)."""
    x, y = number(element, "x"), number(element, "y")
    if element.tag == f"{SVG}rect":
        return x, y, x + number(element, "width"), y + number(element, "height")
    kinds = element.get("class", "").split()
    parts = [(("sign" in kinds and 17) or ({"small", "note"} & set(kinds) and 11.5) or 13, element.text or "")]
    parts += [(9.5 if part.get("class") == "index" else 13, part.text or "") for part in element]
    bold = 0.69 if "strong" in kinds else 0.62
    width = sum(size * bold * len(words) for size, words in parts)
    left = x - width / 2 if "middle" in kinds else x - width if "end" in kinds else x
    return left, y - 0.75 * parts[0][0], left + width, y + 0.2 * parts[0][0]


def meet(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.1 and min(a[3], b[3]) - max(a[1], b[1]) > 0.1


def within(a, b):
    return a[0] >= b[0] - 0.1 and a[1] >= b[1] - 0.1 and a[2] <= b[2] + 0.1 and a[3] <= b[3] + 0.1


def of(root, tag, *kinds):
    return [e for e in root.iter(f"{SVG}{tag}") if set(kinds) <= set(e.get("class", "").split())]


def frames(root):
    return [box(e) for kind in ("box", "end", "pill") for e in of(root, "rect", kind)]


@pytest.mark.parametrize("net", EVERY)
def test_nothing_overlaps_and_nothing_is_cut_off(net):
    root = ET.fromstring(svg(net))
    page, boxes = box(of(root, "rect", "page")[0]), frames(root)
    words = [box(e) for e in root.iter(f"{SVG}text")]
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert all(within(b, page) for b in [*boxes, *words])
    assert not any(meet(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(meet(a, b) for i, a in enumerate(words) for b in words[:i])
    for word in words:  # inside a box, or clear of all of them
        assert any(within(word, b) for b in boxes) or not any(meet(word, b) for b in boxes)


@pytest.mark.parametrize("net", EVERY)
def test_lines_stay_on_the_page_and_arrive_at_boxes(net):
    root = ET.fromstring(svg(net))
    page, boxes = box(of(root, "rect", "page")[0]), frames(root)
    for link in of(root, "g", "link"):
        line = [float(v) for v in re.findall(r"-?[\d.]+", link[0].get("d"))]
        straight = "V" in link[0].get("d")
        points = [(line[0], line[1]), (line[0], line[2])] if straight else list(zip(line[::2], line[1::2], strict=True))
        if not straight:  # a cubic curve with both bends alike is three quarters of the way there at most
            (x, y), (bend, _), (_, _), (to_x, to_y) = points
            points = [(x, y), (to_x, to_y), (x + 0.75 * (bend - x), y)]
        assert all(page[0] <= px <= page[2] and page[1] <= py <= page[3] for px, py in points)
        for end in (points[0], points[1]):
            near = (end[0] - 7, end[1] - 7, end[0] + 7, end[1] + 7)
            assert any(meet(near, b) for b in boxes)


@pytest.mark.parametrize("net", [pytest.param(n, id=str(i)) for i, n in enumerate(some_nets())])
def test_a_network_has_a_box_for_each_layer_and_a_line_for_each_link(net):
    root = ET.fromstring(svg(net))
    words = [e.text for e in root.iter(f"{SVG}text")]
    assert [w for w in words if "filters" in w] == [f"{y.height} × {y.width}, {y.filters} filters" for y in net.layers]
    assert len(of(root, "g", "link")) == sum(len(y.inputs) for y in net.layers) + len(net.outputs)
    padded = sum(net.is_padded(n, source=i) for n, y in enumerate(net.layers, 1) for i in y.inputs)
    assert len(of(root, "g", "link", "padded")) == padded
    assert ("Dashed: padded with zeros to the largest map." in words) is bool(padded)


def test_strides_and_what_is_left_of_the_image_are_told():
    net = ConvolutionalNet(
        (Layer(3, 5, 48, 2, 1), Layer(1, 1, 8, 2, 2, pool=2, inputs=(1,)), Layer(1, 1, 8, 1, 2, inputs=(2,)))
    )
    words = [e.text for e in ET.fromstring(svg(net)).iter(f"{SVG}text")]
    assert {"stride 2 × 1", "1/2 × 1", "stride 2, pooled by 2", "1/8 × 1/4", "1/8"} <= set(words)


def test_arcs_from_a_layer_that_goes_nowhere_lead_to_the_classifier_on_the_left():
    net = ConvolutionalNet((Layer(3, 3, 8), Layer(3, 3, 8), Layer(3, 3, 8, inputs=(2,))))
    root = ET.fromstring(svg(net))
    left = min(box(e)[0] for e in of(root, "rect", "box"))
    starts = [float(g[0].get("d")[1:].split()[0]) for g in of(root, "g", "link") if "C" in g[0].get("d")]
    assert starts == [left, left]  # the image to layer 2, and layer 1 to the classifier


@pytest.mark.parametrize("tree", [pytest.param(n, id=str(i)) for i, n in enumerate(some_cells())])
def test_a_cell_has_a_node_for_each_node_and_its_state_is_marked(tree):
    root = ET.fromstring(svg(tree))
    nodes = [*tree.nodes, *([tree.memory.node] if tree.memory else [])]
    words = [e.text for e in root.iter(f"{SVG}text")]
    signs = [{"+": "add", "×": "mul"}[e.text] for e in of(root, "text", "sign")]
    assert sorted(signs) == sorted(n.combination for n in nodes)
    assert sorted(w for w in words if w in {"identity", "tanh", "sigmoid", "relu"}) == sorted(
        n.activation for n in nodes
    )
    marked = 1 if tree.memory else 0
    assert len(of(root, "rect", "entered")) == len(of(root, "rect", "written")) == marked
    assert len(of(root, "text", "state")) == 2 * marked
    assert len(of(root, "rect", "pill")) == 2 * tree.base + 1


def test_in_the_lstm_the_state_enters_the_forget_gate_and_is_written_below_the_last_tanh():
    root = ET.fromstring(svg(lstm_tree()))
    texts = [(box(e), e.text) for e in root.iter(f"{SVG}text")]
    for kind, activation, sign in [("entered", "identity", "×"), ("written", "tanh", "+")]:
        frame = box(of(root, "rect", kind)[0])
        inside = [text for place, text in texts if within(place, frame)]
        assert activation in inside and sign in inside
    assert "the cell state enters node 10 by mul, identity" in root.find(f"{SVG}desc").text


def test_what_is_seen_is_also_told():
    net = ConvolutionalNet((Layer(3, 5, 48, 2, 2), Layer(1, 1, 8, inputs=(1,))))
    root = ET.fromstring(svg(net))
    assert root.get("role") == "img" and root.find(f"{SVG}title").text == "Convolutional network of 2 layers"
    assert root.find(f"{SVG}desc").text == (
        "1: 3 x 5, 48 filters, stride 2, sees the image; 2: 1 x 1, 8 filters, sees 1; classified by 2"
    )
    title = "<script>alert('&')</script>"
    assert ET.fromstring(svg(net, title=title)).find(f"{SVG}title").text == title
    assert "<script" not in svg(net, title=title)


@pytest.mark.parametrize("net", [ConvolutionalNet((Layer(3, 3, 8),)), lstm_tree(), CellTree(lstm_tree().nodes)])
def test_a_picture_needs_nothing_else_and_leaves_its_page_alone(net):
    text = svg(net)
    assert text == svg(net)
    assert not re.search(r"url\(|@import|href|<script| id=", text.replace("http://www.w3.org/2000/svg", ""))
    style = ET.fromstring(text).find(f"{SVG}style").text
    rules = re.sub(r"@media[^{]*\{(.*?\})\s*\}", r"\1", style, flags=re.DOTALL)
    assert all(
        s.strip().startswith(".unstuck-net") for rule in re.findall(r"([^{}]+)\{", rules) for s in rule.split(",")
    )


def luminance(colour):
    full = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_and_lines_stand_out_in_light_and_dark():
    style = ET.fromstring(svg(lstm_tree())).find(f"{SVG}style").text
    light, dark = style.split("@media", 1)
    for part in (light, dark):
        colours = dict(re.findall(r"--n-(\w+): (?:var\(--\w+, )?(#\w+)", part))
        for name, least in [
            ("text", 7),
            ("soft", 4.5),
            ("accent", 4.5),
            ("check", 4.5),
            *((str(i), 3) for i in range(1, 6)),
        ]:
            for ground in ("card", "faint"):
                a, b = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (b + 0.05) / (a + 0.05) >= least, f"{name} on {ground}"
