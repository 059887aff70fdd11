"""Watching in one's own process."""

import re

import pytest
import torch
from torch import nn

import unstuck
from unstuck.errors import MisuseError


def test_a_network_that_is_named_goes_by_its_variable():
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(classifier.parameters(), 0.1)
    with unstuck.watch(classifier, optimizer, probe_budget=0.0) as run:
        for _ in range(3):
            optimizer.zero_grad()
            classifier(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    assert [model.name for model in run.record.program.models] == ["classifier"]
    assert "classifier.0" in run.record.layers


def test_the_report_speaks_the_language_asked_for_and_json_stays_english(tmp_path, capsys):
    with unstuck.watch(probe_budget=0.0) as run:
        pass
    run.report(html=tmp_path / "page.html", json=tmp_path / "verdict.json", lang="zh")
    page = (tmp_path / "page.html").read_text()
    assert '<html lang="zh' in page
    assert re.search(r"[\u4e00-\u9fff]{3}", capsys.readouterr().out)
    assert (tmp_path / "verdict.json").read_text().isascii()
    run.report()
    assert not re.search(r"[\u4e00-\u9fff]", capsys.readouterr().out)
    with pytest.raises(MisuseError, match="no language 'xx'"):
        run.report(lang="xx")
