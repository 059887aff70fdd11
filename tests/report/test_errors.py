"""The page and the text on errors: complete, escaped, without script or request, the same for objects and for saved JSON."""

from __future__ import annotations

import html
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unstuck.data.error_analysis import analyze
from unstuck.data.generalization import generalization
from unstuck.data.judging import Collector
from unstuck.data.learning_curve import SizeCurve
from unstuck.data.wrong_labels import Suspect
from unstuck.report.errors import render, text, write

SUSPECT = Suspect(17, 2, 1, 0.9, "labelled 2, which gets 0.05", np.ones((5, 5)))


@pytest.fixture
def found():
    generator = np.random.default_rng(0)
    collector = Collector()
    outputs, targets = generator.normal(size=(80, 3)) * 3, np.arange(80) % 3
    collector.update(
        torch.from_numpy(outputs), torch.from_numpy(targets), torch.from_numpy(generator.normal(size=(80, 1, 6, 6)))
    )
    return analyze(collector.judged(), names=["cat", "dog", "owl"], groups=np.arange(80) // 40)


@pytest.fixture
def general():
    sizes = np.array([100, 200, 400, 800])
    curve = SizeCurve(sizes, 1 - sizes**-0.3, train=np.full(4, 0.99))
    return generalization(0.99, 0.86, chance=0.1, num_train=800, num_evaluation=500, by_size=curve)


def test_the_page_holds_all_there_is(found, general):
    page = render(found, generalization=general, suspects=[SUSPECT], title="mlp")
    assert page.count('class="thumb"') >= len(found.worst) + 1
    for words in ("overfitting", "Bias or variance", "cat for", "Confusion matrix", "Labels that may be wrong",
                  "Groups against the rest", "Accuracy by confidence", "Score by number of training samples"):  # fmt: skip
        assert words in page, words
    matrix = re.findall(r'<td class="(?:right|wrong) l\d">(\d*)</td>', page)
    assert sum(int(count or 0) for count in matrix) == 80


def test_it_runs_no_script_and_asks_for_nothing(found, general):
    page = render(found, generalization=general)
    assert "<script" not in page and "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in html.unescape(page)


def test_saved_json_gives_the_same(found, general):
    saved = [json.loads(json.dumps(each.to_json(), allow_nan=False)) for each in (found, general, SUSPECT)]
    assert render(saved[0], generalization=saved[1], suspects=[saved[2]]) == render(
        found, generalization=general, suspects=[SUSPECT]
    )
    assert text(saved[0], generalization=saved[1]) == text(found, generalization=general)


def test_names_from_the_users_data_are_escaped(cases: SimpleNamespace):
    collector = Collector()
    collector.update(torch.eye(2) * 5, torch.tensor([1, 0]))
    nasty = analyze(collector.judged(), names=[cases.NASTY, "b"], inputs=[cases.NASTY, "x"], groups=[cases.NASTY, "y"])
    page = render(nasty, title=cases.NASTY)
    assert "<img src=x" not in page and "</script>" not in page
    assert "\x1b" not in text(nasty)


def test_the_text_fits_a_terminal(found, general):
    told = text(found, generalization=general, suspects=[SUSPECT])
    assert "% of answers are wrong" in told and "Worst samples:" in told and "1 label may be wrong" in told
    assert len(told.splitlines()) < 40


@pytest.mark.parametrize("kind", ["numbers", "labels", "sequences", "right", "series"])
def test_every_kind_has_a_page(kind, tmp_path):
    torch.manual_seed(0)
    outputs, targets, inputs = {
        "numbers": (torch.randn(9, 1), torch.randn(9, 1), torch.randn(9, 3)),
        "labels": (torch.randn(9, 4), torch.randint(2, (9, 4)).float(), None),
        "sequences": (torch.randn(9, 5, 7), torch.randint(5, (9, 7)), torch.randint(50, (9, 7))),
        "right": (torch.eye(3).repeat(3, 1) * 5, torch.arange(9) % 3, None),
        "series": (torch.randn(9, 2), torch.arange(9) % 2, torch.randn(9, 60)),
    }[kind]
    collector = Collector()
    collector.update(outputs, targets, inputs)
    made = analyze(collector.judged())
    write(made, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert ("It gets none wrong." in page) == (kind == "right")
    assert ('class="series"' in page) == (kind == "series")
    assert text(made)
