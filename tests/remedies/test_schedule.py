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


def test_a_step_where_the_optimizer_is_not_known(script):
    with pytest.raises(EditError, match="isn't known"):
        schedule(
            script("""
            from torch import optim

            def main():
                opt = optim.Adam(net.parameters())
                train(opt)

            def train(opt):
                opt.step()
        """)
        )


def test_what_is_tried(script, found):
    assert propose(script(), found()) == [{"kind": "cosine"}]
    assert propose(script(optimizers=[Optimizer(schedule="StepLR")]), found()) == []
