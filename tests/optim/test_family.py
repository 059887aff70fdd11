import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError, NotFoundError
from unstuck.optim.family import kinds, optimizer
from unstuck.optim.sam import Sam

PAGE = Path(__file__).parents[2] / "docs" / "optim.md"


def test_the_page_lists_all_with_what_they_keep():
    section = PAGE.read_text().split("## Optimizers\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (\d) \|$", section, re.MULTILINE)
    assert rows == [(kind.name, kind.says.removesuffix("."), str(kind.kept)) for kind in kinds().values()]


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(NotFoundError, match=r"^no optimizer 'adm'; did you mean 'adam'\?$"):
        optimizer("adm", nn.Linear(1, 1), learning_rate=0.1)
    with pytest.raises(NotFoundError, match=r"no optimizer 'qq'; there are adam, adamw, .*sgd$"):
        optimizer("qq", nn.Linear(1, 1), learning_rate=0.1)


def test_a_setting_it_does_not_have_is_told():
    with pytest.raises(MisuseError, match=r"adam has no setting 'momentun'; did you mean 'momentum'\?"):
        optimizer("adam", nn.Linear(1, 1), learning_rate=0.1, momentun=0.9)
    with pytest.raises(MisuseError, match="learning_rate is nan; a learning rate is from 0"):
        optimizer("sgd", nn.Linear(2, 1), learning_rate=float("nan"))
    with pytest.raises(MisuseError, match="sgd has no setting 'rho'; there are learning_rate, weight_decay"):
        optimizer("sgd", nn.Linear(1, 1), learning_rate=0.1, rho=0.9)
    with pytest.raises(MisuseError, match="adamw has no setting 'xyz'"):
        optimizer("sam", nn.Linear(1, 1), learning_rate=0.1, base="adamw", xyz=0.9)


def test_words_mean_the_same_everywhere():
    net = nn.Linear(2, 1)
    for name in ("adam", "adamw", "nadam", "lamb"):
        group = optimizer(name, net, learning_rate=0.3, momentum=0.7, beta2=0.8, weight_decay=0.2).param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.3, (0.7, 0.8), 0.2)
    for name in ("momentum", "nesterov", "lars", "rmsprop"):
        group = optimizer(name, net, learning_rate=0.3, momentum=0.7, weight_decay=0.2).param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.2)
    assert optimizer("rmsprop", net, learning_rate=0.1, beta2=0.8).param_groups[0]["alpha"] == 0.8
    assert optimizer("nadam", net, learning_rate=0.1, decoupled=True).param_groups[0]["decoupled_weight_decay"]


def test_sam_goes_around_any_other_and_knows_the_model():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    made = optimizer("sam", net, learning_rate=0.1, base="adamw", beta2=0.9, rho=0.3)
    assert isinstance(made, Sam)
    assert isinstance(made.base, torch.optim.AdamW)
    assert made.model is net
    assert made.param_groups[0]["rho"] == 0.3
    assert made.param_groups[0]["betas"] == (0.9, 0.9)
    assert optimizer("sam", net.parameters(), learning_rate=0.1).model is None


def test_it_takes_groups_of_parameters():
    net = nn.Linear(2, 1)
    groups = [{"params": [net.weight], "weight_decay": 0.1}, {"params": [net.bias], "lr": 0.5}]
    made = optimizer("lamb", groups, learning_rate=0.01)
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(0.01, 0.1), (0.5, 0.0)]


def slow(name, curvatures, x, steps, lr):
    """From the papers, coordinate by coordinate."""
    beta1, beta2, eps, ends = 0.9, 0.999 if name != "rmsprop" else 0.99, 1e-8, []
    for curvature, at in zip(curvatures, x, strict=True):
        m = v = 0.0
        product = 1.0
        for t in range(1, steps + 1):
            g = curvature * at
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            if name == "rmsprop":
                at -= lr * g / (math.sqrt(v) + eps)
            elif name == "nadam":  # Dozat 2016, algorithm 2, with its schedule of momentum
                now, then = (beta1 * (1 - 0.5 * 0.96 ** (0.004 * s)) for s in (t, t + 1))
                product *= now
                mean = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
                at -= lr * mean / (math.sqrt(v / (1 - beta2**t)) + eps)
            else:
                at = at * (1 - lr * 0.1) if name == "adamw" else at
                at -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
        ends.append(at)
    return torch.tensor(ends, dtype=torch.float64)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "rmsprop"])
def test_on_a_quadratic_torchs_own_go_as_the_papers_say(name):
    curvatures, start = [0.1, 1.0, 10.0], [1.0, -2.0, 0.5]
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    made = optimizer(name, [weight], learning_rate=0.05, **({"weight_decay": 0.1} if name == "adamw" else {}))
    for _ in range(25):
        made.zero_grad()
        (torch.tensor(curvatures, dtype=torch.float64) * weight.square() / 2).sum().backward()
        made.step()
    rtol = 1e-8 if name == "nadam" else 1e-10  # torch has NAdam's product of momenta in float32
    torch.testing.assert_close(weight.detach(), slow(name, curvatures, start, 25, 0.05), rtol=rtol, atol=1e-12)
