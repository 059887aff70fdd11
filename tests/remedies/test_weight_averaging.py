from __future__ import annotations

import pytest
import torch

from unstuck.evidence import Event, Layer, Record
from unstuck.optim.weight_average import WeightAverage
from unstuck.remedies.weight_averaging import propose, treat, weight_averaging
from unstuck.source import EditError
from unstuck.training import Training

RULE = "avg_fn=lambda old, new, n: old + (new - old) * 0.1 / (1 - 0.9 ** (n + 1))"
IN_PLACE = """
    import torch
    import torch.nn.functional as F
    from torch import nn
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    seen = []
    for epoch in range(10):
        net.train()
        for rows in torch.randperm(64).split(16):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            seen.append(net[0].bias.detach().clone())
        net.eval()
        with torch.no_grad():
            out = net(x)
    print(net(x).argmax(1).float().mean())
"""
FUNCTIONS = """
    import torch
    import torch.nn.functional as F
    from torch import nn, optim

    def train(model, optimizer, x, y):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    @torch.no_grad()
    def evaluate(net, x, y):
        net.eval()
        evaluated.append(net)
        return F.cross_entropy(net(x), y)

    def main():
        torch.manual_seed(0)
        x, y = torch.randn(64, 4), torch.randint(3, (64,))
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for epoch in range(20):
            train(model, optimizer, x, y)
            print(evaluate(model, x, y))

    evaluated = []
    main()
"""


def test_evaluated_in_place(script):
    made = script(IN_PLACE)
    assert made.added(weight_averaging, decay=0.9) == [
        f"averaged = torch.optim.swa_utils.AveragedModel(net, {RULE})",
        "        averaged.update_parameters(net)",
        "    averaged.eval()",
        "        out = averaged(x)",
        "print(averaged(x).argmax(1).float().mean())",
    ]


def test_the_average_is_corrected_for_its_start(script):
    made = script(IN_PLACE).run(weight_averaging, decay=0.9)
    seen = torch.stack(made["seen"])
    weights = 0.9 ** torch.arange(len(seen) - 1, -1, -1.0)
    expected = (weights[:, None] * seen).sum(0) / weights.sum()
    torch.testing.assert_close(made["averaged"].module[0].bias, expected)  # in float32, forty steps
    torch.testing.assert_close(made["out"], made["averaged"](made["x"]))
    assert not made["averaged"].training
    assert not torch.equal(made["out"], made["net"](made["x"]))


def test_functions(script):
    made = script(FUNCTIONS)
    assert made.added(weight_averaging, decay=0.9) == [
        f"    averaged = optim.swa_utils.AveragedModel(model, {RULE})",
        "    optimizer.register_step_post_hook(lambda *args: averaged.update_parameters(model))",
        "        print(evaluate(averaged, x, y))",
    ]
    (evaluated,) = set(made.run(weight_averaging, decay=0.9)["evaluated"])
    assert type(evaluated).__name__ == "AveragedModel"
    assert int(evaluated.n_averaged) == 20


def test_functions_that_know_the_network_by_its_own_name(script):
    made = script("""
        import torch
        from torch import nn
        net = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def step():
            net(x).sum().backward()
            optimizer.step()

        def accuracy():
            with torch.no_grad():
                return net(x).argmax(1)

        for i in range(10):
            step()
        print(accuracy())
    """)
    assert made.added(weight_averaging, decay=0.9)[1:] == [
        "    averaged.update_parameters(net)",
        "        return averaged(x).argmax(1)",
    ]


def test_trained_in_another_file(script, tmp_path):
    (tmp_path / "engine.py").write_text("def train(model, opt, x):\n    model(x).sum().backward()\n    opt.step()\n")
    text = """
        import torch
        from engine import train
        net = torch.nn.Linear(4, 3)
        with torch.no_grad():
            print(net(torch.ones(4)))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(10):
            train(net, optimizer, torch.ones(2, 4))
            with torch.no_grad():
                print(net(torch.ones(4)))
    """
    made = script(text)
    sites = [
        {"what": what, "file": str(tmp_path / "engine.py"), "line": line}
        for what, line in (("backward", 2), ("step", 3))
    ]
    made = script(text, events=[Event(0, "site", "", site) for site in sites])
    assert made.added(weight_averaging)[1:] == [
        "optimizer.register_step_post_hook(lambda *args: averaged.update_parameters(net))",
        "        print(averaged(torch.ones(4)))",
    ], "not what is evaluated before there is an average"


def test_statistics_of_batch_norm(script):
    made = script(IN_PLACE.replace("nn.Tanh()", "nn.BatchNorm1d(8)"), layers=[Layer("net.1", "batch_norm")])
    assert made.added(weight_averaging)[0].endswith(", use_buffers=True)")
    made.run(weight_averaging)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("", "", "evaluates nothing"),
        ("", "other.eval()", "line 9 evaluates something"),
        ("", "validate(net.cpu())", "evaluates nothing"),
    ],
)
def test_an_evaluation_that_is_not_found(script, before, after, why):
    with pytest.raises(EditError, match=why):
        weight_averaging(
            script(f"""
            import torch
            import torch.nn.functional as F
            from torch import nn
            net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for epoch in range(10):
                F.cross_entropy(net(x), y).backward()
                optimizer.step()
            {after or "pass"}
            {"print(net(x))" if "line" in why else ""}
        """)
        )


def test_what_is_tried(script, found):
    assert propose(script(meta={"steps": 100}), found()) == [{"decay": 0.9}]
    assert propose(script(meta={"steps": 20_000}), found()) == [{"decay": 0.999}]


def test_a_training_that_has_an_average_is_given_another():
    model = torch.nn.Linear(2, 2)
    batches = [(torch.randn(4, 2), torch.randint(2, (4,)))]
    training = Training(
        model, torch.nn.functional.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), batches,
        average=WeightAverage(model),
    )  # fmt: skip
    with pytest.raises(EditError, match="evaluates nothing"):
        treat(training, Record.of({}))
    training.evaluation = batches
    treat(training, Record.of({}), decay=0.5)
    assert training.average.decay == 0.5
    assert training.average.is_of(model)
