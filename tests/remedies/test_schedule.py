from __future__ import annotations

import pytest

from unstuck.evidence import Optimizer
from unstuck.remedies.schedule import propose, schedule
from unstuck.source import EditError


@pytest.mark.parametrize(
    ("kind", "made"),
    [("cosine", "CosineAnnealingLR(optimizer, 100)"), ("linear", "LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=100)")],
)  # fmt: skip
def test_behind_the_optimizer_and_its_step(script, kind, made):
    written = script(meta={"steps": 100})
    assert written.diff(schedule, kind=kind) == [
        f"+scheduler = torch.optim.lr_scheduler.{made}",
        "+    scheduler.step()",
    ]
    assert written.main.text[: schedule(written)[-1].start].endswith("optimizer.step()\n")


def test_a_step_that_ends_the_file_or_a_line(script):
    made = script("""
        from torch import optim
        opt = optim.Adam(net.parameters())
        for x in batches:
            net(x).backward(); opt.step()
    """)
    assert made.added(schedule)[1] == "    net(x).backward(); opt.step(); scheduler.step()"


def test_a_step_in_a_function(script):
    made = script("""
        from torch import optim

        def train(opt):
            opt.step()

        optimizer = optim.Adam(net.parameters())
    """)
    assert made.added(schedule)[0] == "    scheduler.step()", "the script's own names are known in functions"


def test_an_optimizer_without_a_plain_name(script):
    with pytest.raises(EditError, match="name"):
        schedule(script("self.opt = torch.optim.Adam(net.parameters())\nself.opt.step()\n"))


def test_a_step_where_the_schedule_is_not_known(script):
    made = script("""
        import torch
        from torch import optim

        rates = []

        def main():
            net = torch.nn.Linear(4, 3)
            opt = optim.Adam(net.parameters(), lr=0.1)
            for epoch in range(3):
                train(net, opt)
                rates.append(opt.param_groups[0]["lr"])

        def train(net, opt):
            net(torch.ones(2, 4)).mean().backward()
            opt.step()

        main()
    """, meta={"steps": 3})  # fmt: skip
    assert made.added(schedule) == [
        "    scheduler = optim.lr_scheduler.CosineAnnealingLR(opt, 3)",
        "    opt.register_step_post_hook(lambda *args: scheduler.step())",
    ]
    assert made.run(schedule)["rates"] == pytest.approx([0.075, 0.025, 0])


@pytest.mark.parametrize(
    ("loops", "steps"),
    [
        ("for epoch in range(epochs):\n    for x, y in batches:", "epochs * len(batches)"),
        ("for epoch in range(epochs):\n    for i, (x, y) in enumerate(batches):", "epochs * len(batches)"),
        ("for epoch in range(epochs):\n    for x, y in others:", "10 * epochs"),
        ("for epoch in range(8):\n    for x, y in batches:", "80"),
    ],
)
def test_steps_by_the_names_they_are_made_of(script, loops, steps):
    text = f"""import torch
from torch.utils.data import DataLoader
epochs = 8
batches = DataLoader(data)
optimizer = torch.optim.Adam(net.parameters())
{loops}
        net(x).backward()
        optimizer.step()
"""
    made = script(text, meta={"steps": 80})
    assert made.added(schedule)[0] == f"scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {steps})"


def test_by_a_factor(script):
    made = script(meta={"steps": 10})
    assert "gamma=0.01 ** (1 / 10)" in made.added(schedule, kind="exponential")[0]
    rate = made.run(schedule, kind="exponential")["optimizer"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.001)


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"kind": "cosine"}]
    assert propose(script(optimizers=[Optimizer(schedule="StepLR")]), found()) == []
