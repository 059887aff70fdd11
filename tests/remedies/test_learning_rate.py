from __future__ import annotations

import pytest

from unstuck.evidence import Event, Task
from unstuck.remedies.learning_rate import learning_rate, propose
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("torch.optim.SGD(net.parameters(), lr=0.1)", "torch.optim.SGD(net.parameters(), lr=0.003)"),
        ("torch.optim.SGD(net.parameters(), 0.1)", "torch.optim.SGD(net.parameters(), 0.003)"),
        ("torch.optim.Adam(net.parameters())", "torch.optim.Adam(net.parameters(), lr=0.003)"),
        ("torch.optim.Adam(net.parameters(), lr=args.lr)", "torch.optim.Adam(net.parameters(), lr=0.003)"),
        ("torch.optim.SGD(net.parameters(), lr=10 ** -1)", "torch.optim.SGD(net.parameters(), lr=0.003)"),
        ("torch.optim.SGD(net.parameters(), momentum=0.9)", "torch.optim.SGD(net.parameters(), momentum=0.9, lr=0.003)"),
    ],
)  # fmt: skip
def test_where_the_optimizer_is_made(script, written, becomes):
    made = script(optimizer=written)
    assert made.diff(learning_rate, rate=0.003) == [f"-optimizer = {written}", f"+optimizer = {becomes}"]


def test_a_constant_is_changed_where_it_is_given(script):
    made = script(data="lr = 1e-1", optimizer="torch.optim.SGD(net.parameters(), lr)")
    assert made.diff(learning_rate, rate=1e-5) == ["-lr = 1e-1", "+lr = 1e-5"]


def test_the_rate_that_a_function_is_called_with(script):
    made = script("""
        import torch

        def main(net, lr=0.1, epochs=3):
            opt = torch.optim.SGD(net.parameters(), lr=lr)
            for _ in range(epochs):
                opt.step()

        main(net, 0.5)
    """)
    assert made.diff(learning_rate, rate=0.05) == ["-main(net, 0.5)", "+main(net, 0.05)"]


def test_the_default_of_a_function(script):
    made = script("""
        import torch

        def main(net, *, lr=0.1):
            opt = torch.optim.SGD(net.parameters(), lr=lr)

        main(net)
    """)
    assert made.added(learning_rate, rate=0.05) == ["def main(net, *, lr=0.05):"]


def test_a_class_that_holds_its_optimizer(script):
    made = script("""
        import torch

        class Trainer:
            def __init__(self, net, lr):
                self.opt = torch.optim.Adam(
                    net.parameters(),
                    lr=self.lr,
                )
    """)
    assert made.diff(learning_rate, rate=0.01) == ["-            lr=self.lr,", "+            lr=0.01,"]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ('[{"params": a}, {"params": b, "lr": 0.01}], lr=0.1', '[{"params": a}, {"params": b, "lr": 0.02}], lr=0.2'),
        ('[{"params": a, "lr": 0.1}, {"params": b, "lr": 0.01}]', '[{"params": a, "lr": 0.2}, {"params": b, "lr": 0.02}]'),
        ('[{"params": a, "lr": 0.1}, {"params": b}], 1', '[{"params": a, "lr": 0.2}, {"params": b}], 2'),
    ],
)  # fmt: skip
def test_groups_keep_the_ratios_of_their_rates(script, given, becomes):
    made = script(optimizer=f"torch.optim.SGD({given})")
    assert made.added(learning_rate, rate=0.2) == [f"optimizer = torch.optim.SGD({becomes})"]


def test_groups_by_a_name(script):
    data = 'lr = 0.1\ngroups = [{"params": a, "lr": lr}, {"params": b, "lr": 0.01}]'
    made = script(data=data, optimizer="torch.optim.SGD(groups)")
    assert made.added(learning_rate, rate=0.2) == [
        "lr = 0.2",
        'groups = [{"params": a, "lr": lr}, {"params": b, "lr": 0.02}]',
    ]
    with pytest.raises(EditError, match="plain numbers"):
        learning_rate(script(optimizer='torch.optim.SGD([{"params": a, "lr": rate / 2}])'), rate=0.2)


def test_a_schedule_that_rises_to_a_rate_of_its_own(script):
    made = script("""
        import torch
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=100)
    """)
    site = {"what": "schedule", "file": made.path, "line": 3, "name": "OneCycleLR", "trained": True}
    made = script(made.main.text, events=[Event(0, "site", "", site)])
    line = "scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.8, total_steps=100)"
    assert made.added(learning_rate, rate=0.2) == [line], "as much more as is asked for"


def test_the_second_of_two_optimizers(script):
    made = script("""
        from torch import optim
        a = optim.SGD(first.parameters(), 0.1)
        b = optim.SGD(second.parameters(), 0.1)
    """)
    assert made.added(learning_rate, rate=1.0, optimizer=1) == ["b = optim.SGD(second.parameters(), 1)"]


def test_settings_that_are_given_as_a_whole(script):
    added = script(optimizer="torch.optim.SGD(net.parameters(), **settings)").added(learning_rate, rate=0.1)
    assert added == ["for group in optimizer.param_groups:", '    group["lr"] = 0.1']


@pytest.mark.parametrize(
    "kind", ["getattr(torch.optim, settings['name'])", "KINDS[settings['name']]", "kind_of(settings)"]
)
def test_a_kind_that_is_looked_up(script, kind):
    text = f"""
        import torch
        optimizer = {kind}(net.parameters(), lr=0.5)
    """
    site = {"what": "optimizer", "file": script(text).path, "line": 2, "name": "SGD", "index": 0}
    made = script(text, events=[Event(0, "site", "", site)])
    assert made.added(learning_rate, rate=0.1) == [f"optimizer = {kind}(net.parameters(), lr=0.1)"]


def test_a_list_that_is_given_as_a_whole(script):
    with pytest.raises(EditError, match="gives as a whole"):
        learning_rate(script(optimizer="torch.optim.SGD(*given)"), rate=0.1)


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        ("config = {'lr': 0.5, 'epochs': 3}", "config = {'lr': 0.1, 'epochs': 3}"),
        ("config = {'lr': 0.5}\nconfig['lr'] = 0.2", None),
        ("config = {'lr': 0.5}\nif True:\n    config = {'lr': 0.2}", None),
        ("config = {'lr': rate()}", None),
    ],
)
def test_an_entry_of_a_dict_is_changed_where_it_is_written_down(script, data, changed):
    made = script(data=data, optimizer="torch.optim.SGD(net.parameters(), lr=config['lr'])")
    there = "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)"
    assert made.added(learning_rate, rate=0.1) == [changed or there]


BY_HAND = """
    import torch

    {before}
    w1 = torch.randn(4, 8, requires_grad=True)
    for step in range(100):
        loss = ((x @ w1 - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            {update}
            w1.grad = None
"""


@pytest.mark.parametrize(
    ("update", "becomes"),
    [
        ("w1 -= 0.1 * w1.grad", "w1 -= 0.003 * w1.grad"),
        ("w1 += -0.1 * w1.grad", "w1 += -0.003 * w1.grad"),
        ("w1.data = w1.data - w1.grad.data * 1e-1", "w1.data = w1.data - w1.grad.data * 0.003"),
        ("w1.sub_(0.1 * w1.grad / len(x))", "w1.sub_(0.003 * w1.grad / len(x))"),
        ("w1.add_(w1.grad, alpha=-0.1)", "w1.add_(w1.grad, alpha=-0.003)"),
        ("w1.sub_(w1.grad, alpha=0.1)", "w1.sub_(w1.grad, alpha=0.003)"),
    ],
)
def test_an_update_by_hand(script, update, becomes):
    made = script(BY_HAND.format(before="", update=update))
    assert made.added(learning_rate, rate=0.003) == [f"        {becomes}"]


@pytest.mark.parametrize("update", ["w1 -= lr * w1.grad", "w1 -= lr * velocity", "w1.add_(w1.grad, alpha=-lr)"])
def test_an_update_by_hand_with_a_constant(script, update):
    made = script(BY_HAND.format(before="lr = 0.1", update=update))
    assert made.diff(learning_rate, rate=0.003) == ["-lr = 0.1", "+lr = 0.003"]


def test_an_update_in_a_function(script):
    made = script("""
        def sgd(parameters, rate):
            for p in parameters:
                p.data -= rate * p.grad

        step_size = 0.1
        for step in range(100):
            loss.backward()
            sgd([w, b], step_size)
    """)
    assert made.added(learning_rate, rate=0.01) == ["step_size = 0.01"]


def test_no_rate_to_be_found(script):
    with pytest.raises(EditError, match="where the rate is set"):
        learning_rate(script(BY_HAND.format(before="", update="update(w1)")), rate=0.1)


@pytest.mark.parametrize(
    ("rate", "cause", "first"),
    [
        (1e3, "learning-rate-too-high", 0.001),
        (1e-9, "learning-rate-too-low", 0.001),
        (0.05, "learning-rate-too-high", 0.005),
        (1e3, "learning-rate-too-low", 1e4),
    ],
)
def test_what_is_far_off_is_first_tried_at_the_usual_rate(script, found, rate, cause, first):
    made = script(optimizer="torch.optim.Adam(net.parameters(), lr=1)", series={("lr", ""): [rate] * 3})
    assert propose(made, found(cause))[0] == {"rate": first}


def test_rates_on_both_sides(script, found):
    assert propose(script(), found("learning-rate-too-low"))[0] == {"rate": 1.0}
    assert propose(script(), found("learning-rate-too-high"))[0] == {"rate": 0.01}
    assert propose(script(series={("lr", ""): []}), found()) == []


def test_rates_that_did_well_come_first(script, found):
    told = {
        "name": "from-start", "factors": [0.1, 1.0, 10.0], "losses": [0.5, 1.0, 1.0], "scores": [0.9, 0.3, 0.2], "before": 1.1,
        "score_before": 0.1, "steps": 50, "rate": 0.1,
    }  # fmt: skip
    made = script(events=[Event(9, "probe", data=told)], task=Task("classification", 10, "accuracy", 2.303, 0.1))
    assert propose(made, found("critical-point"))[0] == {"rate": 0.01}
